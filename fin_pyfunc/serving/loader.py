"""From a resolved model to one in memory: fetched, classified once, and opened as what it was classified."""

from __future__ import annotations

import contextlib
import ctypes
import logging
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from fin_pyfunc.model import artifact, estimators
from fin_pyfunc.model.choice import nearest
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.foreign.estimator import is_classifier
from fin_pyfunc.model.foreign.features import features_of_signature
from fin_pyfunc.model.library_imports import import_libraries
from fin_pyfunc.serving import in_process, served_pyfunc
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.example import check_example
from fin_pyfunc.serving.foreign import from_estimator
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.hosts.isolation import Isolation
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.model_folder import OWN_FOLDER, ModelFolder, classify
from fin_pyfunc.serving.resolver import Resolved, Resolver
from fin_pyfunc.serving.snapshot import Snapshot
from fin_pyfunc.serving.trial_row import try_out

logger = logging.getLogger("fin_pyfunc.server")

_EXECUTABLE = (
    "This model is more than data ({}), and 'deployment.api.models.trust' does not let such a one be loaded from "
    "there; log it with fin_pyfunc.log_model without serialization='cloudpickle' and code_paths, or as skops or ONNX."
)
_PICKLE = (
    "The model is a pickle, and 'deployment.api.models.trust' lets nothing executable be loaded there: write it with "
    "skops, or log it with fin_pyfunc.log_model."
)


class _Opened(NamedTuple):
    """What came of opening a model.

    Parameters
    ----------
    model : Classifier
        What answers.
    open_pyfunc : callable or None
        Returns the same for MLflow's scoring code; None where it is not in this process.
    hosted : HostedModel or None
        Where it is in a process of its own.
    """

    model: Classifier
    open_pyfunc: Callable[[], Any] | None
    hosted: HostedModel | None = None


