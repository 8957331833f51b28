"""Codes of one feature's values: text and categories as numbers that a float64 matrix holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

Array = np.ndarray[Any, np.dtype[np.float64]]
Value = str | int | float | bool
#: Numbers below this are equal as float64 exactly where they are equal (IEEE 754: 53 bits of significand).
_EXACT = 2**53
#: What a value without a code is restored to, if it has none itself.
_UNKNOWN = "no known value"


class Codes:
    """The dictionary of one feature: each value's code is its position.

    A null is NaN, and a value without a code `unknown`, which is `len(values)`.

    Parameters
    ----------
    values : sequence of str, int, float or bool
        Each there once; True is not 1 here, so that they do not hold booleans and numbers at once.
    null : None or float or NaT
        What the estimator was trained on where a value is missing.
    known : sequence of value, optional
        Those that the feature takes, where it takes no other.
    unknown : object, optional
        What a value without a code is restored to; default a text that is none of the values.
    """

    def __init__(
        self, values: Sequence[Value], null: Any, known: Sequence[Value] | None = None, unknown: Any = _UNKNOWN
    ) -> None:
        self.by_value: dict[Any, float] = {value: float(i) for i, value in enumerate(values)}
        self.unknown = float(len(values))
        self.kinds = {_kind(value) for value in values} or {str}
        while unknown in self.by_value:
            unknown += "'"
        self._values = np.empty(len(values) + 2, dtype=object)
        self._values[:] = [*values, unknown, null]
        self._is_taken = np.ones(len(values) + 2, dtype=bool)
        if known is not None:
            taken = set(known)
            self._is_taken[:-1] = [*(value in taken for value in values), False]

    @property
    def taken(self) -> dict[Any, float]:
        """Codes by value, of those that the feature takes."""
        return {value: code for value, code in self.by_value.items() if self._is_taken[int(code)]}

    def of_values(self, values: Sequence[Any]) -> Array:
        """Codes of values that have been checked."""
        codes, unknown = self.by_value, self.unknown
        found = (np.nan if value is None or value != value else codes.get(value, unknown) for value in values)
        return np.fromiter(found, np.float64, len(values))

    def of_column(self, column: pd.Series[Any] | pd.Index[Any]) -> Array | None:
        """Codes of a whole column; None where it has to be read value by value.

        Parameters
        ----------
        column : Series or Index of shape (n_rows,)
            Not checked.
        """
        if isinstance(column.dtype, pd.CategoricalDtype):
            held: Any = column.cat if isinstance(column, pd.Series) else column
            of_categories = self.of_column(held.categories)
            # a null has the code -1
            return None if of_categories is None else np.append(of_categories, np.nan)[np.asarray(held.codes)]
        if self.kinds == {str}:
            return self._of_texts(column)
        kind = column.dtype.kind
        if self.kinds != ({bool} if kind == "b" else {float}) or kind not in "biuf":
            return None
        return self._of_numbers(column.to_numpy(dtype=np.float64, na_value=np.nan))

    def takes(self, codes: Array) -> bool:
        """Whether the feature takes all of these, nulls left alone."""
        return bool(self._is_taken[self._positions(codes)].all())

    def values(self, codes: Array) -> np.ndarray[Any, np.dtype[np.object_]]:
        """The values that codes stand for, as objects; of `unknown` one that is none of them."""
        held: np.ndarray[Any, np.dtype[np.object_]] = self._values[self._positions(codes)]
        return held

    def _positions(self, codes: Array) -> np.ndarray[Any, np.dtype[np.intp]]:
        return np.where(np.isnan(codes), self.unknown + 1, codes).astype(np.intp)

    def _of_texts(self, column: pd.Series[Any] | pd.Index[Any]) -> Array | None:
        if not isinstance(column.dtype, pd.StringDtype | pd.ArrowDtype) and column.dtype != object:
            return None
        try:
            at, texts = pd.factorize(column)  # each text is looked up once; a null is at -1
        except TypeError:  # a list or an object has no hash
            return None
        found: list[Any] = texts.tolist()
        if not all(isinstance(text, str) for text in found):
            return None
        return np.array([*(self.by_value.get(text, self.unknown) for text in found), np.nan])[at]

    def _of_numbers(self, numbers: Array) -> Array | None:
        known = np.array(list(self.by_value), dtype=np.float64)
        if not (np.abs(known) < _EXACT).all():
            return None
        order = np.argsort(known)
        at = order[np.minimum(np.searchsorted(known[order], numbers), len(known) - 1)]
        return np.where(np.isnan(numbers), np.nan, np.where(known[at] == numbers, at, self.unknown))


def refusal(kind: str, codes: Sequence[Value], categories: Sequence[Value] | None) -> str | None:
    """Why a feature of this kind cannot have these codes; None where it can."""
    if kind == "category":
        same = [(type(value), value) for value in codes] == [(type(value), value) for value in categories or ()]
        return None if same and can_code(codes) else "the codes of a category are not its categories"
    if kind == "datetime":
        return "a date and time has a code" if codes else None
    if kind != "string" or not all(isinstance(value, str) for value in codes):
        return f"a {kind} has a code"
    return "a code has two values" if len(set(codes)) < len(codes) else None


def can_code(categories: Sequence[Value]) -> bool:
    """Whether categories can have codes: Python takes True for 1, so one dictionary does not hold both."""
    return len(categories) > 0 and not {bool, float} <= {_kind(value) for value in categories}


def _kind(value: Value) -> type:
    return bool if isinstance(value, bool) else str if isinstance(value, str) else float
