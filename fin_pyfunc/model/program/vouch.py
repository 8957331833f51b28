"""Which rows a program answers for."""

from __future__ import annotations

import numpy as np

from fin_pyfunc.model.program.node import Array, Node, expect


class Vouch(Node, tag="vouch"):
    """The scores of the first input, NaN where another input holds what a step of scikit-learn's refuses.

    A row whose scores are NaN is asked of the estimator itself, which then says what is wrong with it.

    Parameters
    ----------
    greatest : ndarray of shape (n_inputs - 1,), float64
        The greatest number, by size, that each of the others may hold; an infinite one is never taken.
    takes_missing : ndarray of shape (n_inputs - 1,), int64
        Whether it may hold NaN.
    """

    greatest: np.ndarray
    takes_missing: np.ndarray

    def width(self, *widths: int) -> int:
        n = len(widths) - 1
        expect(self.greatest.dtype == np.float64 and self.greatest.shape == (n,), "vouch")
        expect(self.takes_missing.dtype == np.int64 and self.takes_missing.shape == (n,), "vouch")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        scores, limits = inputs[0], zip(self.greatest.tolist(), self.takes_missing.tolist(), strict=True)
        for X, (greatest, takes_missing) in zip(inputs[1:], limits, strict=True):
            size = np.abs(X)
            if size.max(initial=0.0) <= min(greatest, _GREATEST):  # NaN is not
                continue
            taken = size <= min(greatest, _GREATEST)
            if takes_missing:
                taken |= np.isnan(size)
            scores = np.where(taken.all(axis=1, keepdims=True), scores, np.nan)
        return scores


_GREATEST = float(np.finfo(np.float64).max)
