"""From a resolved model to one in memory: fetched, classified once, and opened as what it was classified."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fin_pyfunc.model import artifact, estimators, requirements_file
from fin_pyfunc.model.choice import nearest
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving import in_process, served_pyfunc
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.example import check_example
from fin_pyfunc.serving.foreign import features_of_signature, from_estimator, is_classifier
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.model_folder import OWN_FOLDER, ModelFolder, classify
from fin_pyfunc.serving.resolver import Resolved, Resolver
from fin_pyfunc.serving.snapshot import Snapshot

_EXECUTABLE = (
    "This model is more than data ({}), and 'deployment.api.models.trust' does not let such a one be loaded from "
    "there; log it with fin_pyfunc.log_model without serialization='cloudpickle' and code_paths, or as skops or ONNX."
)
_PICKLE = (
    "The model is a pickle, and 'deployment.api.models.trust' lets nothing executable be loaded there: write it with "
    "skops, or log it with fin_pyfunc.log_model."
)


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
        It may run code, and `trust` does not let code be loaded from where it is.
    ArtifactError, BackendError, StoreUnavailableError
        An `ExampleError` where it does not answer the example recorded in it as it did when it was logged.
    """
    snapshot = resolver.fetch(resolved)
    loaded = opened(snapshot, resolved, nearest(backend), compiler, is_data=not resolver.allows_code(resolved))
    check_example(loaded.model)
    return loaded


def opened(
    snapshot: Snapshot, resolved: Resolved, backend: str | None, compiler: Compiler | None, is_data: bool
) -> LoadedModel:
    """Open a model from its private copy.

    Parameters
    ----------
    snapshot : Snapshot
    resolved : Resolved
    backend, compiler
        As `load` takes them; None for `backend` is the model's own choice.
    is_data : bool
        Nothing executable may be opened.

    Raises
    ------
    ModelForbiddenError, ArtifactError, BackendError
    """
    folder = classify(snapshot, resolved.kind)
    if is_data and folder.runs_code is not None:
        raise ModelForbiddenError(_PICKLE if folder.is_bare else _EXECUTABLE.format(folder.runs_code))
    model, open_pyfunc = _open(folder, backend, is_data)
    if model.manifest is None and compiler is not None:
        path, kind = (folder.path, "mlflow") if folder.file is None else (folder.data_file, folder.form)
        compiler.later(model, path, kind)
    return LoadedModel(
        resolved,
        model,
        None if folder.is_bare else open_pyfunc,
        snapshot.path,
        _artifact_sha256(snapshot, folder),
        snapshot.size,
    )


def _open(folder: ModelFolder, backend: str | None, is_data: bool) -> tuple[Classifier, Callable[[], Any]]:
    """What answers, and what makes the same for MLflow's scoring code."""
    if folder.form == "fin_pyfunc":
        model = Classifier()
        with in_process.importable(folder, model):
            model.open(folder.own_folder, backend)
        return model, partial(served_pyfunc.of_classifier, folder, model)
    if folder.form == "onnx":
        try:
            return _onnx(folder, backend), partial(served_pyfunc.of_onnx, folder)
        except ArtifactError:
            if is_data or folder.is_bare:
                raise  # else no classifier, or one in several files, which MLflow may be asked
    elif folder.form != "pyfunc":
        estimator = estimators.load_file(folder.data_file, folder.form)
        if is_data or folder.is_bare or is_classifier(estimator):
            model = from_estimator(estimator, _signed(folder), backend)
            return model, partial(served_pyfunc.of_estimator, folder, estimator)
    _drop_references(folder.path)
    return in_process.open_pyfunc(folder, _signed(folder), backend)


def _drop_references(path: Path) -> None:
    """Keep only plain requirements in the copy of a model: MLflow follows ``-r FILE`` when it loads one."""
    file = path / requirements_file.FILE
    if file.is_file():
        content = file.read_bytes() if file.stat().st_size <= requirements_file.MAX_BYTES else b""
        file.write_text(requirements_file.text_of(requirements_file.parse_plain(content)), encoding="utf-8")


def _onnx(folder: ModelFolder, backend: str | None) -> Classifier:
    from fin_pyfunc.model.backends.onnx_file import OnnxFileBackend

    onnx = OnnxFileBackend(folder.data_file)
    return Classifier.of(onnx.features, Dispatch([onnx], backend or "auto"))


def _artifact_sha256(snapshot: Snapshot, folder: ModelFolder) -> str:
    if folder.form == "fin_pyfunc":
        return snapshot.files[f"{OWN_FOLDER}/{artifact.MANIFEST}"].sha256
    return snapshot.digest.removeprefix("sha256:")


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


def _signed(folder: ModelFolder) -> FeatureSpec | None:
    signature = served_pyfunc.signature_of(folder)
    try:
        return None if signature is None else features_of_signature(signature.inputs)
    except Exception as e:  # whatever a field of another type leads to
        raise ArtifactError("The model's MLmodel is not one that MLflow writes: log the model again.") from e
