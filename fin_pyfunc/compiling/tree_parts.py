"""Single trees as a library holds them, and many of them laid out as `Trees` has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fin_pyfunc.model.tree_file import CATEGORICAL, NAN_LEFT

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Split:
    """How a node splits on categories.

    Parameters
    ----------
    goes_left : ndarray of shape (n_bytes,), uint8
        A bit a category, the lowest one first.
    flags : int
        Of `LOW_LEFT` and `HIGH_LEFT`.
    low : float
        A value that is not greater is below all categories.
    """

    goes_left: Array
    flags: int
    low: float


@dataclass(frozen=True)
class Tree:
    """One tree, an item a node, its root first.

    Parameters
    ----------
    left, right : ndarray of shape (n_nodes,)
        Negative at a leaf.
    feature, threshold, nan_left : ndarray of shape (n_nodes,)
        As `Trees` has them; anything at a leaf.
    value : ndarray of shape (n_nodes, width)
        Of the leaves; anything at a branch.
    splits : dict of int to Split
        By node, where it splits on categories.
    """

    left: Array
    right: Array
    feature: Array
    threshold: Array
    nan_left: Array
    value: Array
    splits: dict[int, Split] = field(default_factory=dict)


def stacked(trees: Sequence[Tree]) -> dict[str, Array]:
    """The arrays of `Trees` that lay these one after the other; leaves are numbered in their order."""
    sizes = [len(tree.left) for tree in trees]
    starts = np.cumsum([0, *sizes])[:-1]
    start = np.repeat(starts, sizes)

    def joined(name: str) -> Array:
        return np.concatenate([getattr(tree, name) for tree in trees])

    leaf = joined("left") < 0
    values, item = _rows(joined("value"), leaf)
    splits = {int(first) + node: split for first, tree in zip(starts, trees, strict=True)
              for node, split in tree.splits.items()}  # fmt: skip
    nodes = np.array(list(splits), dtype=np.int64)
    threshold = np.where(leaf, 0.0, joined("threshold").astype(np.float64))
    flags = np.where(joined("nan_left").astype(bool) & ~leaf, NAN_LEFT, 0)
    threshold[nodes] = [split.low for split in splits.values()]
    flags[nodes] |= np.array([CATEGORICAL | split.flags for split in splits.values()], dtype=flags.dtype)
    item[nodes] = np.arange(len(nodes))
    bits = [split.goes_left for split in splits.values()]
    return {
        "roots": starts, "left": np.where(leaf, -1, joined("left") + start),
        "right": np.where(leaf, -1, joined("right") + start), "feature": np.where(leaf, 0, joined("feature")),
        "threshold": threshold, "flags": flags.astype(np.uint8), "item": item, "values": values,
        "category_starts": np.cumsum([0, *map(len, bits)]),
        "categories": np.concatenate([np.zeros(0, np.uint8), *bits]),
    }  # fmt: skip


def _rows(value: Array, leaf: Array) -> tuple[Array, Array]:
    """What leaves add, as rows of scores, and which of them each node adds (0 at a branch)."""
    values, item = value[leaf].astype(np.float64), np.zeros(len(leaf), dtype=np.int64)
    width = values.shape[1]
    if width > 1 and np.isin(values, (0.0, 1.0)).all() and (values.sum(axis=1) == 1).all():
        item[leaf] = values.argmax(axis=1)  # few rows stay in the nearest cache
        return np.eye(width), item
    item[leaf] = np.arange(len(values))
    return values, item
