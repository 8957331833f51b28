"""Imputers: numbers are filled in; what a code stands for is said anew, without an operation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import NUMBER, Builder, Column, Value
from fin_pyfunc.model.program.arithmetic import Fill, IsMissing
from fin_pyfunc.model.program.categories import Lookup


def simple_imputer(builder: Builder, step: Any, value: Value) -> Value:
    """Add a SimpleImputer (sklearn/impute/_base.py)."""
    fills = step.statistics_.tolist()
    indicator = getattr(step, "indicator_", None)
    flagged = [] if indicator is None else indicator.features_.tolist()
    if len(fills) != value.width:
        raise NotCompilable("was fitted on another number of columns than it is given")
    kept = list(range(value.width))
    if not step.keep_empty_features:
        kept = [i for i in kept if not _is_nan(fills[i])]
    if not kept and not flagged:
        raise NotCompilable("makes no columns")
    _refuse_nulls(builder, step, value)
    parts = []
    if kept:
        dtype = getattr(step, "_fill_dtype", np.dtype(np.float64))
        parts.append(_filled(builder, builder.select(value, kept), [fills[i] for i in kept], step, dtype))
    if flagged:
        parts.append(_missing(builder, step, builder.select(value, flagged)))
    return builder.concat(parts, is_sparse=value.is_sparse)


def missing_indicator(builder: Builder, step: Any, value: Value) -> Value:
    """Add a MissingIndicator (sklearn/impute/_base.py)."""
    _refuse_nulls(builder, step, value)
    flagged = step.features_.tolist()
    if step.features == "missing-only" and step.error_on_new:
        others = [i for i, column in enumerate(value.columns) if i not in flagged and _can_miss(step, column)]
        if others:
            found = _missing(builder, step, builder.select(value, others))
            builder.require(found, takes_missing=False, greatest=0.0)
    if not flagged:
        raise NotCompilable("makes no columns")
    made = _missing(builder, step, builder.select(value, flagged))
    return made._replace(is_sparse=step.sparse is True or (step.sparse == "auto" and value.is_sparse))


def _filled(builder: Builder, value: Value, fills: Sequence[Any], step: Any, dtype: Any) -> Value:
    columns, numbers, any_filled = [], np.zeros(value.width), False
    for i, (column, fill) in enumerate(zip(value.columns, fills, strict=True)):
        if column.values is not None:
            columns.append(_renamed(column, fill, step.missing_values))
            continue
        if not _can_miss(step, column):
            columns.append(column)
            continue
        if not isinstance(fill, Real):
            raise NotCompilable("fills numbers with something else")
        numbers[i], any_filled = float(np.asarray(fill).astype(dtype)), True
        if value.is_sparse and numbers[i] == 0:
            raise NotCompilable("stores zeros in a sparse matrix")
        possible = None if column.possible is None else column.possible | {numbers[i]}
        columns.append(Column(possible=possible, nullable=False, dtype=column.dtype))
    if not any_filled:
        return value._replace(columns=tuple(columns))
    made = [i for i, column in enumerate(value.columns) if column.values is None]
    node = Fill(values=numbers[made], missing=_number(step.missing_values))
    filled = builder.replace(value, made, builder.add(node, builder.select(value, made)))
    return filled._replace(columns=tuple(columns))


def _renamed(column: Column, fill: Any, missing: Any) -> Column:
    """A column of codes, some of which stand for what was filled in."""
    _check_known(column, missing)
    values = tuple(fill if _matches(of, missing) else of for of in column.values or ())
    return column._replace(values=values, null=fill if _matches(column.null, missing) else column.null, name=None)


def _missing(builder: Builder, step: Any, value: Value) -> Value:
    """1 where a column is missing, else 0."""
    missing = step.missing_values
    made = NUMBER._replace(possible=frozenset({0.0, 1.0}), nullable=False, dtype="bool")
    coded = [column.values is not None for column in value.columns]
    if not any(coded):
        return builder.add(IsMissing(missing=_number(missing)), value, columns=[made] * value.width)
    if not all(coded):
        of_numbers = _missing(builder, step, builder.select(value, [i for i, of in enumerate(coded) if not of]))
        of_codes = _missing(builder, step, builder.select(value, [i for i, of in enumerate(coded) if of]))
        order = np.argsort(np.argsort(coded, kind="stable"), kind="stable")
        return builder.select(builder.concat([of_numbers, of_codes]), order.tolist())
    tables = []
    for column in value.columns:
        _check_known(column, missing)
        tables.append([float(_matches(of, missing)) for of in (*(column.values or ()), _NEVER, column.null)])
    node = Lookup(sizes=np.array([len(of) - 2 for of in tables], dtype=np.int64), table=np.concatenate(tables))
    return builder.add(node, value, columns=[made] * value.width, is_sparse=False)


#: No value of a feature's.
_NEVER = object()


def _refuse_nulls(builder: Builder, step: Any, value: Value) -> None:
    """Leave a row to the imputer where it raises: for an infinite number, and for NaN unless that is what it fills."""
    takes_missing = _is_na(step.missing_values) or _is_nan(step.missing_values)
    is_checked = [column.values is None or (not takes_missing and _is_nan(column.null)) for column in value.columns]
    if any(is_checked):
        chosen = builder.select(value, np.flatnonzero(is_checked).tolist())
        builder.require(chosen, takes_missing=takes_missing)


def _can_miss(step: Any, column: Column) -> bool:
    missing = step.missing_values
    if column.values is not None:
        return any(_matches(of, missing) for of in (*column.values, column.null))
    if _is_na(missing) or _is_nan(missing):
        return column.nullable
    return isinstance(missing, Real) and (column.possible is None or float(missing) in column.possible)


def _check_known(column: Column, missing: Any) -> None:
    is_value = not (missing is None or _is_na(missing) or _is_nan(missing))
    if is_value and column.can_be_other and missing not in (column.values or ()):
        raise NotCompilable("replaces a value that the feature's own dictionary lacks")


def _matches(value: Any, missing: Any) -> bool:
    """Whether a value is a missing one (sklearn/utils/_mask.py, `_get_dense_mask`)."""
    if _is_na(missing):
        return value is None or _is_nan(value)
    if _is_nan(missing):
        return _is_nan(value)
    return value is None if missing is None else bool(value == missing)


def _number(missing: Any) -> float:
    return float(missing) if isinstance(missing, Real) else math.nan


def _is_na(value: Any) -> bool:
    import pandas as pd

    return value is pd.NA


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value
