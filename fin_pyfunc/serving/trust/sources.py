"""Where a model's files must lie: in the artifact store that belongs to the configured MLflow store.

Whoever may register a model may write anything as its source, and whoever may make an experiment chooses where its
artifacts are said to be. So the place that a URI leads to is compared with places that neither of them can choose.
"""

from __future__ import annotations

import posixpath
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fin_pyfunc.model.errors import ModelForbiddenError
from fin_pyfunc.serving.store import Store

_REFUSED = (
    "The model's files are said to lie outside the artifact store of this server's MLflow store; if they are meant to "
    "be there, the operator names that place in 'deployment.api.models.artifact_roots'."
)
#: MLflow makes it in every new store, and nothing in its API moves it.
_DEFAULT_EXPERIMENT = "0"


class _Place(NamedTuple):
    scheme: str
    host: str
    path: str

    def holds(self, other: _Place) -> bool:
        if (self.scheme, self.host) != (other.scheme, other.host):
            return False
        prefix = self.path.rstrip("/")
        return other.path == prefix or other.path.startswith(f"{prefix}/")


class Sources:
    """The places where models may come from.

    Parameters
    ----------
    store : Store
    roots : sequence of str
        Artifact URIs or local folders that the operator names; default the folder above that of the store's default
        experiment, and, for a store that is a file or folder of this machine, the folder that it lies in.
    """

    def __init__(self, store: Store, roots: Sequence[str] = ()) -> None:
        self._store, self._named = store, [_place(root) for root in roots]
        self._found: list[_Place] | None = None
        self._lock = threading.Lock()

    def check(self, location: str) -> None:
        """Check where a model is said to be; nothing there is opened for this.

        Raises
        ------
        ModelForbiddenError
            It is outside of every place, or not plainly written.
        StoreUnavailableError
        """
        place = _place(location)
        if not any(root.holds(place) for root in self._named or self._own()):
            raise ModelForbiddenError(_REFUSED)

    def _own(self) -> list[_Place]:
        with self._lock:
            if self._found is None:
                self._found = [*self._default(), *self._beside()]
            return self._found

    def _default(self) -> list[_Place]:
        with self._store.asking(_REFUSED) as client:
            location = client.get_experiment(_DEFAULT_EXPERIMENT).artifact_location
        place = _place(location)
        above, last = posixpath.split(place.path.rstrip("/"))
        root = place._replace(path=above or "/") if last == _DEFAULT_EXPERIMENT else place
        # the whole of a machine is no artifact store
        return [] if root.scheme == "file" and root.path == "/" else [root]

    def _beside(self) -> list[_Place]:
        with self._store.asking(_REFUSED) as client:
            uri = client.tracking_uri
        if uri.startswith("sqlite:"):
            from sqlalchemy.engine import make_url

            database = make_url(uri).database
            return [_place(str(Path(database).absolute().parent))] if database and database != ":memory:" else []
        if urlsplit(uri).scheme in ("", "file"):
            return [_place(uri)]
        return []


def _place(location: str) -> _Place:
    """An artifact URI or a local path in its parts, with links followed.

    Raises
    ------
    ModelForbiddenError
        It holds what one reader of URLs takes for more than another does.
    """
    if not location or not location.isprintable() or re.search(r"[\\#?;]", location):
        raise ModelForbiddenError(_REFUSED)
    if not re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location):
        return _local(location)
    parts = urlsplit(location)
    if parts.scheme == "file":
        if parts.netloc:
            raise ModelForbiddenError(_REFUSED)
        return _local(url2pathname(parts.path))
    if "%" in location or _climbs(parts.path):
        raise ModelForbiddenError(_REFUSED)
    return _Place(parts.scheme, parts.netloc.lower(), parts.path or "/")


def _local(path: str) -> _Place:
    if _climbs(path) or "\0" in path:
        raise ModelForbiddenError(_REFUSED)
    try:
        return _Place("file", "", str(Path(path).resolve()))
    except (OSError, RuntimeError, ValueError) as e:  # a link that leads to itself
        raise ModelForbiddenError(_REFUSED) from e


def _climbs(path: str) -> bool:
    return ".." in path.split("/")
