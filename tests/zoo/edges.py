"""Where an estimator's answer jumps, found by asking it: cutting between two rows, down to neighbouring floats.

It finds what no array shows: bin edges behind a scaler, thresholds of a tree behind a transformation, and the
boundary between two classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
#: Parts that what is between two values is cut into at a time, and how often until nothing is between them.
_PARTS, _MOST_CUTS = 8, 24


def edges(
    ask: Callable[[Array], Array], rows: Array, columns: list[int], n: int, seed: int = 0
) -> list[tuple[int, float]]:
    """Values of single features beside which the answer changes most.

    Parameters
    ----------
    ask : callable
        Matrix (n, n_features) to scores (n, k); asked some 20 times.
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
    low, high = base[np.arange(n), column], rows[rng.integers(len(rows), size=n), column]
    for _ in range(_MOST_CUTS):
        cuts = low + np.linspace(0, 1, _PARTS + 1)[:, None] * (high - low)
        cuts[0], cuts[-1] = low, high
        scores = _asked(ask, base, column, cuts)
        jumps = np.nan_to_num(np.abs(np.diff(scores, axis=0)).sum(axis=2))
        jumps[cuts[1:] == cuts[:-1]] = -1.0  # nothing is between these
        best = jumps.argmax(axis=0)
        left, right = cuts[best, np.arange(n)], cuts[best + 1, np.arange(n)]
        if ((left == low) & (right == high)).all():
            break
        low, high = left, right
    found = [(int(c), float(v)) for values in (low, high) for c, v in zip(column, values, strict=True)]
    return [(c, v) for c, v in found if np.isfinite(v)]


def _asked(ask: Callable[[Array], Array], base: Array, column: Array, cuts: Array) -> Array:
    """Scores of the rows with each of the cuts in their column, of shape (n_cuts, n, k)."""
    changed = np.repeat(base[None], len(cuts), axis=0)
    changed[:, np.arange(len(base)), column] = cuts
    scores = ask(changed.reshape(-1, base.shape[1]))
    return scores.reshape(len(cuts), len(base), -1)
