"""What may have been meant by a model URI that leads to nothing: near names, and the versions and aliases there are."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from fin_pyfunc.model.errors import FinPyfuncError, ModelNotFoundError, ModelUriError
from fin_pyfunc.serving.registry import lenient, registered_models
from fin_pyfunc.serving.store import Store
from fin_pyfunc.serving.uris import UNKNOWN_FORM, ModelUri

#: Seconds for which the list of registered models is kept.
KEPT_SECONDS = 10.0
#: URIs that one sentence holds.
MAX_CLOSE, MAX_THERE = 3, 6
#: How like two names are that may be mistaken for one another, as `difflib` counts it.
NEARNESS = 0.75
_NO_NAME = "No registered model has the name asked for"
_NO_VERSION = (
    "The URI names no version of the registered model: send models:/<name>/<version>, models:/<name>@<alias> or "
    "models:/<name>/latest."
)


@dataclass(frozen=True)
class Suggestion:
    """Models there are, for the message about one that there is not; ``str()`` is that message.

    Parameters
    ----------
    wrong : str
        What is wrong with what was asked for, without a full stop.
    close : tuple of str
        URIs that differ from it by a few letters.
    there : tuple of str
        URIs of the registered model that was asked for, or of some, where there is none of that name.
    """

    wrong: str
    close: tuple[str, ...] = ()
    there: tuple[str, ...] = ()

    def only(self, may_know: Callable[[str], bool]) -> Suggestion | None:
        """Leave out the URIs that somebody may not know of; None where none is left."""
        close, there = (tuple(filter(may_know, uris)) for uris in (self.close, self.there))
        return replace(self, close=close, there=there) if close or there else None

    def __str__(self) -> str:
        meant = f"did you mean {' or '.join(self.close[:MAX_CLOSE])}?" if self.close else ""
        if not self.there:
            return f"{self.wrong}: {meant}"
        more = f" and {len(self.there) - MAX_THERE} more" if len(self.there) > MAX_THERE else ""
        listed = f"there are {', '.join(self.there[:MAX_THERE])}{more}."
        return f"{self.wrong} ({meant}); {listed}" if meant else f"{self.wrong}; {listed}"


class Names:
    """The registered models of a store, as far as messages need them.

    Parameters
    ----------
    store : Store
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, Any] = {}
        self._fresh_until = 0.0

    def suggest(self, uri: ModelUri, wrong: str) -> Suggestion | None:
        """Say what there is instead of a registered model, version or alias; None where MLflow does not say.

        Parameters
        ----------
        uri : ModelUri
            Of the registry; it leads to nothing.
        wrong : str
            What is wrong with it where there is a registered model of its name.
        """
        try:
            known = self._models()
            if uri.name not in known:
                near = _close(uri.name, known)
                some = () if near else tuple(_first_uri(model) for model in known.values())
                return Suggestion(_NO_NAME, tuple(_nearest_uri(known[name], uri) for name in near), some).only(bool)
            aliases = sorted(known[uri.name].aliases)
            close = [f"models:/{uri.name}@{alias}" for alias in _close(uri.alias, aliases)]
            there = [*(f"models:/{uri.name}@{alias}" for alias in aliases), *self._versions(uri.name)]
        except FinPyfuncError:
            return None
        return Suggestion(wrong, tuple(close), tuple(there)).only(bool)

    def meant(self, uri: ModelUri, text: str, wrong: str) -> Suggestion | None:
        """Say which registered model may have been meant by a word that is no path.

        Parameters
        ----------
        uri : ModelUri
            The word as one of the registry.
        text : str
            The word behind ``models:/``.
        wrong : str
            What is wrong with it as a path.
        """
        found = self.suggest(uri, wrong)
        if found is None or found.wrong != wrong:  # no such name: what is near it may be meant, what is not may not
            close = () if found is None else found.close
            return Suggestion(wrong, close or ((text,) if uri.kind == "alias" else ())).only(bool)
        return Suggestion(wrong, (text,)) if text in found.there else found

    def refuse_malformed(self, text: str) -> None:
        """Refuse what can never be a model URI, rather than take it for an artifact store that does not answer.

        Parameters
        ----------
        text : str
            Neither a local path nor a URI of a run or of the registry, as far as it can be read.

        Raises
        ------
        ModelUriError
            No artifact store has that scheme; the message says which URI may have been meant.
        ModelNotFoundError
            It is a registered model's, without a version.
        """
        from mlflow.store.artifact.artifact_repository_registry import get_registered_artifact_repositories

        if (found := re.fullmatch(r"models:/([^/@]+)/?", text)) is not None:
            uri = ModelUri(kind="latest", name=found[1])
            raise ModelNotFoundError(_NO_VERSION, self.suggest(uri, _NO_VERSION.partition(":")[0]))
        scheme, schemes = text.partition(":")[0], get_registered_artifact_repositories()
        if scheme not in schemes or (scheme in ("models", "runs") and not re.fullmatch(r"runs:/[^/]+/.+", text)):
            near = _near_scheme(text, schemes)
            raise ModelUriError(UNKNOWN_FORM if near is None else f"That is no model URI: did you mean {near}?")

    def _models(self) -> Mapping[str, Any]:
        with self._lock:
            if time.monotonic() > self._fresh_until:
                with self._store.asking(_NO_NAME) as client:
                    found = registered_models(client)
                self._known = {model.name: model for model in found}
                self._fresh_until = time.monotonic() + KEPT_SECONDS
            return self._known

    def _versions(self, name: str) -> list[str]:
        quoted = name.replace("'", "''")
        with self._store.asking(_NO_NAME) as client:
            found = client.search_model_versions(
                f"name='{quoted}'", max_results=MAX_THERE, order_by=["version_number DESC"]
            )
        return [f"models:/{name}/{version.version}" for version in found]


def _near_scheme(text: str, schemes: Iterable[str]) -> str | None:
    """Correct the scheme of a URI, or how many slashes it has, where that makes one of the registry or of a run.

    Parameters
    ----------
    text : str
        Such as ``model:/fx@champion`` or ``models://fx/1``.
    schemes : iterable of str
        Those that there are.
    """
    scheme, _, rest = text.partition(":")
    near = get_close_matches(scheme.lower(), [*schemes, "models", "runs"], 1)
    if not near:
        return None
    if near[0] not in ("models", "runs"):
        return f"{near[0]}:{rest}" if near[0] != scheme else None
    corrected = f"{near[0]}:/{rest.lstrip('/')}"
    is_whole = lenient(corrected) if near[0] == "models" else re.fullmatch(r"runs:/[^/]+/.+", corrected)
    return corrected if is_whole and corrected != text else None


def _close(name: str, names: Iterable[str]) -> list[str]:
    """The names near one, the nearest first, whatever their case."""
    by_lower = {other.lower(): other for other in names}
    return [by_lower[lower] for lower in get_close_matches(name.lower(), by_lower, MAX_CLOSE, NEARNESS)] if name else []


def _nearest_uri(model: Any, uri: ModelUri) -> str:
    """The URI of another registered model that is most like the one asked for."""
    aliases: Sequence[str] = _close(uri.alias, model.aliases)
    return f"models:/{model.name}@{aliases[0]}" if aliases else _first_uri(model)


def _first_uri(model: Any) -> str:
    if model.aliases:
        return f"models:/{model.name}@{min(model.aliases)}"
    versions = [int(version.version) for version in model.latest_versions]
    return f"models:/{model.name}/{max(versions)}" if versions else f"models:/{model.name}"
