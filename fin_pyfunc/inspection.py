"""What is known of a model without running any code of it: what ``fin-pyfunc inspect`` shows."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any, Literal

import msgspec

from fin_pyfunc.authoring.requirements import installed_version
from fin_pyfunc.compiling.advice import why_native
from fin_pyfunc.model import artifact, requirements_file
from fin_pyfunc.model.artifact import FileDigest, Manifest
from fin_pyfunc.model.backends.native import LazyNative, NativeBackend, labels_of
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Label, Thresholds
from fin_pyfunc.model.device import probe
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError, BackendError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.foreign.features import features_of_signature
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.plan import Plan, Step
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolved, Resolver

_PICKLE = "its estimator is a pickle, which runs code when it is read, and looking at a model runs none"
_FOREIGN = "the model was not logged by fin_pyfunc, and is not loaded to be looked at"


class Backend(msgspec.Struct, frozen=True, kw_only=True):
    """What computes the model on this machine.

    Parameters
    ----------
    default : str or None
        What is asked for: chosen when logging, if nobody nearer has.
    available : list of str
        Backends that can compute the model here.
    chosen : str or None
        The one that a row would go to.
    reason : str or None
        Why none is chosen.
    gpu : str
        Its name, or why there is none.
    forms : list of Form
        Compiled forms, the one to prefer first.
    dropped : dict of str to str
        By backend, why there is no such form.
    seconds : float or None
        What the estimator itself took for a row when the model was logged.
    advice : str or None
        Of a model without a compiled form: which step keeps it so, and what to use instead.
    tolerance : float or None
        How far, in probability, a form was allowed to be from the estimator.
    plan : list of Step or None
        Which backend computes how many rows here; None unless it was asked to be measured.
    times : dict of str to dict of int to float, or None
        By backend, the seconds by rows that the plan was made of.
    """

    default: str | None
    available: list[str]
    chosen: str | None
    reason: str | None
    gpu: str
    forms: list[Form] = []
    dropped: dict[str, str] = {}
    seconds: float | None = None
    advice: str | None = None
    tolerance: float | None = None
    plan: list[Step] | None = None
    times: dict[str, dict[int, float]] | None = None


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One file; `checked` says whether its digest was recorded when the model was logged, and still holds."""

    name: str
    sha256: str
    size: int
    checked: bool


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A library by its version when the model was logged, and its version here."""

    name: str
    logged: str
    installed: str | None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a model; None is what is not.

    Parameters
    ----------
    model_uri : str
        What was asked for.
    model_id : str
        The immutable thing that it means now.
    run_id : str or None
    source : {"fin_pyfunc", "mlflow", "file"}
        Who wrote it.
    estimator : str or None
        Qualified name of its class, or MLflow's flavors.
    created : str or None
        ISO 8601, UTC.
    format : int or None
        Of our artifact.
    serialization : str or None
    features : list of Feature or None
    identifiers : list of str
    extra : {"ignore", "forbid"} or None
        What becomes of a column that is neither feature nor identifier.
    classes : list of Label or None
    has_proba : bool or None
    thresholds : Thresholds or None
    backend : Backend
    files : list of File
    libraries : list of Library
    """

    model_uri: str
    model_id: str
    run_id: str | None
    source: Literal["fin_pyfunc", "mlflow", "file"]
    estimator: str | None
    created: str | None
    format: int | None = None
    serialization: str | None = None
    features: list[Feature] | None
    identifiers: list[str] = []
    extra: str | None = None
    classes: list[Label] | None = None
    has_proba: bool | None = None
    thresholds: Thresholds | None = None
    backend: Backend
    files: list[File]
    libraries: list[Library]


def inspect(uri: str, tracking_uri: str | None = None, *, measure: bool = False, backend: str | None = None) -> Report:
    """Look at a model without running any code of it.

    Parameters
    ----------
    uri : str
        Whatever MLflow takes, and local paths.
    tracking_uri : str, optional
        Default: MLflow's own.
    measure : bool, default False
        Load the estimator too, and time every backend on this machine.
    backend : str, optional
        "auto", "cpu", "gpu" or a backend's name, as whoever serves the model would ask for it; default the model's own.

    Raises
    ------
    ArtifactError
        A file is missing or damaged.
    ModelNotFoundError, StoreUnavailableError
    """
    resolver = Resolver(tracking_uri)
    try:
        resolved = resolver.resolve_argument(uri)
        path = resolver.fetch(resolved).path
        if resolved.kind != "mlflow":
            return _bare_file(resolver, resolved, path)
        from mlflow.models import Model

        try:
            mlmodel = Model.load(str(path))
        except Exception as e:  # YAML that is none, or lacks a key
            raise ArtifactError("The model's MLmodel file is damaged: fetch or log the model again.") from e
        return (
            _ours(resolved, path, measure, backend)
            if artifact.NAME in (mlmodel.metadata or {})
            else _foreign(resolved, path, mlmodel)
        )
    finally:
        resolver.close()


