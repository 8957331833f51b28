"""Classifiers at the end of a program, or within one: features in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np

from fin_pyfunc.model.backends.boosted import runner
from fin_pyfunc.model.boosted_file import BoostedTrees, read
from fin_pyfunc.model.program.node import Array, Edge, Node, expect


class TreeEnsemble(Node, tag="trees"):
    """Trees, as they are in a file of their own.

    Parameters
    ----------
    content : bytes
    n_classes : int
    """

    content: bytes
    n_classes: int

    def width(self, *widths: int) -> int:
        expect(widths == (self._trees.n_features,), "trees")
        return self.n_classes

    @cached_property
    def _trees(self) -> BoostedTrees:
        return read(self.content, self.n_classes)

    @cached_property
    def _run(self) -> Callable[[Array], Array]:
        return runner(self._trees)

    def __call__(self, *inputs: Array) -> Array:
        return self._run(inputs[0])

    def edges(self) -> Sequence[Edge]:
        inner = self._trees.left >= 0
        constant = self._trees.threshold[inner]
        constant = rounded_at(constant) if self._trees.arithmetic.rounds else constant
        return [Edge(self._trees.feature[inner].astype(np.int64), constant, is_tree=True)]


class Linear(Node, tag="linear"):
    """A matrix product and what a linear classifier makes of it.

    Parameters
    ----------
    coef : ndarray of shape (k, n), float64
    intercept : ndarray of shape (k,), float64
    link : {"none", "sigmoid", "softmax", "rest"}
        "sigmoid": two probabilities of one score; "rest": a sigmoid for each class, divided by their sum.
    """

    coef: np.ndarray
    intercept: np.ndarray
    link: str

    def width(self, *widths: int) -> int:
        k = len(self.coef)
        expect(self.coef.dtype == np.float64 and self.coef.ndim == 2 and self.coef.shape[1:] == widths, "linear")
        expect(self.intercept.dtype == np.float64 and self.intercept.shape == (k,), "linear")
        expect(k > 0 and self.link in ("none", "sigmoid", "softmax", "rest"), "linear")
        expect(k == 1 if self.link == "sigmoid" else True, "linear")
        return 2 if self.link == "sigmoid" else k

    @cached_property
    def _columns(self) -> Array:
        return np.ascontiguousarray(self.coef.T)

    def __call__(self, *inputs: Array) -> Array:
        scores: Array = inputs[0] @ self._columns + self.intercept
        if self.link == "none":
            return scores
        if self.link == "softmax":
            scores -= scores.max(axis=1, keepdims=True)
            np.exp(scores, out=scores)
            scores /= scores.sum(axis=1, keepdims=True)
            return scores
        with np.errstate(over="ignore"):
            p = 1 / (1 + np.exp(-scores))
        if self.link == "sigmoid":
            return np.concatenate((1 - p, p), axis=1)
        total = p.sum(axis=1, keepdims=True)
        # where every one of them is 0, the classes share alike (`_predict_proba_lr` of sklearn/linear_model/_base.py)
        return np.where(total == 0, 1 / p.shape[1], p / np.where(total == 0, 1, total))


def rounded_at(threshold: Array) -> Array:
    """Where a float64 passes a threshold that it is compared with as a float32.

    A number goes left unless it is greater: the last that does is the threshold, or the float32 before it, and it is
    half way to the next one that a float64 is rounded to that instead.
    """
    with np.errstate(over="ignore"):
        last = threshold.astype(np.float32)
        last = np.where(last > threshold, np.nextafter(last, np.float32(-np.inf)), last)
        following = np.nextafter(last, np.float32(np.inf))
    between = (last.astype(np.float64) + following.astype(np.float64)) / 2
    return np.where(np.isfinite(between), between, threshold)
