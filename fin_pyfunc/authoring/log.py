"""Log or save a fitted classifier. What cannot be served is refused here, never when serving."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

import msgspec
import pandas as pd

from fin_pyfunc.authoring import compile_child, requirements, wheel
from fin_pyfunc.authoring.checks import (
    checked_classes,
    checked_code_paths,
    checked_estimator,
    checked_sample,
    checked_thresholds,
    checked_tolerance,
    ranges,
    refuse_positions,
)
from fin_pyfunc.authoring.column_order import check_column_order
from fin_pyfunc.authoring.cuml import Twin, checked_twin, twin_of
from fin_pyfunc.authoring.signature import checked_signature, example_frame
from fin_pyfunc.authoring.training_parts import without_training_parts
from fin_pyfunc.authoring.verify import Reference, verify, within_float32
from fin_pyfunc.compiling.advice import slow_line, unused_line, why_native
from fin_pyfunc.compiling.forms import Compiled, backends_of, can_compile, coded_for, compile_estimator, why_not
from fin_pyfunc.model import artifact, estimators
from fin_pyfunc.model.backends import asks_for
from fin_pyfunc.model.backends.devices import KINDS, NAMES
from fin_pyfunc.model.backends.forest import is_forest
from fin_pyfunc.model.backends.native import single_threaded
from fin_pyfunc.model.decision import Label
from fin_pyfunc.model.dispatch import DEVICES
from fin_pyfunc.model.encoders import with_codes, with_known_values
from fin_pyfunc.model.errors import NotLoggableError
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.model.form import LIBRARIES
from fin_pyfunc.model.parts import qualified_name

if TYPE_CHECKING:
    from mlflow.models.model import ModelInfo
    from mlflow.models.signature import ModelSignature

logger = logging.getLogger("fin_pyfunc")

#: The code file of every artifact, copied from here.
ENTRY = Path(artifact.__file__).with_name("entry.py")
BACKENDS = ("native", "forest", "trees", "program", "onnx", "treelite", *NAMES)
#: How far, in probability, a compiled form may be from the estimator.
TOLERANCE = 1e-6


class ModelOptions(TypedDict, total=False):
    """Keywords of `log_model` and `save_model`; `log_model` says what each means."""

    identifiers: Sequence[str]
    confidence: Mapping[str, float]
    extra: Literal["ignore", "forbid"]
    backend: str
    tolerance: float
    serialization: estimators.Serialization
    classes: Sequence[Label]
    y: Any
    predictions: Any
    signature: ModelSignature
    input_example: Any
    metadata: Mapping[str, Any]
    pip_requirements: Sequence[str] | str
    extra_pip_requirements: Sequence[str] | str
    code_paths: Sequence[str]


class LogOptions(ModelOptions, total=False):
    """Keywords of `mlflow.pyfunc.log_model` that mean here what they mean there."""

    registered_model_name: str
    await_registration_for: int
    params: dict[str, Any]
    tags: dict[str, Any]
    model_type: str
    step: int
    model_id: str
    run_id: str


def log_model(estimator: Any, X: pd.DataFrame, name: str = "model", **options: Unpack[LogOptions]) -> ModelInfo:
    """Log a fitted classifier as an MLflow model that checks its features and explains its answers.

    Parameters
    ----------
    estimator : object
        A fitted classifier with scikit-learn's interface: `predict`, `classes_`, and `predict_proba` where it has
        probabilities. One of cuML's, or fitted under `cuml.accel`, is logged as its scikit-learn form, which needs no
        GPU, once that answers as the GPU does; one without such a form is logged as GPU-only, with
        ``serialization="cloudpickle"``.
    X : DataFrame of shape (n_rows, n_features + n_identifiers)
        Of pandas, or a table with `to_pandas`, such as Polars'. Training rows; a sample is enough, if it has missing
        values wherever a request may have them. At least one.
    name : str, default "model"
        Name of the logged model; ``runs:/<run_id>/<name>`` asks for it.
    identifiers : sequence of str, default ()
        Columns that requests may carry and that are never scored, such as ``bar_id``.
    confidence : mapping, default {"high": 0.8, "medium": 0.6}
        From which probability of the predicted class an answer is "high" or "medium".
    extra : {"ignore", "forbid"}, default "ignore"
        Whether a request may carry columns that are neither features nor identifiers.
    backend : str, default "auto"
        "auto", "cpu", "gpu" or a backend's name ("native", "forest", "trees", "program", "onnx", "treelite",
        "nvforest", "cuml"); the default for whoever loads the model.
    tolerance : float, default 1e-6
        How far, in probability, a compiled form may be from the estimator on any row that is compared; 0 keeps only
        forms that are equal to the last bit. A form that would flip a class is dropped whatever is allowed here.
    serialization : {"skops", "cloudpickle"}, default "skops"
        skops executes nothing when it is read, and holds what predicting needs: of a search its `best_estimator_`, of
        a tuned threshold the threshold, and no scorers, splitters or caches. cloudpickle takes any object as it is, and
        whoever loads it must trust it.
    classes : sequence of label, default the estimator's `classes_`
        Labels of `predict_proba`'s columns, where the estimator was trained on an encoding of them (0, 1, 2 standing
        for -1, 0, 1) or has no `classes_`.
    y : array-like of shape (n_rows,), optional
        Labels of X's rows. An estimator that agrees with them no more often than by chance, or clearly more often once
        two columns are exchanged, is refused: one that was fitted on an array knows no names, and the order of X's
        columns is all that says which is which.
    predictions : array-like of shape (n_rows,), optional
        What the estimator's own `predict` answered for X's rows, which is then compared; it says more than `y`.
    signature, input_example, metadata, pip_requirements, extra_pip_requirements, code_paths
        As in `mlflow.pyfunc.log_model`. Defaults: a signature and an example made from `X`, and the requirements that
        rebuild the environment, our own wheel among them.
    registered_model_name, await_registration_for, params, tags, model_type, step, model_id, run_id
        As in `mlflow.pyfunc.log_model`.

    Returns
    -------
    ModelInfo
        What `mlflow.pyfunc.log_model` returns.

    Raises
    ------
    NotLoggableError
        The estimator, the sample or an option cannot be served, and why.

    Examples
    --------
    >>> info = fin_pyfunc.log_model(forest, X_train, identifiers=["bar_id"])  # doctest: +SKIP
    >>> fin_pyfunc.load_model(info.model_uri).predict(X_test)  # doctest: +SKIP
    """
    import mlflow
    from mlflow.models import Model

    _refuse_unknown("log_model", options, LogOptions)
    if mlflow.active_run() is None and not options.get("run_id"):
        logger.warning("logging outside a run: the model has its models:/m-… URI, but lists of runs will not show it")
    with _packed(estimator, X, options) as arguments:
        mlflow_own = {key: value for key, value in options.items() if key not in ModelOptions.__annotations__}
        flavor = _QuietConfig(arguments.pop("model_config"))
        return Model.log(artifact_path=None, name=name, flavor=flavor, **arguments, **mlflow_own)


class _QuietConfig:
    """MLflow's pyfunc flavor, with a `model_config` that is no parameter of the run.

    MLflow logs what `log_model` is given as `model_config` as parameters of the run, where it collides with one of the
    user's; yet only a key that is in it can be overridden by the `model_config` of ``mlflow.pyfunc.load_model``.

    Parameters
    ----------
    model_config : dict
    """

    __name__ = "mlflow.pyfunc"

    def __init__(self, model_config: dict[str, Any]) -> None:
        self._model_config = model_config

    def save_model(self, path: str, mlflow_model: Any, **arguments: Any) -> None:
        """Save a model as MLflow's flavor does; `Model.log` calls this."""
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(path, mlflow_model=mlflow_model, model_config=self._model_config, **arguments)


