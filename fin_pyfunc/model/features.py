"""What a model takes: names, types and nulls of its features, fixed when it is logged.

Rows (mappings, as JSON carries them) or a DataFrame go in; out comes the table a backend scores, or one FeatureError
that names every feature of every row that was refused.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from fin_pyfunc.model.errors import MAX_PROBLEMS, FeatureError, Problem

#: What a backend scores: a float64 matrix (n_rows, n_features) where every feature is a number, else a DataFrame.
Table = np.ndarray[Any, np.dtype[np.float64]] | pd.DataFrame
Kind = Literal["number", "integer", "boolean", "string", "category", "any"]

#: Integers beyond this are not exact in the float64 that estimators compute in (IEEE 754: 53 bits of significand).
MAX_EXACT_INTEGER = 2**53
_MISSING: Any = object()
_NUMERIC = frozenset({"number", "integer", "boolean"})
_JSON_NAMES = {bool: "a boolean", str: "text", dict: "an object", list: "a list"}


class _Refused(Exception):  # noqa: N818 - never leaves this file
    """One value was refused; the argument is the problem as a client reads it."""


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """One feature as it was in the training data.

    Parameters
    ----------
    name : str
        Column name.
    kind : {"number", "integer", "boolean", "string", "category", "any"}
        What a client may send; "any" where a foreign model names its features and no more.
    dtype : str
        pandas dtype the estimator was trained on, restored before it scores.
    nullable : bool, default False
        Whether the training sample had missing values.
    categories : list, optional
        The known values of a "category", in training order.
    none_is_null : bool, default False
        The training data marked missing text with None rather than NaN (encoders tell the two apart).
    """

    name: str
    kind: Kind
    dtype: str
    nullable: bool = False
    categories: list[str | int | float | bool] | None = None
    none_is_null: bool = False

    def read(self, value: Any) -> Any:
        """One value, checked, as the table holds it; raises _Refused with the problem."""
        if value is _MISSING:
            raise _Refused("missing")
        if self.kind == "any":
            return value
        floating = isinstance(value, float | np.floating)
        if value is None or value is pd.NA or value is pd.NaT or (floating and value != value):
            if self.nullable:
                return self._null
            raise _Refused("null" if value is None else "NaN")
        return _READERS[self.kind](self, value)

    @property
    def _null(self) -> Any:
        return None if self.none_is_null else math.nan

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest number that the training dtype holds, both exact in float64."""
        if self.kind == "boolean":
            return 0.0, 1.0
        dtype: Any = pd.api.types.pandas_dtype(self.dtype)
        dtype = getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))  # nullable, Arrow's and sparse dtypes
        if self.kind == "integer":
            bounds = np.iinfo(dtype)
            return float(max(bounds.min, -MAX_EXACT_INTEGER)), float(min(bounds.max, MAX_EXACT_INTEGER))
        greatest = min(float(np.finfo(dtype).max), float(np.finfo(np.float64).max))
        return -greatest, greatest

    @cached_property
    def _known(self) -> dict[tuple[bool, Any], Any]:
        """Categories by whether they are booleans, which Python counts as 0 and 1 and JSON does not, and by value."""
        return {(isinstance(known, bool), known): known for known in self.categories or ()}

    @cached_property
    def _dtype_kinds(self) -> str:
        """NumPy's letters of the dtypes that a whole column of this feature may have."""
        if self.kind != "boolean":
            return "iuf" if self.kind in _NUMERIC else ""
        return "bf" if self.nullable else "b"  # MLflow's boolean takes no nulls, so it hands over 1.0, 0.0 and NaN

    def column(self, column: pd.Series[Any]) -> pd.Series[Any] | np.ndarray[Any, Any]:
        """A whole column of a DataFrame, checked; raises _Refused where it has to be read value by value."""
        if column.dtype.kind in self._dtype_kinds:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            least, greatest = self.limits
            clean = (values >= least) & (values <= greatest)
            if self.kind != "number":
                clean &= values == np.floor(values)
            if self.nullable:
                clean |= np.isnan(values)
            if clean.all():
                return values
        elif self.kind == "string" and pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty"):
            null = column.isna().to_numpy()
            if self.nullable or not null.any():
                return column.astype(object).where(~null, self._null)
        elif self.kind == "any":
            return column
        raise _Refused("read value by value")

    def values(self, column: pd.Series[Any]) -> list[Any]:
        """A column as a client would send it, to be read value by value."""
        values = column.tolist()
        if self.kind == "boolean" and column.dtype.kind == "f" and self.nullable:
            return [bool(value) if value in (0, 1) else value for value in values]
        return values

    def restore(self, values: Any, index: pd.Index[Any] | None = None) -> pd.Series[Any]:
        """Checked values as a Series of the dtype the estimator was trained on."""
        if self.kind == "category":
            return pd.Series(pd.Categorical(values, categories=self.categories), index=index)
        if self.kind == "any":
            return pd.Series(values, index=index)
        series = pd.Series(values, index=index, dtype=object if self.kind == "string" else None)
        dtype: Any = self.dtype  # a pandas dtype's name, which the stubs know only as literals
        return series if str(series.dtype) == dtype else series.astype(dtype)


