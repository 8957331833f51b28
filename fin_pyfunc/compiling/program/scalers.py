"""Steps that move and stretch each column by itself, or each row (sklearn/preprocessing/_data.py)."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.program.arithmetic import Scale
from fin_pyfunc.model.program.numbers import Clip, Normalize


def standard_scaler(builder: Builder, step: Any, value: Value) -> Value:
    """Add a StandardScaler: first the mean, then the scale."""
    if value.is_sparse:
        return _sparse_scale(builder, step.scale_, value)
    if step.with_mean:
        value = builder.add(Scale(how="subtract", by=numbers(step.mean_)), value)
    if step.with_std:
        value = builder.add(Scale(how="divide", by=numbers(step.scale_)), value)
    return value


def min_max_scaler(builder: Builder, step: Any, value: Value) -> Value:
    """Add a MinMaxScaler."""
    value = builder.add(Scale(how="multiply", by=numbers(step.scale_)), value)
    value = builder.add(Scale(how="add", by=numbers(step.min_)), value)
    if step.clip:
        least, greatest = map(float, step.feature_range)
        value = builder.add(Clip(least=least, greatest=greatest), value)
    return value


def max_abs_scaler(builder: Builder, step: Any, value: Value) -> Value:
    """Add a MaxAbsScaler."""
    if value.is_sparse:
        value = _sparse_scale(builder, step.scale_, value)
    else:
        value = builder.add(Scale(how="divide", by=numbers(step.scale_)), value)
    if getattr(step, "clip", False):  # since scikit-learn 1.8
        value = builder.add(Clip(least=-1.0, greatest=1.0), value)
    return value


def robust_scaler(builder: Builder, step: Any, value: Value) -> Value:
    """Add a RobustScaler."""
    if value.is_sparse:
        return _sparse_scale(builder, step.scale_ if step.with_scaling else None, value)
    if step.with_centering:
        value = builder.add(Scale(how="subtract", by=numbers(step.center_)), value)
    if step.with_scaling:
        value = builder.add(Scale(how="divide", by=numbers(step.scale_)), value)
    return value


def normalizer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a Normalizer."""
    return builder.add(Normalize(norm=step.norm, is_sparse=value.is_sparse), value)


def numbers(of: Any) -> Array:
    """An estimator's own numbers, as a file holds them."""
    return np.ascontiguousarray(of, dtype=np.float64)


def weighted(builder: Builder, value: Value, weight: Any) -> Value:
    """A value times a number (FeatureUnion, ColumnTransformer)."""
    if any(column.dtype != "float64" for column in value.columns) and type(weight) is not float:
        raise NotCompilable(f"a weight of it ({type(weight).__name__}) is multiplied with whole numbers")
    return builder.add(Scale(how="multiply", by=np.full(value.width, float(weight))), value)


def _sparse_scale(builder: Builder, scale: Any, value: Value) -> Value:
    # `inplace_column_scale` of sklearn/utils/sparsefuncs.py multiplies by what the scale divides 1 to
    if scale is None:
        return value
    return builder.add(Scale(how="multiply", by=1.0 / numbers(scale)), value)
