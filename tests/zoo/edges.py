"""Where an estimator's answer jumps, found by asking it: bisection between two rows, down to neighbouring floats.

It finds what no array shows: bin edges behind a scaler, thresholds of a tree behind a transformation, and the
boundary between two classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: Halvings until two float64 numbers of the same size are neighbours, and a few more.
_HALVINGS = 60


def edges(
    ask: Callable[[Array], Array], rows: Array, columns: list[int], n: int, seed: int = 0
) -> list[tuple[int, float]]:
    """Values of single features beside which the answer changes most.

    Parameters
    ----------
    ask : callable
        Matrix (n, n_features) to scores (n, k); asked 60 times, of n rows each.
    rows : ndarray of shape (n_rows, n_features), float64
    columns : list of int
        Features to look at.
    n : int
        How many to find.

    Returns
    -------
    list of (int, float)
        Column and value; on both sides of an edge.
    """
    if not columns:
        return []
    rng = np.random.default_rng(seed)
    base = rows[rng.integers(len(rows), size=n)].copy()
    column = np.asarray(columns)[np.arange(n) % len(columns)]
    at = np.arange(n)
    low, high = base[at, column], rows[rng.integers(len(rows), size=n), column]
    below, above = _asked(ask, base, column, low), _asked(ask, base, column, high)
    for _ in range(_HALVINGS):
        middle = low + (high - low) / 2
        if ((middle == low) | (middle == high)).all():
            break
        between = _asked(ask, base, column, middle)
        left, right = (np.nan_to_num(np.abs(between - of).sum(axis=1)) for of in (below, above))
        goes_left = left >= right
        low, high = np.where(goes_left, low, middle), np.where(goes_left, middle, high)
        below = np.where(goes_left[:, None], below, between)
        above = np.where(goes_left[:, None], between, above)
    found = [(int(c), float(v)) for values in (low, high) for c, v in zip(column, values, strict=True)]
    return [(c, v) for c, v in found if np.isfinite(v)]


def _asked(ask: Callable[[Array], Array], base: Array, column: Array, values: Array) -> Array:
    changed = base.copy()
    changed[np.arange(len(base)), column] = values
    return ask(changed)