def _number(feature: Feature, value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, float | int | np.floating | np.integer):
        raise _Refused(f"must be a number, not {_json_name(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    least, greatest = feature.limits
    if least <= number <= greatest:
        return number
    if feature.kind == "integer":
        raise _Refused(f"must be an integer from {int(least)} to {int(greatest)}")
    raise _Refused(f"infinite or too large for {feature.dtype}")


def _integer(feature: Feature, value: Any) -> float:
    number = _number(feature, value)
    if number != math.floor(number):
        raise _Refused("must be an integer (3 or 3.0)")
    return number


def _boolean(_: Feature, value: Any) -> float:
    if not isinstance(value, bool | np.bool_):
        raise _Refused(f"must be true or false, not {_json_name(value)}")
    return float(value)


def _string(_: Feature, value: Any) -> str:
    if not isinstance(value, str):
        raise _Refused(f"must be text, not {_json_name(value)}")
    return value


def _category(feature: Feature, value: Any) -> Any:
    try:
        return feature._known[isinstance(value, bool | np.bool_), value]
    except (KeyError, TypeError):  # a list or an object has no hash
        raise _Refused(f"must be one of the {len(feature._known)} values known from training") from None


_READERS: dict[str, Callable[[Feature, Any], Any]] = {
    "number": _number, "integer": _integer, "boolean": _boolean, "string": _string, "category": _category,
}  # fmt: skip


class FeatureSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """The features of a model, in the order it was trained on.

    Parameters
    ----------
    features : list of Feature
        In training order.
    identifiers : list of str, default []
        Columns that are accepted and never scored, such as ``bar_id``.
    extra : {"ignore", "forbid"}, default "ignore"
        What becomes of a column that is neither a feature nor an identifier.
    """

    features: list[Feature]
    identifiers: list[str] = []
    extra: Literal["ignore", "forbid"] = "ignore"

    @cached_property
    def names(self) -> list[str]:
        """Feature names in training order."""
        return [feature.name for feature in self.features]

    @cached_property
    def is_numeric(self) -> bool:
        """Whether a row is a vector of numbers, so that no DataFrame is needed to hold it."""
        return all(feature.kind in _NUMERIC for feature in self.features)

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.names) | frozenset(self.identifiers)

    def table(self, rows: Sequence[Mapping[str, Any]]) -> Table:
        """Check rows as a client sends them.

        Parameters
        ----------
        rows : sequence of mapping
            Feature name to number, text, boolean or None; key order does not matter.

        Returns
        -------
        ndarray of shape (n_rows, n_features), float64, or DataFrame
            A matrix where every feature is a number, else a DataFrame of the training dtypes.

        Raises
        ------
        FeatureError
            Naming every bad feature of every bad row.
        """
        found = _Problems()
        values = [self._row(i, row, found) for i, row in enumerate(rows)]
        found.raise_if_any()
        if self.is_numeric:
            return np.array(values, dtype=np.float64).reshape(len(rows), len(self.features))
        columns = zip(*values, strict=True) if values else ([] for _ in self.features)
        return self._frame(dict(zip(self.names, map(list, columns), strict=True)))

    def check(self, frame: pd.DataFrame) -> Table:
        """Check a DataFrame; the counterpart of `table` for whole columns.

        Parameters
        ----------
        frame : DataFrame of shape (n_rows, any)
            Columns in any order.

        Returns
        -------
        ndarray of shape (n_rows, n_features), float64, or DataFrame

        Raises
        ------
        FeatureError
        """
        found = _Problems()
        every_row = range(max(len(frame), 1))  # a table without rows may still be the wrong table
        if self.extra == "forbid":
            for name in frame.columns:
                if name not in self._known:
                    found.add_all(every_row, str(name), "unknown to this model")
        columns: dict[str, Any] = {}
        for feature in self.features:
            if feature.name not in frame.columns:
                found.add_all(every_row, feature.name, "missing")
                continue
            column: Any = frame[feature.name]
            if isinstance(column, pd.DataFrame):
                found.add_all(every_row, feature.name, "there more than once")
                continue
            try:
                columns[feature.name] = feature.column(column)
            except _Refused:
                values = feature.values(column)
                columns[feature.name] = [_read(feature, value, i, found) for i, value in enumerate(values)]
        found.raise_if_any()
        if self.is_numeric:
            stacked = [np.asarray(columns[name], dtype=np.float64) for name in self.names]
            return np.column_stack(stacked) if stacked else np.empty((len(frame), 0))
        return self._frame(columns, frame.index)

    def restore(self, table: Table) -> pd.DataFrame:
        """The table as the DataFrame the estimator was trained on: names, order and dtypes."""
        if isinstance(table, pd.DataFrame):
            return table
        frame = pd.DataFrame(table, columns=self._columns, copy=False)
        return frame.astype(self._casts) if self._casts else frame

    @cached_property
    def _columns(self) -> pd.Index[Any]:
        return pd.Index(self.names)

    @cached_property
    def _casts(self) -> dict[str, str]:
        return {feature.name: feature.dtype for feature in self.features if feature.dtype != "float64"}

    def _frame(self, columns: Mapping[str, Any], index: pd.Index[Any] | None = None) -> pd.DataFrame:
        series = {f.name: f.restore(columns[f.name], index) for f in self.features}
        return pd.DataFrame(series, columns=self._columns, index=index)

    def _row(self, i: int, row: Mapping[str, Any], found: _Problems) -> list[Any]:
        if self.extra == "forbid":
            for name in row:
                if name not in self._known:
                    found.add(i, str(name), "unknown to this model")
        return [_read(feature, row.get(feature.name, _MISSING), i, found) for feature in self.features]


