"""From a resolved model to one in memory. Ours, an `mlflow.sklearn` model, another pyfunc or a bare estimator file: \
afterwards they are all alike.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from fin_pyfunc.model.artifact import NAME
from fin_pyfunc.model.backends.native import NativeBackend, labels_of
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError, FinPyfuncError
from fin_pyfunc.model.feature import Feature, Kind
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.wrapper import FinPyfuncModel
from fin_pyfunc.serving.resolver import Resolved, Resolver

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


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory.

    Parameters
    ----------
    resolved : Resolved
        What was asked for and what it turned out to be.
    model : FinPyfuncModel
        What answers.
    pyfunc : PyFuncModel or None
        The same as MLflow loaded it; None for a bare file, which MLflow does not know.
    loaded_at : float
        Seconds since the epoch.
    """

    resolved: Resolved
    model: FinPyfuncModel
    pyfunc: PyFuncModel | None
    loaded_at: float = field(default_factory=time.time)


def load(resolver: Resolver, resolved: Resolved, backend: str | None = None) -> LoadedModel:
    """Fetch and open a model.

    Parameters
    ----------
    resolver : Resolver
        Fetches it.
    resolved : Resolved
    backend : str, optional
        The operator's choice; default the model's own.

    Raises
    ------
    ArtifactError, BackendError, StoreUnavailableError
    """
    path = resolver.fetch(resolved)
    if resolved.kind == "mlflow":
        pyfunc = _load_pyfunc(path, backend)
        return LoadedModel(resolved, _from_pyfunc(pyfunc, backend), pyfunc)
    return LoadedModel(resolved, _from_file(path, resolved.kind, backend), None)


def warm_up(loaded: LoadedModel) -> None:
    """Score the model's own example, if it has one, so that the first caller does not pay for what is lazy in it."""
    manifest = loaded.model.manifest
    if manifest is not None:
        loaded.model.decide([manifest.example.features])


def _load_pyfunc(path: Path, backend: str | None) -> PyFuncModel:
    import mlflow.pyfunc
    from mlflow.models import Model

    try:
        ours = NAME in (Model.load(str(path)).metadata or {})
        config = {"backend": backend} if ours and backend else None
        return mlflow.pyfunc.load_model(str(path), model_config=config)
    except FinPyfuncError:
        raise
    except ModuleNotFoundError as e:
        raise ArtifactError.missing_package(e) from e
    except Exception as e:
        raise ArtifactError(
            f"MLflow could not load the model ({type(e).__name__}): its files are damaged, or it needs other versions "
            "of its libraries than are installed here."
        ) from e


def _from_pyfunc(pyfunc: PyFuncModel, backend: str | None) -> FinPyfuncModel:
    flavors = pyfunc.metadata.flavors
    raw: Any = None
    if pyfunc.loader_module == "mlflow.pyfunc.loaders.code_model":
        raw = pyfunc.unwrap_python_model()
        if isinstance(raw, FinPyfuncModel):
            return raw
    signed = features_of_signature(pyfunc.metadata.get_input_schema())
    if any(flavor in flavors for flavor in _ESTIMATOR_FLAVORS):
        raw = pyfunc.get_raw_model()
        if labels_of(raw) and callable(getattr(raw, "predict", None)):
            return from_estimator(raw, signed, backend)
    from fin_pyfunc.model.backends.pyfunc import PyfuncBackend

    return FinPyfuncModel.of(signed, Dispatch([PyfuncBackend(pyfunc, signed)], backend or "auto"))


def _from_file(path: Path, kind: str, backend: str | None) -> FinPyfuncModel:
    if kind == "onnx":
        from fin_pyfunc.model.backends.onnx import OnnxBackend

        onnx = OnnxBackend(path)
        return FinPyfuncModel.of(onnx.features, Dispatch([onnx], backend or "auto"))
    from fin_pyfunc.model import estimators

    return from_estimator(estimators.load_file(path, cast("estimators.FileKind", kind)), None, backend)


def from_estimator(estimator: Any, signed: FeatureSpec | None, backend: str | None) -> FinPyfuncModel:
    """A bare estimator, checked against its signature, else its `feature_names_in_`, else not at all."""
    if not callable(getattr(estimator, "predict", None)) or not labels_of(estimator):
        raise ArtifactError("The model is not a fitted classifier: it needs predict(X) and classes_.")
    names = getattr(estimator, "feature_names_in_", None)
    spec = signed
    if spec is None and names is not None:
        spec = FeatureSpec(features=[Feature(name=str(name), kind="any", dtype="object") for name in names])
    return FinPyfuncModel.of(spec, Dispatch([NativeBackend(estimator, spec)], backend or "auto"))


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
