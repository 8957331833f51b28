"""How long so many rows take."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from fin_pyfunc.compiling.trees import Array

#: Row counts that are timed, and the seconds that all of them may take together.
ROW_COUNTS = (1, 10, 100, 1000, 10_000)
BUDGET = 0.25
_MAX_RUNS = 7


def seconds(run: Callable[[Array], Any], rows: Array, counts: tuple[int, ...] = ROW_COUNTS) -> dict[int, float]:
    """Median seconds of a few runs at each row count, never the same rows twice in turn.

    Parameters
    ----------
    run : callable
        Takes a matrix (n, n_features).
    rows : ndarray of shape (n_rows, n_features), float64
    counts : tuple of int
    """
    found: dict[int, float] = {}
    order = np.random.default_rng(0).permutation(len(rows))
    for count in counts:
        until = time.perf_counter() + BUDGET / len(counts)
        if found and max(found.values()) * count / max(found) > 4 * BUDGET:
            break  # what this many rows take is known well enough from fewer
        run(rows[np.resize(order, count)])  # the first one opens what is opened once
        taken: list[float] = []
        while not taken or (len(taken) < _MAX_RUNS and time.perf_counter() < until):
            order = np.roll(order, count + 1)
            matrix = rows[np.resize(order, count)]
            start = time.perf_counter()
            run(matrix)
            taken.append(time.perf_counter() - start)
        found[count] = median(taken)
    return found