def load(
    resolver: Resolver,
    resolved: Resolved,
    backend: str | None = None,
    compiler: Compiler | None = None,
    isolation: Isolation | None = None,
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
    isolation : Isolation, optional
        Opens what may run code in processes of their own; default it is opened in this one.

    Raises
    ------
    ModelForbiddenError
        It may run code, and `trust` does not let code be loaded from where it is.
    ArtifactError, BackendError, StoreUnavailableError, ModelUnavailableError
        An `ExampleError` where it does not answer the example recorded in it as it did when it was logged.
    """
    snapshot, is_data = resolver.fetch(resolved), not resolver.allows_code(resolved)
    loaded = opened(snapshot, resolved, nearest(backend), compiler, is_data, isolation)
    check_example(loaded.model)
    return loaded


def opened(
    snapshot: Snapshot,
    resolved: Resolved,
    backend: str | None,
    compiler: Compiler | None,
    is_data: bool,
    isolation: Isolation | None = None,
) -> LoadedModel:
    """Open a model from its private copy.

    Parameters
    ----------
    snapshot : Snapshot
    resolved : Resolved
    backend, compiler, isolation
        As `load` takes them; None for `backend` is the model's own choice.
    is_data : bool
        Nothing executable may be opened.

    Raises
    ------
    ModelForbiddenError, ArtifactError, BackendError, ModelUnavailableError
    """
    folder = classify(snapshot, resolved.kind)
    if is_data and folder.runs_code is not None:
        raise ModelForbiddenError(_PICKLE if folder.is_bare else _EXECUTABLE.format(folder.runs_code))
    if _forgets_missing(folder):
        logger.info(
            "%s: MLflow's file of an XGBClassifier does not hold its missing=, so NaN and null stand for missing "
            "values, whatever did in training; log it with fin_pyfunc.log_model if that was another value",
            resolved.model_id,
        )
    made = None
    # under `environment: model` an estimator wants the libraries it was fitted with, even where it is data
    is_elsewhere = isolation is not None and isolation.has_environments and not is_data and not folder.is_bare
    if folder.runs_code is None and not (is_elsewhere and folder.form != "onnx"):
        made = _open_data(folder, backend, is_data)
    if made is None and isolation is not None:
        made = _open_hosted(snapshot, folder, backend, isolation, resolved.model_id)
    elif made is None:
        made = _open_here(folder, backend)
    # in another environment than its own, what is compiled could answer as other versions of its libraries do
    if made.model.manifest is None and compiler is not None and not (made.hosted is not None and is_elsewhere):
        path, kind = (folder.path, "mlflow") if folder.file is None else (folder.data_file, folder.form)
        compiler.later(made.model, path, kind)
    return LoadedModel(
        resolved,
        made.model,
        None if folder.is_bare else made.open_pyfunc,
        folder,
        _artifact_sha256(snapshot, folder),
        snapshot.size,
        None if folder.is_bare else made.hosted,
    )


def _open_data(folder: ModelFolder, backend: str | None, is_data: bool) -> _Opened | None:
    """A model that is data; None for one that is no classifier of its own, which MLflow may be asked to run."""
    if folder.form == "fin_pyfunc":
        model = Classifier()
        model.open(folder.own_folder, backend)
        return _Opened(model, partial(served_pyfunc.of_classifier, folder, model))
    must_work = is_data or folder.is_bare
    if folder.form == "onnx":
        try:
            return _Opened(_onnx(folder, backend), partial(served_pyfunc.of_onnx, folder))
        except ArtifactError:
            if must_work:
                raise
            return None  # no classifier, or one in several files
    estimator = estimators.load_file(folder.data_file, "skops")
    if not must_work and not is_classifier(estimator):
        return None
    model = from_estimator(estimator, _signed(folder), backend)
    return _Opened(model, partial(served_pyfunc.of_estimator, folder, estimator))


def _open_hosted(
    snapshot: Snapshot, folder: ModelFolder, backend: str | None, isolation: Isolation, name: str
) -> _Opened:
    """A model that may run code, in a process of its own; what of it is data is opened here."""
    if folder.form == "fin_pyfunc":
        model = Classifier()
        model.open(
            folder.own_folder,
            backend,
            lambda manifest: isolation.open_estimator(snapshot, folder, manifest, name).backend,
        )
        return _Opened(model, partial(served_pyfunc.of_classifier, folder, model))
    hosted = isolation.open_foreign(snapshot, folder, _signed(folder), backend, name)
    described = hosted.described
    wanted = "auto" if described.kind == "classifier" else backend or "auto"
    model = Classifier.of(described.features, Dispatch([hosted.backend], wanted), described.thresholds)
    return _Opened(model, None, hosted)


def _open_here(folder: ModelFolder, backend: str | None) -> _Opened:
    """A model that may run code, in this process."""
    import_libraries("skops.io")  # and scikit-learn with it: what is unpickled would import it on any thread
    if folder.form == "fin_pyfunc":
        model = Classifier()
        with in_process.importable(folder, model):
            model.open(folder.own_folder, backend)
        return _Opened(model, partial(served_pyfunc.of_classifier, folder, model))
    if folder.form in ("pickle", "joblib"):
        estimator = estimators.load_file(folder.data_file, folder.form)
        return _Opened(from_estimator(estimator, None, backend), None)
    return _Opened(*in_process.open_pyfunc(folder, _signed(folder), backend))


def _forgets_missing(folder: ModelFolder) -> bool:
    """Whether `mlflow.xgboost` wrote an estimator, of which XGBoost's own format keeps the trees alone."""
    if folder.form != "pyfunc":
        return False
    flavor = ((artifact.mlmodel(folder.path) or {}).get("flavors") or {}).get("xgboost")
    return isinstance(flavor, dict) and str(flavor.get("model_class")).startswith("xgboost.sklearn.")


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

    Raises
    ------
    ArtifactError
        A model that was not logged by this project does not answer them.
    """
    if loaded.model.dispatch.plan is None:
        loaded.model.measure()
    try_out(loaded)
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
