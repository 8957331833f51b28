"""What an operator's word for a model means: a registered name, a URI or an id, and the ids it leads to."""

from __future__ import annotations

import contextlib
import re

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.store import Store

_LOGGED = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})")
_REGISTERED = re.compile(r"models:/(?!m-[0-9a-f]{32}$)([^/@]+)(?:[/@].+)?")
#: Versions of one registered model that are looked at, the newest first.
MAX_VERSIONS = 1000


def normal(text: str) -> str:
    """An operator's word in one form: a logged model's id as a URI, a registered model by its bare name."""
    if found := _LOGGED.fullmatch(text):
        return f"models:/{found[1]}"
    found = _REGISTERED.fullmatch(text)
    return found[1] if found and text == f"models:/{found[1]}" else text


def registered_name(uri: str) -> str | None:
    """The registered model that a URI names, or None."""
    found = _REGISTERED.fullmatch(uri)
    return found[1] if found else None


def is_name(text: str) -> bool:
    """Whether this is a registered model's bare name: MLflow allows neither ``/`` nor ``:`` in one."""
    return "/" not in text and ":" not in text


def ids_of(text: str, resolver: Resolver, store: Store) -> set[str]:
    """Model ids that a word leads to now, by what MLflow says; none where it does not answer or there is no such thing.

    Parameters
    ----------
    text : str
        In the form of `normal`.
    resolver : Resolver
    store : Store
    """
    with contextlib.suppress(FinPyfuncError):
        if is_name(text):
            return _ids_of_versions(text, resolver, store)
        if not text.startswith("sha256:"):
            return {resolver.resolve_argument(text).model_id}
    return set()


def _ids_of_versions(name: str, resolver: Resolver, store: Store) -> set[str]:
    quoted = name.replace("'", "''")
    with store.asking("There is no such registered model.") as client:
        versions = list(
            client.search_model_versions(f"name='{quoted}'", max_results=MAX_VERSIONS, order_by=["version_number DESC"])
        )
    found: set[str] = set()
    for version in versions:
        uri, source = f"models:/{version.name}/{version.version}", version.source or ""
        found.add(uri)
        if logged := _LOGGED.fullmatch(source):
            found.add(f"models:/{logged[1]}")
        elif source.startswith(("models:/", "runs:/")):  # a copy of another's, or a run's: only resolving says which
            found.add(source)
            with contextlib.suppress(FinPyfuncError):
                found.add(resolver.resolve_argument(uri).model_id)
    return found
