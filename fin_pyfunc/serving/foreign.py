"""Classifiers that were not logged by this project: what is known of their features, and how they are asked."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.model.backends.native import NativeBackend, labels_of
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.feature import Feature, Kind
from fin_pyfunc.model.features import FeatureSpec

#: MLflow's column types -> what a client may send, and the dtype the estimator gets.
_COLUMN_TYPES: dict[str, tuple[Kind, str]] = {
    "double": ("number", "float64"), "float": ("number", "float32"), "long": ("integer", "int64"),
    "integer": ("integer", "int32"), "boolean": ("boolean", "bool"), "string": ("string", "object"),
}  # fmt: skip
#: What holds a column of these where some are null.
_WITH_NULLS = {"int64": "Int64", "int32": "Int32", "bool": "boolean"}


def is_classifier(estimator: Any) -> bool:
    """Whether an estimator is a fitted classifier."""
    return bool(labels_of(estimator)) and callable(getattr(estimator, "predict", None))


def from_estimator(estimator: Any, signed: FeatureSpec | None, backend: str | None) -> Classifier:
    """A bare estimator, checked against its signature, else its `feature_names_in_`, else not at all."""
    if not is_classifier(estimator):
        raise ArtifactError("The model is not a fitted classifier: it needs predict(X) and classes_.")
    spec = signed or features_of_names(getattr(estimator, "feature_names_in_", None))
    return Classifier.of(spec, Dispatch([NativeBackend(estimator, spec)], backend or "auto"))


def features_of_names(names: Any) -> FeatureSpec | None:
    """An estimator's `feature_names_in_` as a FeatureSpec that takes any value."""
    if names is None:
        return None
    try:
        return FeatureSpec(features=[Feature(name=str(name), kind="any", dtype="object") for name in names])
    except ValueError as e:
        raise ArtifactError(f"The model cannot be asked by the names of its features: {e}.") from e


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
