"""Columns by the quantiles that they had in training: their rank, or the number of their bin."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fin_pyfunc.model.program.node import Array, Edge, Node, expect

#: BOUNDS_THRESHOLD of sklearn/preprocessing/_data.py
_BOUNDS = 1e-7


class Quantiles(Node, tag="quantiles"):
    """Where each number lies among the quantiles of its column (QuantileTransformer).

    Parameters
    ----------
    quantiles : ndarray of shape (m, n), float64
        In order, a column for each of the input's.
    references : ndarray of shape (m,), float64
        What they are mapped to.
    is_normal : bool
        Whether quantiles of the normal distribution are made of those.
    """

    quantiles: np.ndarray
    references: np.ndarray
    is_normal: bool

    def width(self, *widths: int) -> int:
        m = len(self.references)
        expect(self.quantiles.dtype == np.float64 and self.quantiles.shape == (m, *widths), "quantiles")
        expect(self.references.dtype == np.float64 and self.references.ndim == 1 and m > 0, "quantiles")
        expect(bool((np.diff(self.quantiles, axis=0) >= 0).all()), "quantiles")
        return widths[0]

    @cached_property
    def _columns(self) -> list[tuple[Array, Array]]:
        """Each column's quantiles, and the same from the last to the first with other signs."""
        return [(np.ascontiguousarray(of), np.ascontiguousarray(-of[::-1])) for of in self.quantiles.T]

    @cached_property
    def _backward(self) -> Array:
        return np.ascontiguousarray(-self.references[::-1])

    @cached_property
    def _clip(self) -> tuple[float, float]:
        from scipy.special import ndtri

        bound = _BOUNDS - np.spacing(1)
        return float(ndtri(bound)), float(ndtri(1 - bound))

    def __call__(self, *inputs: Array) -> Array:
        # QuantileTransformer._transform_col: forward and backward, as quantiles may be equal
        given = inputs[0]
        made = np.empty(given.shape)
        for i, (forward, backward) in enumerate(self._columns):
            x = given[:, i]
            made[:, i] = np.interp(x, forward, self.references) - np.interp(-x, backward, self._backward)
        made *= 0.5
        lowest, greatest = self.quantiles[0], self.quantiles[-1]
        if not self.is_normal:
            made[given == greatest] = 1.0
            made[given == lowest] = 0.0
            return made
        from scipy.special import ndtri

        made[given + _BOUNDS > greatest] = 1.0
        made[given - _BOUNDS < lowest] = 0.0
        clipped: Array = np.clip(ndtri(made), *self._clip)
        return clipped

    def edges(self) -> Sequence[Edge]:
        # between quantiles it is a line; it jumps at the ends, and where a quantile is there more than once
        lines = [_jumps(of, self.is_normal) for of, _ in self._columns]
        column = np.repeat(np.arange(len(lines)), [len(constants) for constants in lines])
        return [Edge(column, np.concatenate([np.empty(0), *lines]))]


def _jumps(quantiles: Array, is_normal: bool) -> Array:
    ends = quantiles[[0, -1]]
    repeated = quantiles[1:][np.diff(quantiles) == 0]
    more = [ends + np.array([_BOUNDS, -_BOUNDS])] if is_normal else []
    return np.unique(np.concatenate([ends, repeated, *more]))


class Bins(Node, tag="bins"):
    """The number of each number's bin (KBinsDiscretizer).

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
        How many edges each column has between its bins.
    edges_between : ndarray of shape (sum of sizes,), float64
        Those of one column after those of another, each column's in order.
    """

    sizes: np.ndarray
    edges_between: np.ndarray

    def width(self, *widths: int) -> int:
        expect(self.sizes.dtype == np.int64 and self.sizes.shape == widths and bool((self.sizes >= 0).all()), "bins")
        n = sum(self.sizes.tolist())
        expect(self.edges_between.dtype == np.float64 and self.edges_between.shape == (n,), "bins")
        expect(all(bool((np.diff(of) >= 0).all()) for of in self._columns), "bins")
        return widths[0]

    @cached_property
    def _columns(self) -> list[Array]:
        return np.split(self.edges_between, np.cumsum(self.sizes)[:-1])

    def __call__(self, *inputs: Array) -> Array:
        given = inputs[0]
        made = np.empty(given.shape)
        for i, between in enumerate(self._columns):
            made[:, i] = between.searchsorted(given[:, i], "right")
        return made

    def edges(self) -> Sequence[Edge]:
        return [Edge(np.repeat(np.arange(len(self.sizes)), self.sizes), self.edges_between)]