def _ours(resolved: Resolved, path: Path, measure: bool, wanted: str | None) -> Report:
    folder = path / "artifacts" / artifact.NAME
    manifest = artifact.read(folder)
    code = [_checked_code(path, name, digest) for name, digest in manifest.code.items()]
    own = [_file(f"artifacts/{artifact.NAME}/{name}", digest, checked=True) for name, digest in manifest.files.items()]
    spec = manifest.features
    return Report(
        model_uri=resolved.uri,
        model_id=resolved.model_id,
        run_id=resolved.run_id,
        source="fin_pyfunc",
        estimator=manifest.estimator,
        created=manifest.created,
        format=manifest.format,
        serialization=manifest.serialization,
        features=spec.features,
        identifiers=spec.identifiers,
        extra=spec.extra,
        classes=manifest.classes,
        has_proba=manifest.has_proba,
        thresholds=manifest.thresholds,
        backend=_own_backend(folder, manifest, measure, wanted),
        files=[*own, *code],
        libraries=_libraries(manifest.libraries),
    )


def _own_backend(folder: Path, manifest: Manifest, measure: bool, wanted: str | None) -> Backend:
    if manifest.serialization != "skops":
        return _with_forms(_backend(None, manifest.backend, _PICKLE), manifest)
    model = Classifier()
    try:
        model.open(folder, wanted)
    except BackendError as e:
        return _with_forms(_backend(None, manifest.backend, str(e)), manifest)
    plan = None
    if measure:
        for backend in model.dispatch.backends:
            if isinstance(backend, LazyNative):
                backend.load()
        plan = model.measure()
    return _with_forms(_backend(model.dispatch, model.dispatch.wanted), manifest, plan)


def _with_forms(backend: Backend, manifest: Manifest, plan: Plan | None = None) -> Backend:
    return msgspec.structs.replace(
        backend,
        forms=manifest.forms,
        dropped=manifest.dropped,
        seconds=manifest.seconds.get(1),
        advice=None if manifest.gpu_only else why_native(manifest.forms, manifest.dropped),
        tolerance=manifest.tolerance,
        plan=plan.steps if plan else None,
        times=plan.times if plan else None,
    )


def _foreign(resolved: Resolved, path: Path, mlmodel: Any) -> Report:
    spec: FeatureSpec | None = features_of_signature(mlmodel.get_input_schema())
    created = str(mlmodel.utc_time_created or "").replace(" ", "T")
    return Report(
        model_uri=resolved.uri,
        model_id=resolved.model_id,
        run_id=resolved.run_id or mlmodel.run_id,
        source="mlflow",
        estimator=" and ".join(sorted(mlmodel.flavors)) or None,
        created=created or None,
        features=None if spec is None else spec.features,
        extra=None if spec is None else spec.extra,
        backend=_backend(None, None, _FOREIGN),
        files=[_file(file.relative_to(path).as_posix(), artifact.digest(file)) for file in _files(path)],
        libraries=_libraries(_pinned(path / requirements_file.FILE)),
    )


def _bare_file(resolved_by: Resolver, resolved: Resolved, path: Path) -> Report:
    features = classes = dispatch = estimator = None
    if resolved.kind in ("skops", "onnx"):  # reading these runs nothing
        model = load(resolved_by, resolved).model
        dispatch, features = model.dispatch, None if model.features is None else model.features.features
        if isinstance(native := dispatch.backends[0], NativeBackend):
            classes, of = labels_of(native.estimator), type(native.estimator)
            estimator = f"{of.__module__}.{of.__qualname__}"
    return Report(
        model_uri=resolved.uri,
        model_id=resolved.model_id,
        run_id=None,
        source="file",
        estimator=estimator,
        created=None,
        serialization=resolved.kind,
        features=features,
        classes=classes,
        backend=_backend(dispatch, None, None if dispatch else _PICKLE),
        files=[_file(path.name, artifact.digest(path))],
        libraries=[],
    )


def _backend(dispatch: Dispatch | None, default: str | None, reason: str | None = None) -> Backend:
    device = probe()
    return Backend(
        default=default,
        available=[] if dispatch is None else [f"{backend.name} ({backend.device})" for backend in dispatch.backends],
        chosen=None if dispatch is None else dispatch.choose(1).name,
        reason=reason,
        gpu=device.name or str(device.refusal),
    )


def _checked_code(path: Path, name: str, expected: FileDigest) -> File:
    """A file of the manifest's that MLflow keeps outside our folder."""
    found = next((file for file in _files(path) if file.name == name), None)
    if found is None:
        raise ArtifactError(f"The model's file {name!r} is missing: fetch or log the model again.")
    if artifact.digest(found) != expected:
        raise ArtifactError(
            f"The model's file {name!r} is damaged: its SHA-256 digest differs from the one recorded when it was "
            "logged; fetch it again from the store, or log the model again."
        )
    return _file(found.relative_to(path).as_posix(), expected, checked=True)


def _files(path: Path) -> Iterable[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)


def _file(name: str, digest: FileDigest, checked: bool = False) -> File:
    return File(name=name, sha256=digest.sha256, size=digest.size, checked=checked)


def _pinned(file: Path) -> dict[str, str]:
    try:
        requirements = requirements_file.parse_plain(artifact.read_bounded(file))
    except (OSError, ArtifactError):
        return {}
    return {each.name: each.version for each in requirements if each.version is not None}


def _libraries(logged: Mapping[str, str]) -> list[Library]:
    return [Library(name=name, logged=was, installed=_installed(name)) for name, was in logged.items()]


def _installed(name: str) -> str | None:
    if name == "python":
        return platform.python_version()
    try:
        return installed_version(name)
    except (PackageNotFoundError, ValueError):
        return None
