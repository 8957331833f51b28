"""Columns as the values of B-splines."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fin_pyfunc.model.program.node import MAX_WIDTH, Array, Edge, Node, expect

#: Up to so many numbers are computed one by one.
_FEW = 64
_MODES = ("continue", "error", "periodic", "beyond")


class SplineBases(Node, tag="spline-bases"):
    """The values of each column's B-splines (SplineTransformer), a missing number's all 0.

    Parameters
    ----------
    knots : ndarray of shape (n, m), float64
        In order, for each column.
    degree : int
    target : ndarray of shape (m - degree - 1,), int64
        In which of a column's results each of its splines is; several are added up (periodic ones).
    n_splines : int
        Results of a column.
    mode : {"continue", "error", "periodic", "beyond"}
        Outside of the knots: go on with the polynomials; infinite, which scikit-learn refuses; begin anew; or a line.
    ends : ndarray of shape (2, n), float64
        From where to where the splines themselves are used, if the mode is "beyond".
    lines : ndarray of shape (4 n, n_splines), float64
        For each column its results' values at the lower end, their slopes there, and the same of the upper end.
    """

    knots: np.ndarray
    degree: int
    target: np.ndarray
    n_splines: int
    mode: str
    ends: np.ndarray
    lines: np.ndarray

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and widths[0] > 0 and 0 < self.degree < 1000 and self.mode in _MODES, "splines")
        n, m = widths[0], self.knots.shape[-1]
        expect(self.knots.dtype == np.float64 and self.knots.shape == (n, m), "splines")
        expect(m >= 2 * self.degree + 2 and bool((np.diff(self.knots) >= 0).all()), "splines")
        expect(bool(np.isfinite(self.knots).all()), "splines")
        expect(self.target.dtype == np.int64 and self.target.shape == (m - self.degree - 1,), "splines")
        expect(bool(((self.target >= 0) & (self.target < self.n_splines)).all()), "splines")
        expect(self.n_splines > 0 and n * self.n_splines <= MAX_WIDTH, "splines")
        expect(self.ends.dtype == np.float64 and self.ends.shape == (2, n), "splines")
        expect(self.lines.dtype == np.float64 and self.lines.shape == (4 * n, self.n_splines), "splines")
        return n * self.n_splines

    def __call__(self, *inputs: Array) -> Array:
        given = inputs[0]
        if given.size <= _FEW:
            each = [self._alone(x, i) for row in given.tolist() for i, x in enumerate(row)]
            return np.array(each, dtype=np.float64).reshape(len(given), self.n_splines * given.shape[1])
        missing = np.isnan(given)
        inside = np.where(missing, self.knots[:, self.degree], given)
        first, last = self.knots[:, self.degree], self.knots[:, -self.degree - 1]
        outside = (inside < first) | (inside > last)
        if self.mode == "periodic":
            period = np.where(last > first, last - first, 1.0)
            inside = np.where(last > first, first + (inside - first) % period, 0.0)
        elif self.mode == "beyond":
            inside = np.clip(inside, *self.ends)
        made = self._bases(inside)
        if self.mode == "beyond":
            at_low, slope_low, at_high, slope_high = self._lines
            low, high = self.ends
            below, above = given < low, given > high
            if below.any():
                made = np.where(below[:, :, None], at_low + (given - low)[:, :, None] * slope_low, made)
            if above.any():
                made = np.where(above[:, :, None], at_high + (given - high)[:, :, None] * slope_high, made)
        elif self.mode == "error":
            made[outside] = np.inf
        made[missing] = 0.0
        return made.reshape(len(given), -1)

    def _bases(self, given: Array) -> Array:
        """Every column's results, of shape (n_rows, n, n_splines)."""
        # `_deBoor_D` of scipy/interpolate/src: all splines that are not 0 between two knots, degree by degree
        n, m = self.knots.shape
        interval = np.empty(given.shape, dtype=np.int64)
        for i, knots in enumerate(self.knots):
            interval[:, i] = knots.searchsorted(given[:, i], "right")
        interval = np.clip(interval - 1, self.degree, m - self.degree - 2)
        flat, at = self.knots.ravel(), interval + np.arange(n) * m
        h = [np.ones(given.shape)]
        for j in range(1, self.degree + 1):
            before, h = h, [np.zeros(given.shape)]
            for i in range(1, j + 1):
                above, below = flat[at + i], flat[at + i - j]
                apart = above != below
                w = before[i - 1] / np.where(apart, above - below, 1.0)
                h[i - 1] = np.where(apart, h[i - 1] + w * (above - given), h[i - 1])
                h.append(np.where(apart, w * (given - below), 0.0))
        made = np.zeros((len(given) * n, self.n_splines))
        row, spline = np.arange(len(made)), (interval - self.degree).ravel()
        for i, values in enumerate(h):
            made[row, self.target[spline + i]] += values.ravel()
        return made.reshape(len(given), n, self.n_splines)

    def _alone(self, x: float, i: int) -> list[float]:
        """The results of one number of a column: the same as for many, in Python, which is quicker for one."""
        knots, k, made = self._knots[i], self.degree, [0.0] * self.n_splines
        first, last = knots[k], knots[-k - 1]
        if x != x:
            return made
        if self.mode == "beyond":
            for end, is_beyond, at in ((self._ends[0][i], float.__lt__, 0), (self._ends[1][i], float.__gt__, 2)):
                if is_beyond(x, end):
                    values, slopes = self._lists[4 * i + at : 4 * i + at + 2]
                    return [value + (x - end) * slope for value, slope in zip(values, slopes, strict=True)]
        elif self.mode == "error" and not first <= x <= last:
            return [math.inf] * self.n_splines
        elif self.mode == "periodic":
            x = first + (x - first) % (last - first) if last > first else 0.0
        at = min(max(bisect_right(knots, x) - 1, k), len(knots) - k - 2)
        h = [1.0]
        for j in range(1, k + 1):
            before, h = h, [0.0]
            for n in range(at + 1, at + j + 1):
                above, below, w = knots[n], knots[n - j], before[n - at - 1]
                if above == below:
                    h.append(0.0)
                    continue
                w /= above - below
                h[-1] += w * (above - x)
                h.append(w * (x - below))
        for value, to in zip(h, self._targets[at - k :], strict=False):
            made[to] += value
        return made

    @cached_property
    def _knots(self) -> list[list[float]]:
        return self.knots.tolist()  # type: ignore[no-any-return]

    @cached_property
    def _targets(self) -> list[int]:
        return self.target.tolist()  # type: ignore[no-any-return]

    @cached_property
    def _ends(self) -> list[list[float]]:
        return self.ends.tolist()  # type: ignore[no-any-return]

    @cached_property
    def _lists(self) -> list[list[float]]:
        return self.lines.tolist()  # type: ignore[no-any-return]

    @cached_property
    def _lines(self) -> list[Array]:
        return [self.lines[i::4] for i in range(4)]

    def edges(self) -> Sequence[Edge]:
        n, m = self.knots.shape
        return [Edge(np.repeat(np.arange(n), m), self.knots.ravel())]
