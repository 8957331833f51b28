"""The features of a foreign model: from its MLflow signature, from what the estimator knows of them, or from both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from msgspec.structs import replace

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.feature import Feature, Kind
from fin_pyfunc.model.features import FeatureSpec, rewritten

#: MLflow's column types -> what a client may send, and the dtype the estimator gets.
_COLUMN_TYPES: dict[str, tuple[Kind, str]] = {
    "double": ("number", "float64"), "float": ("number", "float32"), "long": ("integer", "int64"),
    "integer": ("integer", "int32"), "boolean": ("boolean", "bool"), "string": ("string", "object"),
    "datetime": ("datetime", "datetime64[ns]"),
}  # fmt: skip
#: Most features without names, and how deep estimators may be in one another.
MAX_FEATURES, MAX_DEPTH = 100_000, 50
#: What holds a column of these where some are null.
_WITH_NULLS = {"int64": "Int64", "int32": "Int32", "bool": "boolean"}
#: Letters of NumPy's dtypes -> what a client may send.
_TENSOR_KINDS: dict[str, Kind] = {"f": "number", "i": "integer", "u": "integer", "b": "boolean"}
#: Attributes that hold the fitted estimators of one that hands each of them its own rows.
_INNER = ("best_estimator_", "estimator_", "estimators_", "calibrated_classifiers_", "estimator")


def features_of_signature(schema: Any) -> FeatureSpec | None:
    """The features that an MLflow schema names, or numbers; None where it says nothing of them.

    A signature does not say where nulls are allowed, so that is left to the model.
    """
    if schema is None:
        return None
    if schema.is_tensor_spec():
        return _features_of_tensor(schema)
    if not schema.has_input_names():
        return None
    features = []
    for column in schema.inputs:
        kind, dtype = _COLUMN_TYPES.get(getattr(column.type, "name", ""), ("any", "object"))
        optional = not column.required
        if optional:
            dtype = _WITH_NULLS.get(dtype, dtype)
        nullable = optional or kind in ("number", "string", "datetime", "any")
        number = column.name if isinstance(column.name, int) else None  # as of pd.DataFrame(ndarray)
        features.append(
            Feature(
                name=str(column.name), kind=kind, dtype=dtype, nullable=nullable, optional=optional, number=number
            )
        )  # fmt: skip
    in_order = [feature.number for feature in features] == list(range(len(features)))
    return FeatureSpec(features=features, naming="positions" if in_order else "exact")


def numbered_as(schema: Any, data: Any) -> Any:
    """A DataFrame whose columns are text, with the numbers that a schema names them by; anything else as it is."""
    if schema is None or not hasattr(data, "set_axis") or not schema.has_input_names():
        return data
    numbers = {str(name): name for name in schema.input_names() if isinstance(name, int)}
    if not numbers or not all(isinstance(name, str) for name in data.columns):
        return data
    return data.set_axis([numbers.get(name, name) for name in data.columns], axis=1)


def features_of_names(names: Iterable[Any]) -> FeatureSpec:
    """Features of which only the names are known; a number is sent on as a float64.

    Raises
    ------
    ArtifactError
        A name is there twice.
    """
    try:
        return FeatureSpec(features=[Feature(name=str(name), kind="any", dtype="float64") for name in names])
    except ValueError as e:
        raise ArtifactError(f"The model cannot be asked by the names of its features: {e}.") from e


def features_by_position(n_features: int, kind: Kind = "any", dtype: str = "float64") -> FeatureSpec:
    """Features without names.

    Raises
    ------
    ArtifactError
        There are more than any model has.
    """
    if n_features > MAX_FEATURES:
        raise ArtifactError(f"The model says that it takes {n_features} features; at most {MAX_FEATURES} are served.")
    features = [
        Feature(name=str(i), kind=kind, dtype=dtype, nullable=kind == "number") for i in range(n_features)
    ]  # fmt: skip
    return FeatureSpec(features=features, naming="positions")


def features_of_estimator(estimator: Any) -> FeatureSpec | None:
    """What an estimator knows of its features: their names, else how many there are, else nothing."""
    if (names := names_of(estimator)) is not None:
        return features_of_names(names)
    width = getattr(estimator, "n_features_in_", None)
    return features_by_position(int(width)) if isinstance(width, int | np.integer) and width > 0 else None


def names_of(estimator: Any) -> list[Any] | None:
    """`feature_names_in_` of an estimator, or of the part of it that sees the rows as they come."""
    for _ in range(MAX_DEPTH):
        names = getattr(estimator, "feature_names_in_", None)
        if names is not None:
            return list(names)
        steps = getattr(estimator, "steps", None)
        if isinstance(steps, list):  # what a later step knows are names of what an earlier one made
            steps = [step for _, step in steps if step is not None and not isinstance(step, str)]
        else:
            held = getattr(estimator, "__dict__", {})
            steps = next((held[name] for name in _INNER if held.get(name) is not None), None)
        if isinstance(steps, list | tuple | np.ndarray):
            steps = steps[0] if len(steps) else None
        if steps is None or isinstance(steps, type | str):
            break
        estimator = steps
    return None


def combined(own: FeatureSpec | None, signed: FeatureSpec | None) -> FeatureSpec | None:
    """What the estimator and the signature say together: order and categories of the former, types of the latter.

    Parameters
    ----------
    own, signed : FeatureSpec or None
        What the estimator knows of its features, and what the signature says of them.
    """
    if own is None or signed is None:
        return own or signed
    if own.naming == "positions":
        return signed if signed.naming != "positions" or len(signed.names) == len(own.names) else own
    if signed.naming == "positions":
        return own
    by_name = {rewritten(feature.name): feature for feature in signed.features}
    if by_name.keys() != {rewritten(name) for name in own.names} or len(by_name) < len(signed.names):
        return signed  # the estimator will say what it misses
    features = [_combined(feature, by_name[rewritten(feature.name)]) for feature in own.features]
    return FeatureSpec(features=features, naming=own.naming)


def _combined(own: Feature, signed: Feature) -> Feature:
    if own.kind == "category":
        return replace(own, name=signed.name, optional=signed.optional)
    return signed


def _features_of_tensor(schema: Any) -> FeatureSpec | None:
    if len(schema.inputs) != 1 or schema.has_input_names():
        return None
    shape, dtype = schema.inputs[0].shape, np.dtype(schema.inputs[0].type)
    if len(shape) != 2 or shape[1] < 1:
        return None
    kind = _TENSOR_KINDS.get(dtype.kind, "any")
    return features_by_position(shape[1], kind, dtype.name if kind != "any" else "object")
