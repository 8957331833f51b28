"""Classifiers at the end of a program, or within one: features in, probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import ClassVar

import numpy as np

from fin_pyfunc.model.backends.trees import runner
from fin_pyfunc.model.program.links import LINKS, linked_width
from fin_pyfunc.model.program.near import near_an_edge
from fin_pyfunc.model.program.node import MAX_WIDTH, Array, Edge, Node, expect
from fin_pyfunc.model.tree_file import CATEGORICAL, Trees, read


class TreeEnsemble(Node, tag="trees"):
    """Trees, as they are in a file of their own.

    Parameters
    ----------
    content : bytes
    n_classes : int
    margin : float, default 0.0
        For features that are rounded on the way: a row no further from a threshold than this, relative to the
        threshold's size, is one that cannot be vouched for.
    """

    content: bytes
    n_classes: int
    margin: float = 0.0

    def width(self, *widths: int) -> int:
        expect(widths == (self._trees.n_features,) and 0 <= self.margin < 1, "trees")
        return self.n_classes

    @cached_property
    def _trees(self) -> Trees:
        return read(self.content, self.n_classes)

    @property
    def rounds(self) -> bool:  # type: ignore[override] # others of its class do not
        """Whether the last bit of a sum over classes hangs on how many rows there are, as NumPy's does."""
        return self._trees.arithmetic.exp != "c" and self._trees.arithmetic.link in ("softmax", "votes")

    @cached_property
    def _run(self) -> Callable[[Array], Array]:
        return runner(self._trees)

    @cached_property
    def _constants(self) -> list[Array]:
        """The numbers at which a row goes another way, of each feature, in ascending order."""
        (edge,) = self.edges()
        return [np.unique(edge.constant[edge.column == i]) for i in range(self._trees.n_features)]

    def __call__(self, *inputs: Array) -> Array:
        made = self._run(inputs[0])
        if self.margin and (near := near_an_edge(inputs[0], self._constants, self.margin)).any():
            made = np.where(near[:, None], np.nan, made)
        return made

    @property
    def greatest(self) -> float:
        """A number that no score is greater than, by size."""
        trees = self._trees
        if trees.arithmetic.link != "identity":
            return 1.0
        leaves = np.abs(trees.values).max(initial=0.0) * len(trees.roots) / abs(trees.arithmetic.divisor)
        return float(leaves + np.abs(trees.base).max())

    def edges(self) -> Sequence[Edge]:
        inner = (self._trees.left >= 0) & ((self._trees.flags & CATEGORICAL) == 0)
        constant = self._trees.threshold[inner]
        constant = rounded_at(constant) if self._trees.arithmetic.rounds else constant
        return [Edge(self._trees.feature[inner].astype(np.int64), constant, is_tree=True)]


class Linear(Node, tag="linear"):
    """A matrix product, and what is made of it.

    Parameters
    ----------
    coef : ndarray of shape (k, n), float64
    intercept : ndarray of shape (k,), float64
    link : str
        One of `LINKS`.
    """

    rounds: ClassVar[bool] = True

    coef: np.ndarray
    intercept: np.ndarray
    link: str

    def width(self, *widths: int) -> int:
        expect(self.coef.dtype == np.float64 and self.coef.ndim == 2 and self.coef.shape[1:] == widths, "linear")
        expect(self.intercept.dtype == np.float64 and self.intercept.shape == self.coef.shape[:1], "linear")
        return linked_width(self.link, len(self.coef))

    @cached_property
    def _columns(self) -> Array:
        return np.ascontiguousarray(self.coef.T)

    @cached_property
    def _link(self) -> Callable[[Array], Array]:
        return LINKS[self.link]

    def __call__(self, *inputs: Array) -> Array:
        scores = inputs[0] @ self._columns
        scores += self.intercept
        return self._link(scores)


class Constant(Node, tag="constant"):
    """The same numbers for every row (DummyClassifier, or a class that was not seen).

    Parameters
    ----------
    values : ndarray of shape (k,), float64
    """

    values: np.ndarray

    def width(self, *widths: int) -> int:
        is_sound = self.values.dtype == np.float64 and self.values.ndim == 1 and 0 < len(self.values) <= MAX_WIDTH
        expect(is_sound and len(widths) == 1, "constant")
        return len(self.values)

    def __call__(self, *inputs: Array) -> Array:
        return np.tile(self.values, (len(inputs[0]), 1))


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