def save_model(estimator: Any, X: pd.DataFrame, path: str | Path, **options: Unpack[ModelOptions]) -> None:
    """Save a fitted classifier as an MLflow model in a local folder.

    Parameters
    ----------
    estimator, X
        As in `log_model`.
    path : str or Path
        The folder to make; it must not hold anything yet.
    **options
        As in `log_model`, less those that are about a run or the registry.

    Raises
    ------
    NotLoggableError
        The estimator, the sample or an option cannot be served, and why.
    """
    import mlflow.pyfunc

    _refuse_unknown("save_model", options, ModelOptions)
    with _packed(estimator, X, options) as arguments:
        mlflow.pyfunc.save_model(path=str(path), **arguments)


@contextmanager
def _packed(estimator: Any, X: pd.DataFrame, options: ModelOptions) -> Iterator[dict[str, Any]]:
    """Write and verify the artifact in a folder of its own; yields what MLflow is to be given."""
    serialization = _one_of("serialization", options.get("serialization", "skops"), tuple(estimators.FILE_NAMES))
    backend = _one_of("backend", options.get("backend", "auto"), (*DEVICES, *BACKENDS))
    identifiers = options.get("identifiers") or ()
    code_paths = checked_code_paths(options.get("code_paths"))
    tolerance = checked_tolerance(options.get("tolerance", TOLERANCE))
    checked_estimator(estimator, options.get("classes"))
    if can_compile(estimator):
        compile_child.start()  # it imports the converters while the estimator is checked and written
    given, twin = estimator, _twin(estimator, backend, serialization)
    estimator = estimator if twin is None else twin.estimator
    gpu_only = twin is not None and twin.is_gpu_only
    classes = checked_classes(given, options.get("classes"))
    thresholds = checked_thresholds(options.get("confidence"))
    X = checked_sample(estimator, X, identifiers)
    if absent := [name for name in identifiers if name not in X]:
        logger.warning("identifiers %s are no columns of X: they are accepted in requests all the same", absent)
    try:
        spec = infer(X, identifiers, _one_of("extra", options.get("extra", "ignore"), ("ignore", "forbid")))
    except ValueError as e:
        raise NotLoggableError(f"{type(estimator).__name__} cannot be logged with this sample: {e}.") from e
    spec = with_known_values(spec, estimator)
    if encoded := [feature.name for feature in spec.features if feature.known is not None]:
        logger.warning(
            "requests with a value of %s that the estimator's encoder was not fitted on are refused (422): fit it with "
            "handle_unknown='ignore' if such values may come",
            ", ".join(map(repr, encoded)),
        )
    answers = Reference.of(estimator, X, spec, classes, "gpu" if gpu_only else "cpu")
    refuse_positions(given, answers.scores)
    check_column_order(answers, len(X), options.get("y"), options.get("predictions"))
    if serialization == "skops":
        estimator = without_training_parts(estimator)  # what is written is compared with the answers of the whole one
    if twin is not None and not gpu_only:
        checked_twin(given, answers)
    spec = within_float32(spec, answers)
    signature = checked_signature(options.get("signature"), X, spec, classes, answers.has_proba)
    with tempfile.TemporaryDirectory(prefix="fin_pyfunc-") as temporary:
        folder = Path(temporary, artifact.NAME)
        folder.mkdir()
        file = folder / estimators.FILE_NAMES[serialization]
        estimators.dump(estimator, file, serialization)
        modules = requirements.modules_of(file, serialization)
        requirements.refuse_local_modules(modules, code_paths)
        coded = with_codes(spec, estimator)
        with _compiling(estimator, file, serialization, X, coded, classes, tolerance, twin, backend) as compiled_forms:
            own_wheel = wheel.build(Path(temporary))
            example = answers.example(X)
            manifest = artifact.Manifest(
                format=artifact.FORMAT,
                created=datetime.now(UTC).isoformat(timespec="seconds"),
                estimator=qualified_name(type(estimator if twin is None else given)),
                serialization=serialization,
                files={file.name: artifact.digest(file)},
                code={path.name: artifact.digest(path) for path in (ENTRY, own_wheel)},
                features=spec,
                classes=classes,
                has_proba=answers.has_proba,
                thresholds=thresholds,
                backend=backend,
                example=example,
                libraries=requirements.library_versions(modules),
                tolerance=tolerance,
                ranges=ranges(X, spec),
                gpu_only=gpu_only,
            )
            artifact.write(folder, manifest)
            verify(folder, answers)  # while the forms are made
            compiled = compiled_forms()
        if not gpu_only:
            _refuse_missing(backend, compiled)
        modules |= {LIBRARIES[form.backend] for form in compiled.forms if form.backend in LIBRARIES}
        made = [name for form in compiled.forms for name in form.files]
        manifest = msgspec.structs.replace(
            manifest,
            files={name: artifact.digest(folder / name) for name in sorted({file.name, *made})},
            libraries=requirements.library_versions(modules),
            features=coded_for(compiled.forms, coded) or spec,
            forms=compiled.forms,
            dropped=compiled.dropped,
            seconds=compiled.native_seconds or answers.seconds_alone(),
        )
        if (unused := unused_line(manifest.features)) is not None:
            logger.warning("%s", unused)
        if not gpu_only and (why := why_native(manifest.forms, manifest.dropped)) is not None:
            logger.warning("%s", slow_line(why, manifest.seconds[1]))
        written = artifact.write(folder, manifest)
        verify(folder, answers, [form.backend for form in compiled.forms], tolerance)
        yield {
            "python_model": str(ENTRY),
            "artifacts": {artifact.NAME: str(folder)},
            "code_paths": [str(own_wheel), *code_paths],
            "signature": signature,
            "input_example": options.get("input_example", example_frame(example.features, signature)),
            "model_config": {"backend": backend},
            "metadata": {
                **(options.get("metadata") or {}),
                artifact.NAME: {"format": artifact.FORMAT, "manifest_sha256": written.sha256},
            },
            **requirements.pip_arguments(
                modules,
                options.get("pip_requirements"),
                options.get("extra_pip_requirements"),
            ),
        }