def infer(
    X: pd.DataFrame, identifiers: Sequence[str] = (), extra: Literal["ignore", "forbid"] = "ignore"
) -> FeatureSpec:
    """Read the features of a model off a sample of its training data.

    Parameters
    ----------
    X : DataFrame of shape (n_rows, n_features + n_identifiers)
        Training rows. A feature may be null in a request only where it is null here.
    identifiers : sequence of str, default ()
        Columns to accept and never score; they need not be in `X`.
    extra : {"ignore", "forbid"}, default "ignore"

    Returns
    -------
    FeatureSpec

    Raises
    ------
    ValueError
        A column's type cannot be sent as JSON; the message says which and what to do.
    """
    features = [_infer_one(str(name), X[name]) for name in X.columns if name not in identifiers]
    return FeatureSpec(features=features, identifiers=list(identifiers), extra=extra)


def _infer_one(name: str, column: pd.Series[Any]) -> Feature:
    types, dtype = pd.api.types, column.dtype
    null = bool(column.isna().any())
    if isinstance(dtype, pd.CategoricalDtype):
        categories = dtype.categories.tolist()
        if not all(isinstance(c, str | int | float | bool) for c in categories):
            raise ValueError(f"column {name!r} has categories that JSON cannot carry: use text or numbers")
        return Feature(name=name, kind="category", dtype="category", nullable=null, categories=categories)
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
    if types.infer_dtype(column, skipna=True) == "string":
        none_is_null = any(value is None for value in column[column.isna()].tolist())
        return Feature(name=name, kind="string", dtype=str(dtype), nullable=null, none_is_null=none_is_null)
    raise ValueError(
        f"column {name!r} has dtype {dtype} ({types.infer_dtype(column, skipna=True)}): features are numbers, "
        "integers, booleans, text or categories; convert it, or declare it under identifiers"
    )


def _read(feature: Feature, value: Any, i: int, found: _Problems) -> Any:
    try:
        return feature.read(value)
    except _Refused as refused:
        found.add(i, feature.name, str(refused))
        return None


def _json_name(value: Any) -> str:
    return next((name for kind, name in _JSON_NAMES.items() if isinstance(value, kind)), "something else")


def _row_of(problem: Problem) -> int:
    return problem.row


class _Problems:
    """Problems found so far: the first ones kept, all of them counted."""

    def __init__(self) -> None:
        self.kept: list[Problem] = []
        self.total = 0
        self.rows: set[int] = set()

    def add(self, row: int, feature: str, problem: str) -> None:
        self.add_all((row,), feature, problem)

    def add_all(self, rows: Iterable[int], feature: str, problem: str) -> None:
        for row in rows:
            self.total += 1
            self.rows.add(row)
            found = Problem(row, feature, problem)
            # the first by row, however they are found; within a row in the order of the features
            if len(self.kept) < MAX_PROBLEMS or row < self.kept[-1].row:
                insort(self.kept, found, key=_row_of)
                del self.kept[MAX_PROBLEMS:]

    def raise_if_any(self) -> None:
        if self.kept:
            raise FeatureError(self.kept, self.total, self.rows)
