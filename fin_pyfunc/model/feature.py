"""One feature of a model: what a value of it must be, whether it comes alone or as a column."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from functools import cached_property
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from fin_pyfunc.model.codes import Codes, refusal

Kind = Literal["number", "integer", "boolean", "string", "category", "datetime", "any"]

#: Integers beyond this are not exact in the float64 that estimators compute in (IEEE 754: 53 bits of significand).
MAX_EXACT_INTEGER = 2**53
#: Longest name of a dtype.
MAX_DTYPE = 128
#: Rows whose texts are looked up one by one sooner than pandas finds those that are the same.
_FEW_ROWS = 50
#: What a row that lacks a feature has in its place.
MISSING: Any = object()
#: Kinds whose values a float64 matrix holds.
NUMERIC = frozenset({"number", "integer", "boolean"})
_SPARSE = re.compile(r"Sparse\[(?P<of>\w{1,9}), (?P<fill>[-+.\w]{1,25})\]", re.ASCII)
#: A date, or a date and a time, as ISO 8601 writes them.
_ISO = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d(:?\d\d)?)?)?")
_JSON_NAMES = {bool: "a boolean", str: "text", dict: "an object", list: "a list", int: "a number", float: "a number"}


class Refused(Exception):  # noqa: N818 - no error of a user's; it becomes a Problem
    """One value was refused; the argument is the problem as a client reads it."""


class Feature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, dict=True):
    """One feature as it was in the training data.

    Parameters
    ----------
    name : str
        Column name.
    kind : {"number", "integer", "boolean", "string", "category", "datetime", "any"}
        What a client may send; "any" where a foreign model names its features and no more.
    dtype : str
        pandas dtype the estimator was trained on, restored before it scores. Of the kind "any": "float64" where
        numbers become that, "object" where they stay as they were sent.
    nullable : bool, default False
        Whether the training sample had missing values.
    categories : list, optional
        The known values of a "category", in training order.
    ordered : bool, default False
        Whether a "category" was of ordered values in training.
    none_is_null : bool, default False
        The training data marked missing text with None rather than NaN (encoders tell the two apart).
    optional : bool, default False
        It may be left out, and is null then; only a foreign model's MLflow signature says so.
    single : bool, default False
        The estimator refuses a number beyond float32's range, as scikit-learn's trees do, though the dtype holds it.
    known : list, optional
        Values that an encoder of the estimator was fitted on, where it raises for any other.
    number : int, optional
        The column's own name, where that is the integer that `name` is the text of.
    codes : list, optional
        Values that a float64 matrix holds as their positions here: every text that the estimator tells from others, or
        all categories. None where such a feature needs a DataFrame. The dictionary of a "datetime" is empty.
    """

    name: str
    kind: Kind
    dtype: str
    nullable: bool = False
    categories: list[str | int | float | bool] | None = None
    ordered: bool = False
    none_is_null: bool = False
    optional: bool = False
    single: bool = False
    known: list[str | int | float | bool] | None = None
    number: int | None = None
    codes: list[str | int | float | bool] | None = None

    def __post_init__(self) -> None:
        try:
            if "dateutil" in self.dtype or len(self.dtype) > MAX_DTYPE:
                raise ValueError
            dtype = self.pandas_dtype
            if self.kind in NUMERIC:
                self.limits  # noqa: B018 - a dtype that holds no such number has none
            if self.kind == "datetime" and not pd.api.types.is_datetime64_any_dtype(dtype):
                raise ValueError
        except (TypeError, ValueError) as e:
            raise ValueError(f"the dtype of a feature is none that holds a {self.kind}") from e
        if self.codes is not None and (refused := refusal(self.kind, self.codes, self.categories)):
            raise ValueError(refused)

    def read(self, value: Any) -> Any:
        """One value, checked, as the table holds it; raises Refused with the problem."""
        if value is MISSING:
            if self.optional:
                return self._null
            raise Refused("missing")
        floating = isinstance(value, float | np.floating)
        if value is None or value is pd.NA or value is pd.NaT or (floating and value != value):
            if self.nullable or self.kind == "any":
                return self._null
            raise Refused("null" if value is None or self.kind == "datetime" else "NaN")
        checked = _READERS[self.kind](self, value)
        if self._encoded is not None and checked not in self._encoded:
            raise Refused(f"must be one of the {len(self._encoded)} values that the model's encoder knows")
        return checked

    @property
    def _null(self) -> Any:
        return None if self.none_is_null else pd.NaT if self.kind == "datetime" else math.nan

    @cached_property
    def _encoded(self) -> frozenset[Any] | None:
        return None if self.known is None else frozenset(self.known)

    @cached_property
    def dictionary(self) -> Codes | None:
        """The codes of its values; None where a matrix does not hold it, or holds the values themselves."""
        unknown = {"unknown": pd.Timestamp(0, tz=self.zone)} if self.kind == "datetime" else {}
        return None if self.codes is None else Codes(self.codes, self._null, self.known, **unknown)

    @property
    def is_coded_text(self) -> bool:
        """Whether its values are all text, and have codes."""
        return self.dictionary is not None and self.kind != "datetime" and self.dictionary.kinds == {str}

    @cached_property
    def zone(self) -> Any:
        """The time zone of the training dtype of a "datetime"; None where it has none."""
        return getattr(self.pandas_dtype, "tz", None)

    @cached_property
    def pandas_dtype(self) -> Any:
        """The dtype itself; pandas reads no name of a sparse one whose fill value is not the usual one."""
        sparse = _SPARSE.fullmatch(self.dtype)
        if sparse is None:
            return pd.api.types.pandas_dtype(self.dtype)
        fill: Any = {"True": True, "False": False}.get(sparse["fill"])
        return pd.SparseDtype(np.dtype(sparse["of"]), float(sparse["fill"]) if fill is None else fill)

    @cached_property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest number that the training dtype holds, both exact in float64; or code."""
        if self.dictionary is not None:
            has_unknown = self.kind != "category" and self.known is None
            return 0.0, self.dictionary.unknown - (not has_unknown)
        if self.kind == "boolean":
            return 0.0, 1.0
        dtype = self.pandas_dtype
        dtype = getattr(dtype, "numpy_dtype", getattr(dtype, "subtype", dtype))  # nullable, Arrow's and sparse dtypes
        if self.kind == "integer":
            bounds = np.iinfo(dtype)
            return float(max(bounds.min, -MAX_EXACT_INTEGER)), float(min(bounds.max, MAX_EXACT_INTEGER))
        greatest = float(np.finfo(np.float32 if self.single else np.float64).max)
        greatest = min(float(np.finfo(dtype).max), greatest)
        return -greatest, greatest

    @cached_property
    def _known(self) -> dict[tuple[bool, Any], Any]:
        """Categories by whether they are booleans, which Python counts as 0 and 1 and JSON does not, and by value."""
        return {(isinstance(known, bool), known): known for known in self.categories or ()}

    @cached_property
    def _category(self) -> Any:
        return pd.CategoricalDtype(self.categories, self.ordered)

    @cached_property
    def _dtype_kinds(self) -> str:
        """NumPy's letters of the dtypes that a whole column of this feature may have."""
        if self.kind != "boolean":
            return "iuf" if self.kind in NUMERIC else ""
        return "bf" if self.nullable else "b"  # MLflow's boolean takes no nulls, so it hands over 1.0, 0.0 and NaN

    def column(self, column: pd.Series[Any]) -> pd.Series[Any] | np.ndarray[Any, Any]:
        """A whole column of a DataFrame, checked: as codes where every value of it has one.

        Raises
        ------
        Refused
            It has to be read value by value.
        """
        if self.dictionary is not None and (codes := self.dictionary.of_column(column)) is not None:
            is_known = self.dictionary.takes(codes) and (codes != self.dictionary.unknown).all()
            if is_known and (self.nullable or not np.isnan(codes).any()):
                return codes
            if self.kind == "string" and isinstance(column.dtype, pd.CategoricalDtype):
                column = column.astype(object)
        if column.dtype.kind in self._dtype_kinds:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan)
            least, greatest = self.limits
            clean = (values >= least) & (values <= greatest)
            if self.kind != "number":
                clean &= values == np.floor(values)
            if self._encoded is not None:
                clean &= np.isin(values, np.array([*self._encoded], dtype=np.float64))
            if self.nullable:
                clean |= np.isnan(values)
            if clean.all():
                return values
        elif self.kind == "string" and pd.api.types.infer_dtype(column, skipna=True) in ("string", "empty"):
            null = column.isna().to_numpy()
            known = self._encoded is None or (null | column.isin(list(self._encoded)).to_numpy()).all()
            if known and (self.nullable or not null.any()):
                return column.astype(object).where(~null, self._null)
        elif self.kind == "datetime" and column.dtype.kind == "M":
            null = column.isna().to_numpy()
            if (getattr(column.dtype, "tz", None) is None) == (self.zone is None) and (self.nullable or not null.any()):
                same = _as_dtype(column, self.dtype)
                if same is not None and ((same == column).to_numpy() | null).all():
                    return same
        elif self.kind == "any" and column.dtype != object and self.known is None:
            if column.dtype.kind not in "iuf" or self.dtype != "float64":
                return column
            numbers: np.ndarray[Any, Any] = column.to_numpy(dtype=np.float64, na_value=np.nan)
            return numbers
        raise Refused("read value by value")

    def values(self, column: pd.Series[Any]) -> list[Any]:
        """A column as a client would send it, to be read value by value."""
        values = column.tolist()
        if self.dictionary is not None and isinstance(column.dtype, pd.CategoricalDtype):
            return [None if value != value else value for value in values]
        if self.kind == "boolean" and column.dtype.kind == "f" and self.nullable:
            return [bool(value) if value in (0, 1) else value for value in values]
        return values

    def encode(self, values: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Checked values, a list or a Series, as a matrix holds them; what has no code is `dictionary.unknown`.

        Raises
        ------
        ValueError, TypeError
            They are not what the feature holds.
        """
        if self.dictionary is None:
            if isinstance(values, pd.Series):
                return values.to_numpy(dtype=np.float64, na_value=np.nan)
            return np.asarray(values, dtype=np.float64)
        if isinstance(values, np.ndarray):
            return values
        if isinstance(values, pd.Series):
            codes = self.dictionary.of_column(values) if len(values) > _FEW_ROWS else None
            return self.dictionary.of_values(values.tolist()) if codes is None else codes
        return self.dictionary.of_values(values)

    def restore(self, values: Any, index: pd.Index[Any] | None = None) -> Any:
        """Checked values, or the codes that `column` gives, as a column of the dtype the estimator was trained on.

        Returns
        -------
        ndarray or ExtensionArray, or Series with the index where pandas would take an array for another dtype
        """
        if self.dictionary is not None and isinstance(values, np.ndarray):
            if self.kind == "category":
                positions = np.where(np.isnan(values), -1, values).astype(np.intp)
                return pd.Categorical.from_codes(positions, dtype=self._category)
            values = self.dictionary.values(values)
        if self.kind == "category":
            return pd.Categorical(values, dtype=self._category)
        if self.kind == "any":
            is_mixed = isinstance(values, list) and len(set(map(type, values))) > 1
            return pd.Series(values, index=index, dtype=object if is_mixed else None)
        if self.kind == "string" and isinstance(self.pandas_dtype, pd.StringDtype):
            return pd.array(values, dtype=self.pandas_dtype)
        if self.dtype == "float64":  # a Series costs ten times as much
            return np.asarray(values, dtype=np.float64)
        series = pd.Series(values, index=index, dtype=object if self.kind == "string" else None)
        return series if str(series.dtype) == self.dtype else series.astype(self.pandas_dtype)


def _number(feature: Feature, value: Any) -> float:
    if isinstance(value, bool | np.bool_) or not isinstance(value, float | int | np.floating | np.integer):
        raise Refused(f"must be a number, not {_json_name(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    least, greatest = feature.limits
    if least <= number <= greatest:
        return number
    if feature.kind == "integer":
        raise Refused(f"must be an integer from {int(least)} to {int(greatest)}")
    raise Refused(f"infinite or too large for {'float32' if feature.single else feature.dtype}")


def _integer(feature: Feature, value: Any) -> float:
    number = _number(feature, value)
    if number != math.floor(number):
        raise Refused("must be an integer (3 or 3.0)")
    return number


def _boolean(_: Feature, value: Any) -> float:
    if not isinstance(value, bool | np.bool_):
        raise Refused(f"must be true or false, not {_json_name(value)}")
    return float(value)


def _string(_: Feature, value: Any) -> str:
    if not isinstance(value, str):
        raise Refused(f"must be text, not {_json_name(value)}")
    return value


def _category(feature: Feature, value: Any) -> Any:
    try:
        return feature._known[isinstance(value, bool | np.bool_), value]
    except (KeyError, TypeError):  # a list or an object has no hash
        raise Refused(f"must be one of the {len(feature._known)} values known from training") from None


def _datetime(feature: Feature, value: Any) -> pd.Timestamp:
    if isinstance(value, int | float | np.number):
        raise Refused(
            "must be a date and time in ISO 8601, as text, not a number: which unit and time zone a count from an "
            "epoch has cannot be told"
        )
    if not isinstance(value, str | datetime.date | np.datetime64):
        raise Refused(f"must be a date and time in ISO 8601, as text, not {_json_name(value)}")
    if isinstance(value, str) and not _ISO.fullmatch(value):
        raise Refused("must be a date and time in ISO 8601, such as 2026-03-01T09:30:00")
    dtype: Any = pd.api.types.pandas_dtype(feature.dtype)
    try:
        stamp = pd.Timestamp(value)
    except (ValueError, OverflowError):  # the 30th of February
        raise Refused("must be a date and time that there is, in ISO 8601") from None
    if (stamp.tzinfo is None) != (feature.zone is None):
        raise Refused(
            "must have no time zone: the training data had none" if feature.zone is None
            else "must have a time zone, such as Z or +01:00, as the training data had"
        )  # fmt: skip
    unit: Any = getattr(dtype, "unit", None) or np.datetime_data(dtype)[0]
    try:
        stamp = stamp.as_unit(unit, round_ok=False)
        return stamp if feature.zone is None else stamp.tz_convert(feature.zone)
    except (ValueError, OverflowError):
        raise Refused(f"must be a date and time that {feature.dtype} holds without rounding") from None


def _any(feature: Feature, value: Any) -> Any:
    is_number = isinstance(value, float | int | np.number) and not isinstance(value, bool)
    if not is_number or feature.dtype != "float64":
        return value
    try:
        return float(value)
    except OverflowError:
        raise Refused("infinite or too large for float64") from None


def _as_dtype(column: pd.Series[Any], dtype: Any) -> pd.Series[Any] | None:
    try:
        converted: pd.Series[Any] = column.astype(dtype)
        return converted
    except (ValueError, OverflowError):
        return None


_READERS: dict[str, Callable[[Feature, Any], Any]] = {
    "number": _number, "integer": _integer, "boolean": _boolean, "string": _string, "category": _category,
    "datetime": _datetime, "any": _any,
}  # fmt: skip


def _json_name(value: Any) -> str:
    return next((name for kind, name in _JSON_NAMES.items() if isinstance(value, kind)), "something else")
