"""Categories: numbers to codes, and codes to numbers or to columns of their own.

The code of a category is its position in a list of n known ones; n is the code of every other value, NaN of a missing
one. Text and categories of a row come as codes; numbers that an encoder takes for categories become codes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

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
        of_columns = np.split(self.known, np.cumsum(self.sizes)[:-1])
        expect(all(bool((of[:1] == of[:1]).all() and (np.diff(of) > 0).all()) for of in of_columns), "categorise")
        return widths[0]

    @cached_property
    def _pairs(self) -> Array:
        """Column and category as a complex number each, which NumPy orders by the one and then by the other."""
        pairs = np.empty(len(self.known) + 1, dtype=np.complex128)
        pairs.real[:-1], pairs.imag[:-1] = np.repeat(np.arange(len(self.sizes)), self.sizes), self.known
        pairs[-1] = len(self.sizes)  # of no column, so that there is always one at hand
        return pairs

    @cached_property
    def _starts(self) -> Array:
        starts: Array = np.cumsum(self.sizes) - self.sizes
        return starts

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        wanted = np.empty(X.shape, dtype=np.complex128)
        wanted.real, wanted.imag = np.arange(X.shape[1]), X
        at = self._pairs.searchsorted(wanted)
        codes = np.where(self._pairs.take(at, mode="clip") == wanted, at - self._starts, self.sizes + 0.0)
        codes[np.isnan(X)] = np.nan
        return codes

    def edges(self) -> Sequence[Edge]:
        return [Edge(np.repeat(np.arange(len(self.sizes)), self.sizes), self.known)]


class _Table(Node):
    """A table of what each code stands for, one column's part after another's.

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
        How many categories each column has.
    table : ndarray of shape (sum of sizes + 2 n,)
        For each column in turn: what its codes stand for, then any other value, then a missing one.
    """

    sizes: np.ndarray
    table: np.ndarray

    def _is_table(self, widths: tuple[int, ...], dtype: Any) -> bool:
        is_sound = len(widths) == 1 and self.sizes.shape == (widths[0],) and _sound(self.sizes)
        return is_sound and self.table.dtype == dtype and self.table.shape == (int((self.sizes + 2).sum()),)

    @cached_property
    def _places(self) -> tuple[Array, Array]:
        """Where each column's part begins, and how far into it a missing value's place is."""
        return np.cumsum(self.sizes + 2) - (self.sizes + 2), self.sizes + 1.0

    def _found(self, codes: Array) -> Array:
        starts, last = self._places
        positions = np.fmin(codes, last).astype(np.int64)  # of a number and NaN, fmin is the number
        positions += starts
        # what is no code at all finds something of the table, too, and never what is outside of it
        return self.table.take(positions, mode="clip")


class Lookup(_Table, tag="lookup"):
    """A number for each code (OrdinalEncoder, TargetEncoder); the table holds float64."""

    def width(self, *widths: int) -> int:
        expect(self._is_table(widths, np.float64), "lookup")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        return self._found(inputs[0])


class OneHot(_Table, tag="one-hot"):
    """A 1 in the column of each code (OneHotEncoder).

    The table holds int64: the column, of those that the node makes, in which there is a 1; -1 for none.

    Parameters
    ----------
    n_columns : int
    """

    n_columns: int

    def width(self, *widths: int) -> int:
        expect(self._is_table(widths, np.int64) and 0 <= self.n_columns <= MAX_WIDTH, "one-hot")
        expect(bool(((self.table >= -1) & (self.table < self.n_columns)).all()), "one-hot")
        return self.n_columns

    def __call__(self, *inputs: Array) -> Array:
        columns = self._found(inputs[0])
        # one more column, the last, takes the 1 of what has none
        made = np.zeros((len(columns), self.n_columns + 1))
        if len(columns) == 1:
            made[0, columns[0]] = 1.0
        else:
            made[np.arange(len(columns))[:, None], columns] = 1.0
        return made[:, :-1]


def _sound(sizes: Array) -> bool:
    return sizes.dtype == np.int64 and bool(((sizes >= 0) & (sizes < 1 << 31)).all())
