"""From a resolved model to one in memory. Ours, an `mlflow.sklearn` model, another pyfunc or a bare estimator file: \
afterwards they are all alike.
"""

from __future__ import annotations

import contextlib
import ctypes
import shutil
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fin_pyfunc.model import artifact
from fin_pyfunc.model.artifact import NAME
from fin_pyfunc.model.backends.native import NativeBackend, labels_of
from fin_pyfunc.model.choice import asking_for, nearest
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError, FinPyfuncError, ModelForbiddenError
from fin_pyfunc.model.feature import Feature, Kind
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.example import check_example
from fin_pyfunc.serving.resolver import Resolved, Resolver
from fin_pyfunc.serving.trust.contents import check_data, data_file, without_code

if TYPE_CHECKING:
    from mlflow.pyfunc import PyFuncModel

#: Flavors whose raw model has scikit-learn's interface (when it was logged through it).
_ESTIMATOR_FLAVORS = ("sklearn", "lightgbm", "xgboost")
#: MLflow's column types -> what a client may send, and the dtype the estimator gets.
_COLUMN_TYPES: dict[str, tuple[Kind, str]] = {
    "double": ("number", "float64"), "float": ("number", "float32"), "long": ("integer", "int64"),
    "integer": ("integer", "int32"), "boolean": ("boolean", "bool"), "string": ("string", "object"),
}  # fmt: skip
#: What holds a column of these where some are null.
_WITH_NULLS = {"int64": "Int64", "int32": "Int32", "bool": "boolean"}


class LoadedModel:
    """A model in memory.

    Parameters
    ----------
    resolved : Resolved
        What was asked for and what it turned out to be.
    model : Classifier
        What answers.
    open_pyfunc : callable or None
        Makes the same as MLflow loads it, when MLflow's routes first ask; None for a bare file, which MLflow does not
        know.
    path : Path
        Its folder, or the bare file.

    Attributes
    ----------
    loaded_at : float
        Seconds since the epoch.
    artifact_sha256 : str or None
        Digest of its files: of our manifest, which holds those of all others, or of all there is; None for a model of
        the store's that was not logged by us, where `record.facts` reads all of them.
    size : int
        Bytes of its files; 0 where nobody has looked.
    hits : int
        How often it was asked for.
    default_uri : str or None
        The server's default model's URI, where it is that model or was: another URI may have loaded it before.
    """

    def __init__(
        self, resolved: Resolved, model: Classifier, open_pyfunc: Callable[[], PyFuncModel] | None, path: Path
    ) -> None:
        self.resolved, self.model, self.path = resolved, model, path
        self.size = self.hits = 0
        self.default_uri: str | None = None
        self.has_pyfunc = open_pyfunc is not None
        self._open_pyfunc, self._opening = open_pyfunc, threading.Lock()
        self._pyfunc: PyFuncModel | None = None
        self.loaded_at = time.time()
        #: header lines of an answer by what was asked and which backend answered, for `endpoints.lineage`
        self.lineage: dict[tuple[str | None, str], list[tuple[bytes, bytes]]] = {}
        #: what all records of an answer have in common, by the same, for `record.facts`
        self.recorded: dict[tuple[str | None, str | None], bytes] = {}
        #: the text of a usual record around what differs, by the same and by who asked, for `record.recorder`
        self.noted: dict[tuple[str | None, str, str | None], tuple[bytes, ...]] = {}
        self.artifact_sha256 = _artifact_sha256(resolved, path)

    def asked_by(self, asked: str | None) -> str:
        """The URI that a request asked for: the one it sent, or, where it sent none, the default model's."""
        return self.default_uri or self.resolved.uri if asked is None else asked

    @property
    def is_pyfunc_open(self) -> bool:
        """Whether MLflow's routes have asked for it."""
        return self._pyfunc is not None

    @property
    def pyfunc(self) -> PyFuncModel:
        """The model as MLflow loads it; the first time that takes as long as MLflow takes."""
        with self._opening:
            if self._pyfunc is None:
                if self._open_pyfunc is None:
                    raise ArtifactError("A bare file is no MLflow model: log it, or use /predict.")
                self._pyfunc = self._open_pyfunc()
        return self._pyfunc


