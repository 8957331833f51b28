"""Arithmetic a column at a time, as scikit-learn's scalers and imputers do it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from fin_pyfunc.model.program.node import Array, Edge, Node, expect


class Scale(Node, tag="scale"):
    """One operation with one number a column.

    Parameters
    ----------
    how : {"add", "subtract", "multiply", "divide"}
    by : ndarray of shape (n,), float64
    """

    how: str
    by: np.ndarray

    def width(self, *widths: int) -> int:
        expect(self.how in _OPERATIONS and self.by.dtype == np.float64 and widths == self.by.shape, "scale")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        made: Array = _OPERATIONS[self.how](inputs[0], self.by)
        return made


_OPERATIONS = {"add": np.add, "subtract": np.subtract, "multiply": np.multiply, "divide": np.divide}


class Fill(Node, tag="fill"):
    """A number in place of each missing one (SimpleImputer).

    Parameters
    ----------
    values : ndarray of shape (n,), float64
    missing : float, default NaN
        The number that is there where one is missing.
    """

    values: np.ndarray
    missing: float = math.nan

    def width(self, *widths: int) -> int:
        expect(self.values.dtype == np.float64 and widths == self.values.shape, "fill")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        return np.where(_is(X, self.missing), self.values, X)

    def edges(self) -> Sequence[Edge]:
        return _edges(len(self.values), self.missing)


class IsMissing(Node, tag="is-missing"):
    """1 where a column is missing, else 0 (MissingIndicator).

    Parameters
    ----------
    missing : float, default NaN
        As in `Fill`.
    """

    missing: float = math.nan

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1, "is-missing")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        return _is(inputs[0], self.missing).astype(np.float64)


def _edges(n_columns: int, missing: float) -> Sequence[Edge]:
    return [] if math.isnan(missing) else [Edge(np.arange(n_columns), np.full(n_columns, missing))]


def _is(X: Array, missing: float) -> Array:
    found: Array = np.isnan(X) if math.isnan(missing) else np.equal(X, missing)
    return found
