"""Calibrated probabilities of scores (CalibratedClassifierCV)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from fin_pyfunc.model.program.links import LINKS
from fin_pyfunc.model.program.node import Array, Edge, Node, expect

#: A step this small, relative to the number, is one of rounding; and how far it may move a probability.
_STEP, _MOST = 1e-13, 1e-10


class Platt(Node, tag="platt"):
    """A sigmoid of each column: 1 / (1 + exp(slope x + intercept)) (sklearn/calibration.py, _SigmoidCalibration).

    Parameters
    ----------
    slope, intercept : ndarray of shape (n,), float64
    """

    rounds: ClassVar[bool] = True

    slope: np.ndarray
    intercept: np.ndarray

    def width(self, *widths: int) -> int:
        expect(self.slope.dtype == np.float64 and widths == self.slope.shape, "platt")
        expect(self.intercept.dtype == np.float64 and widths == self.intercept.shape, "platt")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        scores = inputs[0] * self.slope
        scores += self.intercept
        return LINKS["sigmoids"](np.negative(scores, out=scores))


class Isotonic(Node, tag="isotonic"):
    """Straight lines between points, level beyond the first and the last (sklearn/isotonic.py).

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
        How many points each column has.
    x, y : ndarray of shape (sum of sizes,), float64
        Those of one column after those of another, x ascending within a column.
    ends : ndarray of shape (n, 2), float64
        The least and the greatest number of each column; any beyond is moved there first.
    is_single : bool
        Whether scikit-learn has the points and the numbers in float32.
    is_rounded : bool
        Whether the input may differ from scikit-learn's in the last bits: a row on so steep a line that this shows is
        one that cannot be vouched for.
    """

    sizes: np.ndarray
    x: np.ndarray
    y: np.ndarray
    ends: np.ndarray
    is_single: bool
    is_rounded: bool

    def width(self, *widths: int) -> int:
        expect(self.sizes.dtype == np.int64 and widths == self.sizes.shape, "isotonic")
        expect(bool(((self.sizes > 0) & (self.sizes < 1 << 31)).all()), "isotonic")
        expect(self.ends.dtype == np.float64 and self.ends.shape == (*widths, 2), "isotonic")
        for of in (self.x, self.y):
            expect(of.dtype == np.float64 and of.shape == (int(self.sizes.sum()),), "isotonic")
        expect(all(bool((np.diff(x) > 0).all()) for x, _ in self._points), "isotonic")
        return widths[0]

    @cached_property
    def _points(self) -> list[tuple[Array, Array]]:
        cuts = np.cumsum(self.sizes)[:-1]
        return list(zip(np.split(self.x, cuts), np.split(self.y, cuts), strict=True))

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        made = self._at(X)
        if self.is_rounded:
            by = _STEP * np.maximum(1.0, np.abs(X))
            if (is_steep := ~(self._at(X + by) - self._at(X - by) <= _MOST)).any():
                made[is_steep.any(axis=1)] = np.nan
        return made

    def edges(self) -> Sequence[Edge]:
        return [Edge(np.repeat(np.arange(len(self.sizes)), self.sizes), self.x)]

    def _at(self, X: Array) -> Array:
        made = np.empty(X.shape)
        line = _line_in_float32 if self.is_single else np.interp
        for i, (x, y) in enumerate(self._points):
            made[:, i] = line(np.clip(X[:, i], *self.ends[i]), x, y)
        return made


def _line_in_float32(at: Array, x: Array, y: Array) -> Array:
    """As scipy.interpolate.interp1d has it of float32, `_call_linear` in scipy/interpolate/_interpolate.py."""
    if len(x) == 1:
        return np.where(np.isnan(at), np.nan, y[0])
    at, x, y = (of.astype(np.float32) for of in (at, x, y))
    high = np.searchsorted(x, at).clip(1, len(x) - 1)
    low = high - 1
    slope = (y[high] - y[low]) / (x[high] - x[low])
    made: Array = slope * (at - x[low]) + y[low]
    return made.astype(np.float64)


class Temperature(Node, tag="temperature"):
    """A softmax of scores times a number (sklearn/calibration.py, _TemperatureScaling).

    Parameters
    ----------
    beta : float
    is_proba : bool
        Whether the scores are probabilities, of which scikit-learn takes the logarithm where it finds them to be some.
    """

    rounds: ClassVar[bool] = True

    beta: float
    is_proba: bool

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1 and widths[0] > 1, "temperature")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        looks_so = ((X >= 0) & (X <= 1)).all(axis=1) & (np.abs(X.sum(axis=1) - 1.0) <= 1e-5)
        made = LINKS["softmax"](self.beta * (np.log(X + 1e-12) if self.is_proba else X))
        # scikit-learn tells one from the other by all the rows that it is asked about at once
        if (unknown := looks_so != self.is_proba).any():
            made[unknown] = np.nan
        return made