def load(
    resolver: Resolver, resolved: Resolved, backend: str | None = None, compiler: Compiler | None = None
) -> LoadedModel:
    """Fetch and open a model.

    Parameters
    ----------
    resolver : Resolver
        Fetches it.
    resolved : Resolved
    backend : str, optional
        The operator's choice; default what the environment variable ``FIN_PYFUNC_BACKEND`` holds, else the model's own.
    compiler : Compiler, optional
        Compiles a model that was not logged by this project, while it answers; without one it stays as it is.

    Raises
    ------
    ModelForbiddenError
        It is more than data, and `trust` does not let code be loaded from where it is.
    ArtifactError, BackendError, StoreUnavailableError
        An `ExampleError` where it does not answer the example recorded in it as it did when it was logged.
    """
    path = resolver.fetch(resolved)
    loaded = opened(path, resolved, nearest(backend), compiler, is_data=not resolver.allows_code(resolved))
    check_example(loaded.model)
    loaded.size = sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    return loaded


def opened(
    path: Path, resolved: Resolved, backend: str | None, compiler: Compiler | None, is_data: bool
) -> LoadedModel:
    """Open a model whose files are here.

    Parameters
    ----------
    path : Path
        Its folder, or the bare file.
    resolved : Resolved
    backend, compiler
        As `load` takes them; None for `backend` is the model's own choice.
    is_data : bool
        Nothing executable may be opened.

    Raises
    ------
    ModelForbiddenError, ArtifactError, BackendError
    """
    if resolved.kind != "mlflow":
        if is_data and resolved.kind in ("pickle", "joblib"):
            raise ModelForbiddenError(
                "The model is a pickle, and 'deployment.api.models.trust' lets nothing executable be loaded there: "
                "write it with skops, or log it with fin_pyfunc.log_model."
            )
        model = _from_file(path, resolved.kind, backend)
        if compiler is not None:
            compiler.later(model, path, resolved.kind)
        return LoadedModel(resolved, model, None, path)
    if is_data:
        check_data(path)
    opens = partial(_load_pyfunc, path, backend, is_data)
    if (folder := self_contained(path)) is not None:
        model = Classifier()
        model.open(folder, backend)
        return LoadedModel(resolved, model, opens, path)
    if (found := data_file(path)) is not None and (loaded := _from_data(resolved, path, *found, is_data, backend)):
        kind, path = found[0], found[1]
    else:
        pyfunc = opens()
        kind, loaded = "mlflow", LoadedModel(resolved, _from_pyfunc(pyfunc, backend), lambda: pyfunc, path)
    if loaded.model.manifest is None and compiler is not None:
        compiler.later(loaded.model, path, kind)
    return loaded


def self_contained(path: Path) -> Path | None:
    """The artifact's folder of a model of ours that brings no code of its user's: it can be opened without MLflow,
    whose import takes seconds. None for any other.
    """
    folder = path / "artifacts" / NAME
    try:
        metadata = (artifact.mlmodel(path) or {}).get("metadata") or {}
        code = sorted(file.name for file in (path / "code").iterdir())
    except (OSError, AttributeError):
        return None
    ours = NAME in metadata and len(code) == 1 and code[0].startswith("fin_pyfunc-") and code[0].endswith(".whl")
    return folder if ours and (folder / artifact.MANIFEST).is_file() else None


def _artifact_sha256(resolved: Resolved, path: Path) -> str | None:
    manifest = path / "artifacts" / NAME / artifact.MANIFEST
    if manifest.is_file():
        return artifact.digest(manifest).sha256
    return resolved.model_id.removeprefix("sha256:") if resolved.model_id.startswith("sha256:") else None


def warm_up(loaded: LoadedModel) -> None:
    """Score rows such as clients may send, so that the first one does not pay for what is lazy in the model, and the
    server knows how long a row takes.
    """
    if loaded.model.dispatch.plan is None:
        loaded.model.measure()
    if sys.platform == "linux":
        # what parsing took and gave back, glibc would keep: 8 MB of each worker after a forest of 200 trees
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def _load_pyfunc(path: Path, backend: str | None, is_data: bool) -> PyFuncModel:
    import mlflow.pyfunc

    try:
        with asking_for(backend):
            if not is_data or data_file(path) is not None:
                return mlflow.pyfunc.load_model(str(path))
            folder = tempfile.mkdtemp(prefix="fin_pyfunc-")
            try:
                pyfunc = mlflow.pyfunc.load_model(str(without_code(path, Path(folder))))
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
        weakref.finalize(pyfunc, shutil.rmtree, folder, ignore_errors=True)  # its files may be opened long after
        return pyfunc
    except FinPyfuncError:
        raise
    except Exception as e:
        if (missing := ArtifactError.missing(e)) is not None:
            raise missing from e
        raise ArtifactError(
            f"MLflow could not load the model ({type(e).__name__}): its files are damaged, or it needs other versions "
            "of its libraries than are installed here."
        ) from e


