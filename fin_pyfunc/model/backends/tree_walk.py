"""What `_trees.c` computes, in NumPy, for where that module cannot be imported: the same bits, more slowly."""

from __future__ import annotations

import ctypes
import ctypes.util
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from fin_pyfunc.model.tree_file import (
    AS_MISSING,
    AS_ZERO,
    CATEGORICAL,
    HIGH_LEFT,
    LOW_LEFT,
    NAN_LEFT,
    Trees,
)

Array = np.ndarray[Any, Any]

#: Walks, of a row through a tree, that run side by side.
_WALKS = 1 << 18
#: As in `_trees.c`.
_ZERO, _MAX_CATEGORY = float(np.float32(1e-35)), float(1 << 24)
#: src/common/math.h of XGBoost, Sigmoid.
_BOUND, _TINY = np.float32(88.7), np.float32(1e-16)


def sums(trees: Trees) -> Callable[[Array, Array], None]:
    """What writes the sums of the trees' leaves for each row; see `Trees.score` in `_trees.c`."""

    def score(X: Array, out: Array) -> None:
        step = max(1, _WALKS // len(trees.roots))
        for first in range(0, len(X), step):
            rows = _prepared(trees, X[first : first + step])
            _add_up(trees, rows, _leaves(trees, rows), out[first : first + step])

    return score


def link(scores: Array, which: int, single: bool) -> None:
    """Make probabilities of scores, in place; see `link` in `_trees.c`."""
    x = scores.astype(np.float32) if single else scores
    if which == 0:
        if single:
            x = np.float32(1) / (_expf(np.minimum(-x, _BOUND)) + np.float32(1) + _TINY)
        else:
            x = 1.0 / (1.0 + _exp(-x))
    elif scores.size:
        x = (_expf if single else _exp)(x - x.max(axis=1, keepdims=True))
        # one after the other, in float64
        total = np.add.accumulate(x.astype(np.float64), axis=1)[:, -1:]
        x = x / (total.astype(np.float32) if single else total)
    scores[:] = x


def _prepared(trees: Trees, X: Array) -> Array:
    """Rows as the trees take them."""
    rows = np.array(X, dtype=np.float64)
    if len(trees.codes):
        for j in np.flatnonzero(np.diff(trees.code_starts)):
            known = trees.codes[trees.code_starts[j] : trees.code_starts[j + 1]]
            at = np.searchsorted(known, rows[:, j]).clip(0, len(known) - 1)
            rows[:, j] = np.where(known[at] == rows[:, j], at, np.nan)
    if len(trees.zeros):
        is_zero = abs(rows) <= _ZERO
        rows[is_zero & (trees.zeros == AS_MISSING)] = np.nan
        rows[is_zero & (trees.zeros == AS_ZERO)] = 0.0
    if trees.arithmetic.rounds:
        with np.errstate(over="ignore"):
            rows = rows.astype(np.float32).astype(np.float64)
    if trees.arithmetic.missing is not None:
        rows[rows == trees.arithmetic.missing] = np.nan
    return rows


def _leaves(trees: Trees, rows: Array) -> Array:
    """The leaf, by its node, that each row ends in, of shape (n_rows, n_trees)."""
    at = np.tile(trees.roots, len(rows))
    row = np.repeat(np.arange(len(rows)), len(trees.roots))
    walking = np.flatnonzero(trees.left[at] >= 0)
    while len(walking):
        node = at[walking]
        value = rows[row[walking], trees.feature[node]]
        goes_left = ~(value > trees.threshold[node])
        by_category = (trees.flags[node] & CATEGORICAL) > 0
        if by_category.any():
            goes_left[by_category] = _by_category(trees, node[by_category], value[by_category])
        missing = np.isnan(value)
        goes_left[missing] = (trees.flags[node[missing]] & NAN_LEFT) > 0
        at[walking] = np.where(goes_left, trees.left[node], trees.right[node])
        walking = walking[trees.left[at[walking]] >= 0]
    return at.reshape(len(rows), len(trees.roots))


def _by_category(trees: Trees, node: Array, value: Array) -> Array:
    """Whether values go left at nodes that split on categories; of those that are missing, anything."""
    flags, split = trees.flags[node], trees.item[node]
    start, end = trees.category_starts[split], trees.category_starts[split + 1]
    low = ~(value > trees.threshold[node]) | (value >= _MAX_CATEGORY)
    inside = ~low & (value < 8 * (end - start))
    category = np.where(inside, value, 0).astype(np.int64)
    byte = np.append(trees.categories, 0).astype(np.uint8)[np.where(inside, start + category // 8, -1)]
    is_in: Array = (byte >> (category % 8).astype(np.uint8) & 1).astype(bool)
    return np.where(low, (flags & LOW_LEFT) > 0, np.where(inside, is_in, (flags & HIGH_LEFT) > 0))


def _add_up(trees: Trees, rows: Array, leaves: Array, out: Array) -> None:
    """Add what leaves are worth to the scores, in the order of the trees."""
    item, dtype = trees.item[leaves], trees.arithmetic.sums
    for score in range(len(trees.base)):
        column = score - trees.target
        adds = np.flatnonzero((column >= 0) & (column < trees.width))
        if len(trees.linear_starts):
            terms = _linear(trees, rows, item[:, adds])
        else:
            terms = trees.values[item[:, adds], column[adds]]
        base = np.full((len(rows), 1), trees.base[score])
        # accumulate, unlike sum, adds one after the other
        out[:, score] = np.add.accumulate(np.hstack([base, terms]).astype(dtype), axis=1)[:, -1]
    out /= trees.arithmetic.divisor


def _linear(trees: Trees, rows: Array, item: Array) -> Array:
    """What linear leaves add, of the shape of `item`."""
    total = trees.values[item, 0]
    start, count = trees.linear_starts[item], trees.linear_starts[item + 1] - trees.linear_starts[item]
    missing = np.zeros(item.shape, dtype=bool)
    for i in range(int(count.max(initial=0))):
        row, tree = np.nonzero(count > i)
        term = start[row, tree] + i
        value = rows[row, trees.linear_feature[term]]
        missing[row, tree] |= np.isnan(value)
        with np.errstate(all="ignore"):
            total[row, tree] += trees.linear_slope[term] * value
    return np.where(missing, trees.linear_missing[item], total)


def _exp(x: Array) -> Array:
    """The C library's exp, which NumPy's own differs from in the last bit."""
    return np.asarray(np.frompyfunc(_exp_of, 1, 1)(x)).astype(np.float64)


def _exp_of(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf


def _expf(x: Array) -> Array:
    """The C library's expf."""
    return np.asarray(np.frompyfunc(_expf_of(), 1, 1)(x)).astype(np.float32)


@cache
def _expf_of() -> Callable[[float], float]:
    path = ctypes.util.find_library("m")
    if path is None:
        return lambda x: float(np.float32(_exp_of(x)))
    expf: Any = ctypes.CDLL(path).expf
    expf.restype, expf.argtypes = ctypes.c_float, [ctypes.c_float]
    return lambda x: float(expf(x))
