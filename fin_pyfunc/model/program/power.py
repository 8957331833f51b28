"""Powers that make a column look like a normal distribution."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from fin_pyfunc.model.program.node import Array, Edge, Node, expect
from fin_pyfunc.model.program.numbers import every_column

_EPS = float(np.finfo(np.float64).eps)


class Power(Node, tag="power"):
    """Yeo-Johnson's or Box-Cox's transform of each column (PowerTransformer).

    Parameters
    ----------
    method : {"yeo-johnson", "power", "box-cox"}
        Yeo-Johnson with log1p and expm1, as SciPy has it since 1.9, or with powers, as scikit-learn had it before;
        Box-Cox is infinite for what is no positive number, which scikit-learn refuses.
    lambdas : ndarray of shape (n,), float64
    """

    method: str
    lambdas: np.ndarray

    def width(self, *widths: int) -> int:
        expect(self.method in ("yeo-johnson", "power", "box-cox"), "power")
        expect(self.lambdas.dtype == np.float64 and self.lambdas.shape == widths, "power")
        expect(bool(np.isfinite(self.lambdas).all()), "power")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        X = inputs[0]
        with np.errstate(all="ignore"):
            if self.method == "box-cox":
                from scipy.special import boxcox

                return np.where(X <= 0, np.inf, boxcox(X, self.lambdas))
            return self._yeo_johnson(X)

    def _yeo_johnson(self, X: Array) -> Array:
        # `_yeojohnson_transform` of scipy/stats/_morestats.py: the lambda of a negative number is 2 less its own
        (above, below), (is_log_above, is_log_below), has_log = self._powers
        pos = X >= 0
        size, by = np.where(pos, X, -X), np.where(pos, above, below)
        made = (np.expm1(by * np.log1p(size)) if self.method == "yeo-johnson" else np.power(size + 1, by) - 1) / by
        if has_log:
            made = np.where(np.where(pos, is_log_above, is_log_below), np.log1p(size), made)
        signed: Array = np.where(pos, made, -made)
        return signed

    @cached_property
    def _powers(self) -> tuple[tuple[Array, Array], tuple[Array, Array], bool]:
        """The lambdas of numbers from 0 on and below, which of both stand for a logarithm, and whether any does."""
        is_log = abs(self.lambdas) < _EPS, ~(abs(self.lambdas - 2) > _EPS)
        powers = np.where(is_log[0], 1.0, self.lambdas), np.where(is_log[1], 1.0, 2 - self.lambdas)
        return powers, is_log, bool(np.any(is_log))

    def edges(self) -> Sequence[Edge]:
        return [every_column(len(self.lambdas), np.zeros(1))]