def _from_pyfunc(pyfunc: PyFuncModel, backend: str | None) -> Classifier:
    flavors = pyfunc.metadata.flavors
    raw: Any = None
    if pyfunc.loader_module == "mlflow.pyfunc.loaders.code_model":
        raw = pyfunc.unwrap_python_model()
        if isinstance(raw, Classifier):
            return raw
    signed = features_of_signature(pyfunc.metadata.get_input_schema())
    if any(flavor in flavors for flavor in _ESTIMATOR_FLAVORS):
        raw = pyfunc.get_raw_model()
        if labels_of(raw) and callable(getattr(raw, "predict", None)):
            return from_estimator(raw, signed, backend)
    from fin_pyfunc.model.backends.pyfunc import PyfuncBackend

    return Classifier.of(signed, Dispatch([PyfuncBackend(pyfunc, signed)], backend or "auto"))


def _from_data(
    resolved: Resolved, path: Path, kind: str, file: Path, is_data: bool, backend: str | None
) -> LoadedModel | None:
    """An `mlflow.sklearn` model in skops or an `mlflow.onnx` model, from its one file: what the model itself says of
    types to trust is not asked. None for what only MLflow can ask, where that is allowed.
    """
    if kind == "onnx":
        try:
            return LoadedModel(resolved, _from_file(file, kind, backend), None, path)
        except ArtifactError:
            if is_data:
                raise
            return None  # no classifier, or one in several files
    from mlflow.models import Model

    from fin_pyfunc.model import estimators

    estimator = estimators.load(file, "skops")
    try:
        signed = features_of_signature(Model.load(str(path / "MLmodel")).get_input_schema())
    except Exception as e:  # whatever a field of another type leads to
        raise ArtifactError("The model's MLmodel is not one that MLflow writes: log the model again.") from e
    if not is_data and not (labels_of(estimator) and callable(getattr(estimator, "predict", None))):
        return None
    return LoadedModel(
        resolved, from_estimator(estimator, signed, backend), partial(_load_pyfunc, path, backend, is_data), path
    )


def _from_file(path: Path, kind: str, backend: str | None) -> Classifier:
    if kind == "onnx":
        from fin_pyfunc.model.backends.onnx_file import OnnxFileBackend

        onnx = OnnxFileBackend(path)
        return Classifier.of(onnx.features, Dispatch([onnx], backend or "auto"))
    from fin_pyfunc.model import estimators

    return from_estimator(estimators.load_file(path, cast("estimators.FileKind", kind)), None, backend)


def from_estimator(estimator: Any, signed: FeatureSpec | None, backend: str | None) -> Classifier:
    """A bare estimator, checked against its signature, else its `feature_names_in_`, else not at all."""
    if not callable(getattr(estimator, "predict", None)) or not labels_of(estimator):
        raise ArtifactError("The model is not a fitted classifier: it needs predict(X) and classes_.")
    names = getattr(estimator, "feature_names_in_", None)
    spec = signed
    if spec is None and names is not None:
        spec = FeatureSpec(features=[Feature(name=str(name), kind="any", dtype="object") for name in names])
    return Classifier.of(spec, Dispatch([NativeBackend(estimator, spec)], backend or "auto"))


def features_of_signature(schema: Any) -> FeatureSpec | None:
    """A foreign signature as a FeatureSpec. It does not say where nulls are allowed, so that is left to the model."""
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return None
    features = []
    for column in schema.inputs:
        kind, dtype = _COLUMN_TYPES.get(getattr(column.type, "name", ""), ("any", "object"))
        optional = not column.required
        if optional:
            dtype = _WITH_NULLS.get(dtype, dtype)
        nullable = optional or kind in ("number", "string", "any")
        features.append(Feature(name=column.name, kind=kind, dtype=dtype, nullable=nullable, optional=optional))
    return FeatureSpec(features=features)