@contextmanager
def _compiling(
    estimator: Any,
    file: Path,
    serialization: estimators.Serialization,
    X: pd.DataFrame,
    spec: FeatureSpec,
    classes: Sequence[Label],
    tolerance: float,
    twin: Twin | None,
    backend: str,
) -> Iterator[Callable[[], Compiled]]:
    """Begin to compile what can be, into the file's folder; yields what waits for it."""
    backends = backends_of(estimator, spec, backend)
    reason = str(twin.refusal) if twin is not None and twin.is_gpu_only else why_not(estimator, spec)
    if reason is not None:
        yield lambda: Compiled(dropped=dict.fromkeys(backends, reason))
        return
    matrix = spec.encode(spec.check(X))
    if twin is None:
        with compile_child.Compilation(file, serialization, spec, classes, matrix, tolerance, backends) as compilation:
            yield compilation.result
        return

    def compiled_here() -> Compiled:  # a GPU's context does not survive a fork
        with single_threaded(estimator):
            return compile_estimator(
                estimator, spec, classes, file.parent, matrix, tolerance=tolerance, backends=backends,
                cuml=(twin.parts, file.name),
            )  # fmt: skip

    yield compiled_here


def _refuse_missing(backend: str, compiled: Compiled) -> None:
    """Refuse where a form was asked for by name and cannot be had."""
    for name, reason in compiled.dropped.items():
        logger.info("no %s form of the estimator: %s", name, reason)
    made = {form.backend for form in compiled.forms} | {"forest" for form in compiled.forms if is_forest(form)}
    sources = [backend] if backend in (*LIBRARIES, "trees", "forest") else []
    if backend not in ("auto", "cpu"):
        sources += [kind.form for kind in KINDS if asks_for(backend, kind.name, kind.device)]
    if sources and not made.intersection(sources):
        reasons = [compiled.dropped[source] for source in sources if source in compiled.dropped]
        raise NotLoggableError(
            f"backend={backend!r} cannot be had for this estimator: {'; '.join(dict.fromkeys(reasons)) or 'no form'}."
        )


