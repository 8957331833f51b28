"""From a model URI to the one immutable thing it means, and from there to files on this machine."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from fin_pyfunc.model.errors import (
    ArtifactError,
    ModelForbiddenError,
    ModelNotFoundError,
    ModelUriError,
)
from fin_pyfunc.serving import snapshot
from fin_pyfunc.serving.artifacts import DAMAGED, below, download, has_mlmodel
from fin_pyfunc.serving.files import identify, local_path
from fin_pyfunc.serving.registry import lacking, lenient, logged_by, run_of, source_of, unregistered, version_of
from fin_pyfunc.serving.snapshot import Snapshot, check_size
from fin_pyfunc.serving.store import Store, allow_file_store, bound_mlflow_waits
from fin_pyfunc.serving.suggestions import Names
from fin_pyfunc.serving.trust.allow import EVERY, Allowed
from fin_pyfunc.serving.trust.sources import Sources
from fin_pyfunc.serving.uris import FILE_KINDS, ModelUri, parse

__all__ = ["Resolved", "Resolver", "allow_file_store", "bound_mlflow_waits"]

#: The operator's settings, as the messages name them.
TRUST_SETTING = "deployment.api.models.trust"
ROOTS_SETTING = "deployment.api.models.file_roots"

_LIST = "list what there is with GET /models or 'fin-pyfunc models'."
_NO_FILE = "There is no model at the file URI asked for; send that of a folder with an MLmodel or of a model file."
_NO_PATH = (
    "There is no model at the path given; name a folder with an MLmodel, or a .pkl, .joblib, .skops or .onnx file."
)


@dataclass(frozen=True)
class Resolved:
    """What a model URI means now.

    Parameters
    ----------
    uri : str
        What was asked for.
    model_id : str
        The immutable thing: ``models:/m-<id>``, ``runs:/<run_id>/<path>``, ``models:/<name>/<version>`` or
        ``sha256:<hex>``.
    location : str
        Where its files are: an artifact URI that MLflow downloads, or a local path.
    run_id : str, optional
        The run that logged it.
    mutable : bool
        Whether the URI may mean something else later (an alias, latest, a file).
    kind : {"mlflow", "pickle", "joblib", "skops", "onnx"}
        A folder with an MLmodel, or the kind of bare file.
    origin : {"store", "file", "operator"}, default "store"
        Who says that it is there: the MLflow store, a client's ``file:`` URI, or the operator's own argument.
    """

    uri: str
    model_id: str
    location: str
    run_id: str | None
    mutable: bool
    kind: str
    origin: Literal["store", "file", "operator"] = "store"

    def public(self, uri: str) -> str:
        """A URI of this model's as a stranger may read it: the operator's own local path stays on the server."""
        return uri if uri.startswith(("models:/", "runs:/")) else self.model_id


class _Fetched(NamedTuple):
    folder: Path  # ours to remove
    model: Snapshot  # the model in it


class Resolver:
    """Resolves model URIs against one MLflow store and the file system, and fetches what they mean.

    Safe to use from many threads. Nothing here goes by MLflow's process-wide tracking URI. That rules out downloading
    a ``models:/`` URI: MLflow's ``ModelsArtifactRepository`` builds its client from the process-wide registry URI
    whatever it is passed, and writes a file into the model's folder. So a model is downloaded from its artifact
    location.

    Parameters
    ----------
    tracking_uri, registry_uri : str, optional
        As `fin_pyfunc.serving.store.Store` takes them.
    file_roots : sequence of Path
        The folders below which a client's ``file:`` URI may point; default none.
    trust : {"data", "store", "all"}, default "store"
        ``"data"``: nothing executable at all. ``"store"``: only from the MLflow store. ``"all"``: from files, too.
    allow : sequence of str
        As `Allowed` takes them; default every model of the store.
    artifact_roots : sequence of str or None
        As `Sources` takes them; default None, which takes models from wherever the store says that they are.
    max_bytes : int, optional
        The largest model; default no limit.
    folder : Path, optional
        Private folder to make copies in; default the one for temporary files.
    """

    def __init__(
        self,
        tracking_uri: str | None,
        registry_uri: str | None = None,
        file_roots: Sequence[Path] = (),
        trust: str = "store",
        allow: Sequence[str] = EVERY,
        artifact_roots: Sequence[str] | None = None,
        max_bytes: int = sys.maxsize,
        folder: Path | None = None,
    ) -> None:
        self._store = Store(tracking_uri, registry_uri)
        self._names = Names(self._store)
        self._allowed, self._max_bytes = Allowed(allow), max_bytes
        self._sources = None if artifact_roots is None else Sources(self._store, artifact_roots)
        self._roots = tuple(Path(root).resolve() for root in file_roots)
        self._trust, self._folder = trust, folder
        self._lock = threading.Lock()
        self._root: Path | None = None
        self._fetched: dict[str, _Fetched] = {}
        self._fetching: dict[str, threading.Lock] = {}

    def resolve(self, uri: ModelUri) -> Resolved:
        """Find what a client's URI means now; opens nothing but the file of a permitted ``file:`` URI.

        Parameters
        ----------
        uri : ModelUri

        Returns
        -------
        Resolved

        Raises
        ------
        ModelNotFoundError
            No such run, model, version, alias or file.
        ModelForbiddenError
            It is not allowed, a file outside every root, a source outside the artifact store, or a pickle without trust
            in all.
        StoreUnavailableError
            MLflow does not answer.
        """
        self.check_allowed(uri)
        try:
            return self._resolve(uri)
        except ModelNotFoundError as e:
            if e.suggestion is None:
                raise
            raise ModelNotFoundError(str(e), e.suggestion.only(self._allowed.takes)) from e.__cause__

    def check_allowed(self, uri: ModelUri) -> None:
        """Raise ModelForbiddenError for a URI that no client may send; asks nobody."""
        self._allowed.check(uri)

    def allows_code(self, resolved: Resolved) -> bool:
        """Whether a model may be more than data, going by who says that it is there."""
        return self._trust == "all" or (self._trust == "store" and resolved.origin != "file")

    def _resolve(self, uri: ModelUri) -> Resolved:
        if uri.kind == "file":
            return self._file(uri)
        text = str(uri)
        if uri.kind == "logged":
            return self._logged(text, uri.model_id)
        if uri.kind == "run":
            return self._run(text, uri.run_id, uri.name)
        return self._registered(text, uri)

    def resolve_argument(self, text: str) -> Resolved:
        """Find what the operator's own argument means: whatever MLflow takes, and a local path.

        Not subject to the strict grammar, `allow` or the file roots. Anything that is neither local nor a run's or the
        registry's is downloaded here, because its identity is the digest of its files.

        Parameters
        ----------
        text : str
            Such as ``models:/eurusd_rf@champion``, ``./model``, ``s3://bucket/model``.

        Returns
        -------
        Resolved

        Raises
        ------
        ModelUriError
            No model URI begins so; or it is the registry's, and names no version.
        ModelNotFoundError, ArtifactError, StoreUnavailableError
            As `resolve` and `fetch` do; the message says what there is instead.
        """
        try:
            uri: ModelUri | None = parse(text)
        except ModelUriError:
            uri = lenient(text)
        try:
            if uri is not None and uri.kind != "file":
                return self._resolve(uri)
            if (path := local_path(text)) is not None:
                return self._path(text, path)
            self._names.refuse_malformed(text)
        except ModelNotFoundError as e:
            if e.suggestion is None:
                raise
            raise ModelNotFoundError(str(e.suggestion)) from e
        remote = Resolved(text, "", text, None, mutable=True, kind="mlflow", origin="operator")
        fetched = self._fetch(remote)
        found = replace(remote, model_id=fetched.model.digest)
        with self._lock:
            kept = self._fetched.setdefault(found.model_id, fetched)
        if kept is not fetched:
            shutil.rmtree(fetched.folder, ignore_errors=True)
        return found

    def fetch(self, resolved: Resolved) -> Snapshot:
        """Copy a model's files into a private folder, from this machine or from the artifact store.

        Parameters
        ----------
        resolved : Resolved

        Returns
        -------
        Snapshot
            Made once for however many ask; it is removed by `discard` or `close`.

        Raises
        ------
        ModelForbiddenError
            It is too large, or its folder leads elsewhere.
        ArtifactError
            The files are missing, or are not those that were resolved.
        StoreUnavailableError
            The artifact store does not answer.
        """
        with self._lock:
            fetching = self._fetching.setdefault(resolved.model_id, threading.Lock())
        with fetching:
            with self._lock:
                if (kept := self._fetched.get(resolved.model_id)) is not None:
                    return kept.model
            fetched = self._fetch(resolved)
            if resolved.model_id.startswith("sha256:") and fetched.model.digest != resolved.model_id:
                shutil.rmtree(fetched.folder, ignore_errors=True)
                raise ArtifactError("The files of this model have changed since it was resolved; ask for it again.")
            with self._lock:
                self._fetched[resolved.model_id] = fetched
            return fetched.model

    def discard(self, resolved: Resolved, after: object = None) -> None:
        """Remove what `fetch` copied for one model, if anything.

        Parameters
        ----------
        resolved : Resolved
        after : object, optional
            Wait until nobody holds this any more; a `fetch` meanwhile copies anew.
        """
        with self._lock:
            fetched = self._fetched.pop(resolved.model_id, None)
            self._fetching.pop(resolved.model_id, None)
        if fetched is not None and after is not None:
            weakref.finalize(after, shutil.rmtree, fetched.folder, ignore_errors=True)
        elif fetched is not None:
            shutil.rmtree(fetched.folder, ignore_errors=True)

    def close(self) -> None:
        """Remove everything that `fetch` copied."""
        with self._lock:
            root, self._root = self._root, None
            self._fetched.clear()
            self._fetching.clear()
        if root is not None:
            shutil.rmtree(root, ignore_errors=True)

    def _path(self, text: str, path: Path) -> Resolved:
        """The operator's own path; one that is not there may be a registered name without its scheme."""
        try:
            kind, model_id = identify(path, path.suffix, _NO_PATH)
        except ModelNotFoundError as e:
            uri = lenient(f"models:/{text}") or lenient(f"models:/{text}/latest")
            if uri is None or path.exists() or not re.fullmatch(r"[^./~][^/]*(/\d+|/latest)?", text):
                raise
            meant = self._names.meant(uri, f"models:/{text}", _NO_PATH.partition(";")[0])
            raise ModelNotFoundError(str(e), meant) from None
        return Resolved(text, model_id, str(path), None, mutable=True, kind=kind, origin="operator")

    def _logged(self, text: str, model_id: str, *, mutable: bool = False) -> Resolved:
        with self._store.asking(f"There is no logged model of the id asked for; {_LIST}") as client:
            model = client.get_logged_model(model_id)
        return self._of_logged(text, model, mutable=mutable)

    def _run(self, text: str, run_id: str, path: str, *, must_be_active: bool = True) -> Resolved:
        no_run = f"There is no run of the id asked for; {_LIST}"
        with self._store.asking(no_run) as client:
            run = client.get_run(run_id)
            if must_be_active and run.info.lifecycle_stage != "active":  # a registered version outlives its run
                raise ModelNotFoundError(no_run)
            if (model := logged_by(client, run, path)) is not None:
                return self._of_logged(text, model)
        location = below(run.info.artifact_uri, path)
        self._check_source(location)
        if not has_mlmodel(self._store, location):
            raise ModelNotFoundError(f"The run asked for has no model of that name; {_LIST}")
        return Resolved(text, f"runs:/{run_id}/{path}", location, run_id, mutable=False, kind="mlflow")

    def _registered(self, text: str, uri: ModelUri) -> Resolved:
        mutable = uri.kind != "version"
        try:
            with self._store.asking(unregistered(uri)) as client:
                version = version_of(client, uri)
                if version is None:
                    raise ModelNotFoundError(unregistered(uri))
        except ModelNotFoundError as e:
            raise ModelNotFoundError(str(e), self._names.suggest(uri, lacking(uri))) from e.__cause__
        with self._store.asking(unregistered(uri)) as client:
            source = source_of(client, version)
            if found := re.fullmatch(r"models:/(m-[0-9a-f]{32})", source):
                return self._logged(text, found[1], mutable=mutable)
            if source.startswith("runs:/"):
                run = run_of(source)
                resolved = replace(self._run(text, run.run_id, run.name, must_be_active=False), mutable=mutable)
                if resolved.model_id.startswith("models:/"):
                    return resolved
                location = resolved.location
            else:
                location = client.get_model_version_download_uri(version.name, version.version)
        self._check_source(location)
        model_id = f"models:/{version.name}/{version.version}"
        return Resolved(text, model_id, location, version.run_id or None, mutable, "mlflow")

    def _of_logged(self, text: str, model: Any, *, mutable: bool = False) -> Resolved:
        location = model.artifact_location
        self._check_source(location)
        return Resolved(text, f"models:/{model.model_id}", location, model.source_run_id or None, mutable, "mlflow")

    def _check_source(self, location: str) -> None:
        if self._sources is not None:
            self._sources.check(location)

    def _file(self, uri: ModelUri) -> Resolved:
        outside = f"A file URI must lie below a folder that '{ROOTS_SETTING}' allows; use runs:/ or models:/."
        try:
            path = Path(uri.path).resolve()
        except (OSError, RuntimeError) as exc:  # a link that leads to itself
            raise ModelForbiddenError(outside) from exc
        if not any(path.is_relative_to(root) for root in self._roots):
            raise ModelForbiddenError(outside)
        if FILE_KINDS.get(Path(uri.path).suffix) in ("pickle", "joblib") and self._trust != "all":
            raise ModelForbiddenError(
                f"Loading a pickle runs whatever code is in it, so .pkl and .joblib files need '{TRUST_SETTING}' "
                "set to 'all' by the operator; send a .skops or .onnx file instead."
            )
        if path.is_file() or path.is_dir():
            check_size(path, self._max_bytes)
        kind, model_id = identify(path, Path(uri.path).suffix, _NO_FILE, self._roots)
        return Resolved(str(uri), model_id, str(path), None, mutable=True, kind=kind, origin="file")

    def _fetch(self, resolved: Resolved) -> _Fetched:
        folder = Path(tempfile.mkdtemp(dir=self._private_root()))
        try:
            if (path := local_path(resolved.location)) is None:
                return _Fetched(
                    folder, snapshot.describe(download(self._store, resolved.location, folder, self._max_bytes))
                )
            is_there = path.is_file() if resolved.kind != "mlflow" else (path / "MLmodel").is_file()
            if not is_there:
                raise ArtifactError(DAMAGED)
            target = folder / path.name
            if resolved.origin == "operator":  # of any size, and with links to anywhere
                return _Fetched(folder, snapshot.copy(path, target))
            if resolved.origin == "store":  # where the path leads may have changed since it was resolved
                path = path.resolve()
                self._check_source(str(path))
            return _Fetched(folder, snapshot.copy(path, target, self._max_bytes, self._roots))
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _private_root(self) -> Path:
        with self._lock:
            if self._root is None:
                self._root = Path(tempfile.mkdtemp(prefix="fin_pyfunc-", dir=self._folder))  # 0700
                weakref.finalize(self, shutil.rmtree, self._root, ignore_errors=True)
            return self._root
