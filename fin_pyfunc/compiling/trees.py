"""Tree ensembles as plain arrays, whichever library grew them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Trees:
    """Trees laid one after the other; `left` and `right` count from the first node of all.

    Parameters
    ----------
    roots : ndarray of shape (n_trees,), int64
    feature, left, right : ndarray of shape (n_nodes,), int64
        -1 at a leaf.
    threshold : ndarray of shape (n_nodes,), float64
        A row goes left where its feature is at most (`strict`: less than) this.
    nan_left : ndarray of shape (n_nodes,), bool
        Whether a row goes left where its feature is missing.
    value : ndarray of shape (n_nodes, n_outputs), float64
        What a leaf adds.
    strict : bool, default False
    """

    roots: Array
    feature: Array
    left: Array
    right: Array
    threshold: Array
    nan_left: Array
    value: Array
    strict: bool = False

    @property
    def is_leaf(self) -> Array:
        """Which nodes are leaves, of shape (n_nodes,)."""
        leaf: Array = self.left < 0
        return leaf

    @property
    def ends(self) -> Array:
        """One beyond the last node of each tree."""
        return np.append(self.roots[1:], len(self.left))

    def block_ends(self, n_nodes: int) -> list[int]:
        """Where to cut so that each block has at most `n_nodes` nodes, if no tree has more."""
        ends, first = [], 0
        for i, end in enumerate(self.ends[1:], start=1):
            if end - self.roots[first] > n_nodes:
                ends.append(i)
                first = i
        return [*ends, len(self.roots)]

    def slice(self, first: int, last: int) -> Trees:
        """Trees `first` to `last` (exclusive), counted anew."""
        start, end = self.roots[first], self.ends[last - 1]
        nodes, shift = slice(start, end), start * ~self.is_leaf[start:end]
        return Trees(
            self.roots[first:last] - start, self.feature[nodes], self.left[nodes] - shift, self.right[nodes] - shift,
            self.threshold[nodes], self.nan_left[nodes], self.value[nodes], self.strict,
        )  # fmt: skip


@dataclass(frozen=True)
class Ensemble:
    """A classifier made of nothing but trees.

    Parameters
    ----------
    kind : {"forest", "boosted"}
        A forest's leaves hold the probabilities of all classes, and the mean over the trees is the answer. A boosted
        ensemble's leaves hold one number, added to the score of `target`, and `link` makes probabilities of scores.
    trees : Trees
    n_classes : int
    rounds : {None, "float32"}
        Whether features are rounded to float32 before they are compared with a threshold.
    target : ndarray of shape (n_trees,), int64, or None
        Score that each tree adds to, for a boosted ensemble.
    base : ndarray of shape (n_scores,), float64, or None
        Where the scores start.
    link : {"sigmoid", "softmax", "sigmoids"}, default "sigmoid"
        "sigmoids" is one sigmoid a class, each by itself (LightGBM's ``multiclassova``, which does not divide by their
        sum).
    slope : float, default 1.0
        What a score is multiplied with before its link.
    sums : {"float64", "float32"}, default "float64"
        What the library adds up in.
    """

    kind: Literal["forest", "boosted"]
    trees: Trees
    n_classes: int
    rounds: Literal["float32"] | None
    target: Array | None = None
    base: Array | None = None
    link: Literal["sigmoid", "softmax", "sigmoids"] = "sigmoid"
    slope: float = 1.0
    sums: Literal["float64", "float32"] = "float64"

    @property
    def is_pure(self) -> bool:
        """Whether every leaf holds one class alone, so that sums of them are whole numbers."""
        leaves = self.trees.value[self.trees.is_leaf]
        return self.kind == "forest" and bool(np.isin(leaves, (0.0, 1.0)).all())


def stack(trees: Iterable[Trees]) -> Trees:
    """Trees of several `Trees`, in their order."""
    parts = list(trees)
    starts = np.cumsum([0, *(len(part.left) for part in parts)])[:-1]

    def joined(values: Sequence[Array]) -> Array:
        return np.concatenate(values)

    return Trees(
        joined([p.roots + s for p, s in zip(parts, starts, strict=True)]),
        joined([p.feature for p in parts]),
        joined([np.where(p.is_leaf, -1, p.left + s) for p, s in zip(parts, starts, strict=True)]),
        joined([np.where(p.is_leaf, -1, p.right + s) for p, s in zip(parts, starts, strict=True)]),
        joined([p.threshold for p in parts]),
        joined([p.nan_left for p in parts]),
        joined([p.value for p in parts]),
        parts[0].strict,
    )


def constant(value: float) -> Trees:
    """One tree that is a leaf."""
    one = np.array([-1])
    return Trees(np.array([0]), one, one, one, np.zeros(1), np.zeros(1, dtype=bool), np.array([[value]]))