def _twin(estimator: Any, backend: str, serialization: str) -> Twin | None:
    """What stands for an estimator of cuML's; one that has no form for the CPU is logged so only on purpose."""
    twin = twin_of(estimator)
    if twin is None:
        return None
    if not twin.is_gpu_only and backend == "gpu" and serialization == "cloudpickle":
        twin = Twin(estimator, refusal="it was logged as GPU-only")
    if twin.is_gpu_only:
        if serialization != "cloudpickle":
            raise NotLoggableError(
                f"{type(estimator).__name__} computes on a GPU only: {twin.refusal}; log it as GPU-only with "
                "serialization='cloudpickle', or log an estimator that has a form for the CPU."
            )
        logger.warning("%s is logged as GPU-only: %s", type(estimator).__name__, twin.refusal)
    return twin


def _one_of(option: str, value: Any, allowed: Sequence[Any]) -> Any:
    if value not in allowed:
        raise NotLoggableError(f"{option}={value!r} is not known; expected one of {', '.join(map(repr, allowed))}.")
    return value


def _refuse_unknown(function: str, options: Mapping[str, Any], known: type) -> None:
    unknown = sorted(options.keys() - known.__annotations__.keys() - ModelOptions.__annotations__.keys())
    if unknown:
        raise TypeError(
            f"{function}() got an unexpected keyword argument {unknown[0]!r}; it takes "
            f"{', '.join(sorted({*ModelOptions.__annotations__, *known.__annotations__}))}."
        )
