"""Support vector machines: a kernel of a row and each support vector, and weighted sums of these."""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

import numpy as np

from fin_pyfunc.model.program.node import Array, Node, expect

#: Numbers of a kernel at once, so that many rows take no more memory.
_AT_ONCE = 1 << 20


class KernelMachine(Node, tag="kernel"):
    """Decision values of a support vector machine (sklearn/svm/src/libsvm/svm.cpp, Kernel::k_function).

    Parameters
    ----------
    kernel : {"linear", "poly", "rbf", "sigmoid"}
    vectors : ndarray of shape (m, n), float64
    coef : ndarray of shape (m, k), float64
    intercept : ndarray of shape (k,), float64
    gamma, coef0 : float
    degree : int
    """

    rounds: ClassVar[bool] = True

    kernel: str
    vectors: np.ndarray
    coef: np.ndarray
    intercept: np.ndarray
    gamma: float
    coef0: float
    degree: int

    def width(self, *widths: int) -> int:
        expect(self.kernel in ("linear", "poly", "rbf", "sigmoid") and 0 <= self.degree <= 100, "kernel")
        expect(self.vectors.dtype == np.float64 and self.vectors.ndim == 2, "kernel")
        expect(len(self.vectors) > 0 and self.vectors.shape[1:] == widths, "kernel")
        expect(self.coef.dtype == np.float64 and self.coef.ndim == 2, "kernel")
        expect(len(self.coef) == len(self.vectors) and self.coef.shape[1] > 0, "kernel")
        expect(self.intercept.dtype == np.float64 and self.intercept.shape == self.coef.shape[1:], "kernel")
        return len(self.intercept)

    @cached_property
    def _centre(self) -> Array:
        # distances are differences of squares, which are the more exact the smaller they are
        centre: Array = self.vectors.mean(axis=0) if self.kernel == "rbf" else np.zeros(self.vectors.shape[1])
        return centre

    @cached_property
    def _columns(self) -> Array:
        return np.ascontiguousarray((self.vectors - self._centre).T)

    @cached_property
    def _squares(self) -> Array:
        squares: Array = np.einsum("ij,ij->j", self._columns, self._columns)
        return squares

    def __call__(self, *inputs: Array) -> Array:
        X, step = inputs[0], max(1, _AT_ONCE // len(self.vectors))
        if len(X) <= step:
            return self._of(X)
        return np.concatenate([self._of(X[i : i + step]) for i in range(0, len(X), step)])

    def _of(self, X: Array) -> Array:
        if self.kernel == "rbf":
            X = X - self._centre
        values = X @ self._columns
        if self.kernel == "rbf":
            values *= -2.0
            values += self._squares
            values += np.einsum("ij,ij->i", X, X)[:, None]
            np.maximum(values, 0.0, out=values)
            values *= -self.gamma
            np.exp(values, out=values)
        elif self.kernel != "linear":
            values *= self.gamma
            values += self.coef0
            values = values**self.degree if self.kernel == "poly" else np.tanh(values)
        made: Array = values @ self.coef + self.intercept
        return made
