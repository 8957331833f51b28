"""The feature that a column of training data is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.feature import MAX_EXACT_INTEGER, Feature


def infer_feature(name: str, column: pd.Series[Any]) -> Feature:
    types, dtype = pd.api.types, column.dtype
    null = bool(column.isna().any())
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories.tolist()
        if not all(isinstance(c, str | int | float | bool) for c in categories):
            raise ValueError(f"column {name!r} has categories that JSON cannot carry: use text or numbers")
        return Feature(
            name=name,
            kind="category",
            dtype="category",
            nullable=null,
            categories=categories,
            ordered=bool(dtype.ordered),
        )
    if types.is_bool_dtype(dtype):
        return Feature(name=name, kind="boolean", dtype=str(dtype), nullable=null)
    if types.is_integer_dtype(dtype):
        known = column.dropna()
        if ((known > MAX_EXACT_INTEGER) | (known < -MAX_EXACT_INTEGER)).any():
            raise ValueError(
                f"column {name!r} holds integers beyond ±2**53, which no estimator sees exactly: "
                "declare it under identifiers, or train on it as text"
            )
        return Feature(name=name, kind="integer", dtype=str(dtype), nullable=null)
    if types.is_float_dtype(dtype):
        if np.isinf(column.to_numpy(dtype=np.float64, na_value=np.nan)).any():
            raise ValueError(f"column {name!r} holds infinite values, which no request can carry: clip or drop them")
        return Feature(name=name, kind="number", dtype=str(dtype), nullable=null)
    if types.is_datetime64_any_dtype(dtype):
        return Feature(name=name, kind="datetime", dtype=str(dtype), nullable=null)
    if types.infer_dtype(column, skipna=True) == "string":
        none_is_null = any(value is None for value in column[column.isna()].tolist())
        return Feature(name=name, kind="string", dtype=str(dtype), nullable=null, none_is_null=none_is_null)
    raise ValueError(
        f"column {name!r} has dtype {dtype} ({types.infer_dtype(column, skipna=True)}): features are numbers, "
        "integers, booleans, text, categories or dates and times; convert it, or declare it under identifiers"
    )
