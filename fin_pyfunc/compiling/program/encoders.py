"""Encoders of categories: each code's row of a table is what the fitted encoder itself makes of the value."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import count
from numbers import Real
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import NUMBER, Builder, Column, Value
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.program.categories import Categorise, Lookup, OneHot

#: What an encoder is asked for a text that it may not know; it is lengthened until no dictionary has it.
_OTHER = "no known value"


def one_hot_encoder(builder: Builder, step: Any, value: Value) -> Value:
    """Add a OneHotEncoder (sklearn/preprocessing/_encoders.py)."""
    codes = _codes(builder, step, value, raises=step.handle_unknown == "error")
    ask = _copy(step, sparse_output=True, handle_unknown="ignore" if step.handle_unknown == "error" else None)
    rows, columns = _answers(ask, codes.columns, value).nonzero()
    ends = np.cumsum(step._n_features_outs)
    of = np.searchsorted(ends, columns, side="right")
    tables = [np.full(len(column.values or ()) + 2, -1, dtype=np.int64) for column in codes.columns]
    for i, table in enumerate(tables):
        is_own = (of == i) & (rows < len(table))
        table[rows[is_own]] = columns[is_own]
    node = OneHot(sizes=_sizes(codes), table=np.concatenate(tables), n_columns=int(ends[-1]))
    made = Column(possible=frozenset({0.0, 1.0}), nullable=False, dtype=_dtype(step))
    return builder.add(node, codes, columns=[made] * node.n_columns, is_sparse=bool(step.sparse_output))


def ordinal_encoder(builder: Builder, step: Any, value: Value) -> Value:
    """Add an OrdinalEncoder (sklearn/preprocessing/_encoders.py)."""
    codes = _codes(builder, step, value, raises=step.handle_unknown == "error")
    # of an unknown value it then says something, which no row is answered with
    answers = {} if step.handle_unknown != "error" else {"handle_unknown": "use_encoded_value", "unknown_value": 0}
    found = np.asarray(_answers(_copy(step, **answers), codes.columns, value), dtype=np.float64)
    return _looked_up(builder, codes, found, NUMBER._replace(dtype=_dtype(step)))


def target_encoder(builder: Builder, step: Any, value: Value) -> Value:
    """Add a TargetEncoder, which has a column for each class beyond two (sklearn/preprocessing/_target_encoder.py)."""
    codes = _codes(builder, step, value, raises=False)
    found = np.asarray(_answers(_copy(step), codes.columns, value), dtype=np.float64)
    of_each = found.shape[1] // codes.width
    repeated = builder.select(codes, [i for i in range(codes.width) for _ in range(of_each)])
    return _looked_up(builder, repeated, found, NUMBER)


def _looked_up(builder: Builder, codes: Value, found: Array, made: Column) -> Value:
    sizes = _sizes(codes)
    for i, column in enumerate(codes.columns):
        if not column.nullable:
            found[sizes[i] + 1, i] = 0.0  # not NaN, which a later step may refuse
    table = np.concatenate([found[: size + 2, i] for i, size in enumerate(sizes)])
    return builder.add(Lookup(sizes=sizes, table=table), codes, columns=[made] * codes.width, is_sparse=False)


def _codes(builder: Builder, step: Any, value: Value, *, raises: bool) -> Value:
    """An encoder's columns as codes, numbers too; rows that it raises for are left to it.

    Raises
    ------
    NotCompilable
        It knows a value that the dictionary of a feature lacks: its code would be that of any other value.
    """
    known = [list(of.tolist()) for of in step.categories_]
    if len(known) != value.width:
        raise NotCompilable("has categories of another number of columns than it is given")
    numbers = [i for i, column in enumerate(value.columns) if column.values is None]
    made = [_as_codes(column, of) for column, of in zip(value.columns, known, strict=True)]
    codes = value
    if numbers:
        sizes = np.array([len(made[i].values or ()) for i in numbers], dtype=np.int64)
        of_numbers = np.concatenate([np.empty(0), *(np.array(made[i].values, dtype=np.float64) for i in numbers)])
        chosen = builder.select(value, numbers)
        builder.require(chosen, takes_missing=True)
        found = builder.add(Categorise(sizes=sizes, known=of_numbers), chosen, columns=[made[i] for i in numbers])
        codes = builder.replace(value, numbers, found)
    if raises:
        _refuse(builder, codes, [set(of) for of in known])
    return codes


def _as_codes(column: Column, known: list[Any]) -> Column:
    if column.values is not None:
        held = set(column.values)
        if column.can_be_other and any(of not in held for of in known if not _is_null(of)):
            raise NotCompilable("knows a value that the feature's own dictionary lacks")
        return column
    values = sorted({float(of) for of in known if isinstance(of, Real | np.bool_) and not _is_nan(of)})
    possible = column.possible
    if possible is not None:
        at = {number: float(i) for i, number in enumerate(values)}
        possible = frozenset(at.get(number, float(len(values))) for number in possible)
    return Column(tuple(values), float("nan"), None, possible, column.nullable)


def _refuse(builder: Builder, codes: Value, known: Sequence[set[Any]]) -> None:
    """Leave rows with a value that an encoder does not know to it, unless no such value comes."""
    tables = []
    for column, of in zip(codes.columns, known, strict=True):
        values = column.values or ()
        is_known = [value in of for value in values] + [False]
        possible = range(len(is_known)) if column.possible is None else column.possible
        refused = np.zeros(len(is_known) + 1)
        refused[[int(code) for code in possible if not is_known[int(code)]]] = np.nan
        has_null = any(map(_is_nan, of)) if _is_nan(column.null) else column.null in of
        refused[-1] = 0 if has_null or not column.nullable else np.nan
        tables.append(refused)
    at = [i for i, table in enumerate(tables) if np.isnan(table).any()]
    if at:
        table = np.concatenate([tables[i] for i in at])
        chosen = builder.select(codes, at)
        builder.require(builder.add(Lookup(sizes=_sizes(chosen), table=table), chosen), takes_missing=False)


def _answers(step: Any, columns: Sequence[Column], value: Value) -> Any:
    """What an encoder makes of each value of its columns: those with a code in order, any other, the missing one.

    A column of fewer values than another's ends with its last one repeated.
    """
    import pandas as pd
    from sklearn import config_context

    asked = [[*(column.values or ()), _other(column), column.null] for column in columns]
    n = max(map(len, asked))
    # numbers beside text, or out of an imputer of text, were objects in training, too
    dtypes = [
        np.float64 if column.values is None and np.asarray(known).dtype != object else object
        for column, known in zip(value.columns, step.categories_, strict=True)
    ]
    series = [pd.Series([*of, *of[-1:] * (n - len(of))], dtype=dtype) for of, dtype in zip(asked, dtypes, strict=True)]
    frame = pd.concat(series, axis=1)
    names = getattr(step, "feature_names_in_", None)
    if names is not None:
        frame.columns = names
    with config_context(transform_output="default"):
        return step.transform(frame if names is not None else frame.to_numpy())


def _other(column: Column) -> Any:
    """A value of a column's kind that is none of its own."""
    values = set(column.values or ())
    if values and not any(isinstance(of, str) for of in values):
        return next(float(number) for number in count() if number not in values)
    other = _OTHER
    while other in values:
        other += "'"
    return other


def _copy(step: Any, **changes: Any) -> Any:
    """An encoder of other parameters and plain output, with all that the fitted one has learnt."""
    copied = copy.copy(step)
    copied._sklearn_output_config = {}
    for name, changed in changes.items():
        if changed is not None:
            setattr(copied, name, changed)
    return copied


def _sizes(codes: Value) -> Array:
    return np.array([len(column.values or ()) for column in codes.columns], dtype=np.int64)


def _dtype(step: Any) -> str:
    dtype = np.dtype(step.dtype)
    if dtype.kind not in "fiub":
        raise NotCompilable("makes something else than numbers")
    return str(dtype.name)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def _is_null(value: Any) -> bool:
    return value is None or _is_nan(value)
