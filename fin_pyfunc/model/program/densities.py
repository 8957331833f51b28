"""Scores of classifiers that know how the features of each class are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from fin_pyfunc.model.program.node import Array, Edge, Node, expect


class Gaussian(Node, tag="gaussian"):
    """Log-likelihood of each class, of features that are normal and independent (GaussianNB).

    Parameters
    ----------
    mean, variance : ndarray of shape (k, n), float64
    log_prior, constant : ndarray of shape (k,), float64
    """

    rounds: ClassVar[bool] = True

    mean: np.ndarray
    variance: np.ndarray
    log_prior: np.ndarray
    constant: np.ndarray

    def width(self, *widths: int) -> int:
        k = len(self.log_prior)
        for of in (self.mean, self.variance):
            expect(of.dtype == np.float64 and k > 0 and of.shape == (k, *widths), "gaussian")
        for of in (self.log_prior, self.constant):
            expect(of.dtype == np.float64 and of.shape == (k,), "gaussian")
        return k

    def __call__(self, *inputs: Array) -> Array:
        # sklearn/naive_bayes.py, GaussianNB._joint_log_likelihood
        X = inputs[0]
        if len(X) == 1:  # all classes at once: as many operations as for one
            away = _away(X, self.mean, self.variance)[None]
        else:
            away = np.stack([_away(X, *of) for of in zip(self.mean, self.variance, strict=True)]).T
        made: Array = self.log_prior + (self.constant - 0.5 * away)
        return made


def _away(X: Array, mean: Array, variance: Array) -> Array:
    away: Array = np.add.reduce((X - mean) ** 2 / variance, axis=1)
    return away


class Quadratic(Node, tag="quadratic"):
    """Log-likelihood of each class, of features that are normal (QuadraticDiscriminantAnalysis).

    Parameters
    ----------
    mean : ndarray of shape (k, n), float64
    rotation : ndarray of shape (k n, r), float64
        Of one class below that of another.
    constant, log_prior : ndarray of shape (k,), float64
    """

    rounds: ClassVar[bool] = True

    mean: np.ndarray
    rotation: np.ndarray
    constant: np.ndarray
    log_prior: np.ndarray

    def width(self, *widths: int) -> int:
        k = len(self.log_prior)
        expect(self.mean.dtype == np.float64 and k > 0 and self.mean.shape == (k, *widths), "quadratic")
        expect(self.rotation.dtype == np.float64 and self.rotation.ndim == 2, "quadratic")
        expect(len(self.rotation) == self.mean.size, "quadratic")
        for of in (self.log_prior, self.constant):
            expect(of.dtype == np.float64 and of.shape == (k,), "quadratic")
        return k

    @cached_property
    def _rotations(self) -> list[Array]:
        return np.split(self.rotation, len(self.mean))

    def __call__(self, *inputs: Array) -> Array:
        # sklearn/discriminant_analysis.py, QuadraticDiscriminantAnalysis._decision_function
        X, away = inputs[0], np.empty((len(inputs[0]), len(self.mean)))
        for i, (mean, rotation) in enumerate(zip(self.mean, self._rotations, strict=True)):
            np.sum(((X - mean) @ rotation) ** 2, axis=1, out=away[:, i])
        made: Array = -0.5 * (away + self.constant) + self.log_prior
        return made


class Counts(Node, tag="counts"):
    """Log-likelihood of each class, of whole numbers that are categories (CategoricalNB).

    Parameters
    ----------
    sizes : ndarray of shape (n,), int64
        How many categories each column has: 0 and on.
    table : ndarray of shape (sum of sizes, k), float64
        The logarithms of their probabilities, those of one column after those of another.
    log_prior : ndarray of shape (k,), float64
    """

    sizes: np.ndarray
    table: np.ndarray
    log_prior: np.ndarray

    def width(self, *widths: int) -> int:
        expect(self.sizes.dtype == np.int64 and widths == self.sizes.shape, "counts")
        expect(bool(((self.sizes > 0) & (self.sizes < 1 << 31)).all()), "counts")
        expect(self.table.dtype == np.float64 and self.table.ndim == 2, "counts")
        expect(len(self.table) == int(self.sizes.sum()), "counts")
        expect(self.log_prior.dtype == np.float64 and self.log_prior.shape == self.table.shape[1:], "counts")
        expect(len(self.log_prior) > 0, "counts")
        return len(self.log_prior)

    @cached_property
    def _starts(self) -> Array:
        starts: Array = np.cumsum(self.sizes) - self.sizes
        return starts

    def __call__(self, *inputs: Array) -> Array:
        # sklearn/naive_bayes.py, CategoricalNB._joint_log_likelihood; it refuses a number that is none of a column's
        whole = np.trunc(inputs[0])
        is_known = (whole >= 0) & (whole < self.sizes)
        at = np.where(is_known, whole, 0).astype(np.int64) + self._starts
        made: Array = self.table[at].sum(axis=1) + self.log_prior
        if not is_known.all():
            made[~is_known.all(axis=1)] = np.nan
        return made

    def edges(self) -> Sequence[Edge]:
        known = [np.arange(-1, size + 1, dtype=np.float64) for size in self.sizes.tolist()]
        return [Edge(np.repeat(np.arange(len(known)), self.sizes + 2), np.concatenate(known))]
