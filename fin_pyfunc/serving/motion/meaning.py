"""What an operator's word for a model leads to, by what MLflow says."""

from __future__ import annotations

import contextlib

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.motion.names import LOGGED, is_name
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.store import Store

#: Versions of one registered model that are looked at, the newest first.
MAX_VERSIONS = 1000


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
        if logged := LOGGED.fullmatch(source):
            found.add(f"models:/{logged[1]}")
        elif source.startswith(("models:/", "runs:/")):  # a copy of another's, or a run's: only resolving says which
            found.add(source)
            with contextlib.suppress(FinPyfuncError):
                found.add(resolver.resolve_argument(uri).model_id)
    return found
