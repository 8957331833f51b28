"""Values of features outside of which an encoder within an estimator raises."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
import numpy as np

from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec

_ENCODERS = frozenset(
    {"sklearn.preprocessing._encoders.OneHotEncoder", "sklearn.preprocessing._encoders.OrdinalEncoder"}
)
_IMPUTER = "sklearn.impute._base.SimpleImputer"
_COLUMN_TRANSFORMER = "sklearn.compose._column_transformer.ColumnTransformer"
#: Attributes that hold the fitted estimators of one that hands each of them its own rows.
_INNER = ("best_estimator_", "estimator_", "estimators_", "calibrated_classifiers_", "estimator")

#: Names of the features that a step's columns are, None for a column that is computed from features.
Columns = Sequence[str | None]
Known = dict[str, set[Any]]


def with_known_values(spec: FeatureSpec, estimator: Any) -> FeatureSpec:
    """The features, with the values that the estimator's encoders know where they raise for any other.

    Parameters
    ----------
    spec : FeatureSpec
        In training order.
    estimator : object
        Fitted. Only encoders of scikit-learn are found, at the start of it or after an imputer.
    """
    known: Known = {}
    try:
        _look(estimator, spec.names, known)
    except Exception:  # a stranger's estimator may hold anything, itself too
        return spec
    if not known:
        return spec
    return msgspec.structs.replace(
        spec, features=[_limited(feature, known.get(feature.name)) for feature in spec.features]
    )


def _limited(feature: Feature, values: set[Any] | None) -> Feature:
    if values is None or (feature.kind == "number" and feature.dtype != "float64"):  # compared after it is rounded
        return feature
    if feature.kind == "datetime" or not all(isinstance(value, str | int | float | bool) for value in values):
        return feature
    return msgspec.structs.replace(feature, known=sorted(values, key=lambda value: (type(value).__name__, value)))


def _look(step: Any, columns: Columns, known: Known) -> Columns | None:
    """Add what is known of a step's columns; returns what its own columns are, None where that is not known."""
    kind = type_name(step)
    if step is None or step == "passthrough":
        return columns
    if kind in _ENCODERS:
        if step.handle_unknown == "error" and len(step.categories_) == len(columns):
            for name, categories in zip(columns, step.categories_, strict=True):
                if name is not None:
                    _add(known, name, np.asarray(categories).tolist())
        return None
    if kind == _IMPUTER:
        return columns if _keeps_columns(step) else None
    if kind == _COLUMN_TRANSFORMER:
        indices = getattr(step, "_transformer_to_input_indices", {})
        for name, transformer, _ in step.transformers_:
            if transformer != "drop" and (chosen := indices.get(name)) is not None:
                _look(transformer, [columns[i] for i in chosen], known)
        return None
    if isinstance(steps := getattr(step, "steps", None), list):
        found: Columns | None = columns
        for _, inner in steps:
            if found is None:
                break
            found = _look(inner, found, known)
        return None
    if isinstance(parts := getattr(step, "transformer_list", None), list):
        for _, inner in parts:
            _look(inner, columns, known)
        return None
    inner = next((held for name in _INNER if (held := vars(step).get(name)) is not None), None)
    for part in inner if isinstance(inner, list | tuple) else [inner]:
        if hasattr(part, "__dict__"):
            _look(part, columns, known)
    return None


def _keeps_columns(imputer: Any) -> bool:
    """Whether each column stays where it is, and only nulls are replaced in it."""
    missing = imputer.missing_values
    is_null = missing is None or missing != missing
    whole = imputer.keep_empty_features or all(value is not None and value == value for value in imputer.statistics_)
    return bool(is_null and whole and not imputer.add_indicator)


def _add(known: Known, name: str, values: Iterable[Any]) -> None:
    found = {value for value in values if value is not None and value == value}
    known[name] = known[name] & found if name in known else found
