"""Categories: numbers to codes, and codes to numbers or to columns of their own.

The code of a category is its position in a list of n known ones; n is the code of every other value, NaN of a missing
one. Text and categories of a row come as codes; numbers that an encoder takes for categories become codes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fin_pyfunc.model.program.node import MAX_WIDTH, Array, Edge, Node, expect


class Categorise(Node, tag="categorise"):
    """Numbers as codes.

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
        How many categories each column has.
    known : ndarray of shape (sum of sizes,), float64
        Those of one column after those of another, each column's in ascending order, without NaN.
    """

    sizes: np.ndarray
    known: np.ndarray

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.sizes.shape == (widths[0],) and _sound(self.sizes), "categorise")
        expect(self.known.dtype == np.float64 and self.known.shape == (int(self.sizes.sum()),), "categorise")
        expect(all(bool((np.diff(of) > 0).all()) for of in self._of), "categorise")
        return widths[0]

    @cached_property
    def _of(self) -> list[Array]:
        return np.split(self.known, np.cumsum(self.sizes)[:-1])

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        codes = np.empty(X.shape)
        for i, known in enumerate(self._of):
            column, size = X[:, i], len(known)
            if not size:
                codes[:, i] = np.where(np.isnan(column), np.nan, 0)
                continue
            at = np.searchsorted(known, column)
            is_known = known[np.minimum(at, size - 1)] == column
            codes[:, i] = np.where(is_known, at, np.where(np.isnan(column), np.nan, size))
        return codes

    def edges(self) -> Sequence[Edge]:
        return [Edge(np.repeat(np.arange(len(self.sizes)), self.sizes), self.known)]


class Lookup(Node, tag="lookup"):
    """A number for each code (OrdinalEncoder, TargetEncoder; an imputer of text).

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
        How many categories each column has.
    table : ndarray of shape (sum of sizes + 2 n,), float64
        For each column in turn: what its codes stand for, then any other value, then a missing one.
    """

    sizes: np.ndarray
    table: np.ndarray

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.sizes.shape == (widths[0],) and _sound(self.sizes), "lookup")
        expect(self.table.dtype == np.float64 and self.table.shape == (int((self.sizes + 2).sum()),), "lookup")
        return widths[0]

    @cached_property
    def _starts(self) -> Array:
        return _starts(self.sizes)

    def __call__(self, *inputs: Array) -> Array:
        found: Array = self.table[_positions(inputs[0], self.sizes, self._starts)]
        return found


class OneHot(Node, tag="one-hot"):
    """A 1 in the column of each code (OneHotEncoder).

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
    table : ndarray of shape (sum of sizes + 2 n,), int64
        As in `Lookup`: the column, of those that the node makes, in which there is a 1; -1 for none.
    n_columns : int
    """

    sizes: np.ndarray
    table: np.ndarray
    n_columns: int

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and self.sizes.shape == (widths[0],) and _sound(self.sizes), "one-hot")
        expect(self.table.dtype == np.int64 and self.table.shape == (int((self.sizes + 2).sum()),), "one-hot")
        expect(0 <= self.n_columns <= MAX_WIDTH, "one-hot")
        expect(bool(((self.table >= -1) & (self.table < self.n_columns)).all()), "one-hot")
        return self.n_columns

    @cached_property
    def _starts(self) -> Array:
        return _starts(self.sizes)

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        # one more column, the last, takes the 1 of what has none
        made = np.zeros((len(X), self.n_columns + 1))
        made[np.arange(len(X))[:, None], self.table[_positions(X, self.sizes, self._starts)]] = 1.0
        return made[:, :-1]


def _sound(sizes: Array) -> bool:
    return sizes.dtype == np.int64 and bool(((sizes >= 0) & (sizes < 1 << 31)).all())


def _starts(sizes: Array) -> Array:
    starts: Array = np.cumsum(sizes + 2) - (sizes + 2)
    return starts


def _positions(codes: Array, sizes: Array, starts: Array) -> Array:
    """Where in a table of all columns each code is; what is no code of its column counts as another value."""
    with np.errstate(invalid="ignore"):
        is_known = (codes >= 0) & (codes < sizes)
        found = np.where(is_known, codes, np.where(np.isnan(codes), sizes + 1, sizes)).astype(np.int64)
    positions: Array = found + starts
    return positions
