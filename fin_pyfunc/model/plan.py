"""Which backend is the fastest for how many rows: worked out from measured times, and read by row count."""

from __future__ import annotations

import statistics
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

#: Row counts that are measured as far as the budget goes; in between, and beyond, time is taken to grow in a straight
#: line. Up to 100 rows a model's layout for many rows, which costs memory, stays unopened.
ROW_COUNTS = (1, 10, 100)
#: The same where a GPU is among them, whose time for few rows says nothing of many.
MANY_ROW_COUNTS = (*ROW_COUNTS, 1000, 10_000, 100_000)
#: A backend must be this much faster than one before it in the list to be chosen over it: a choice between equals
#: would follow the noise.
CLEARLY = 1.05
#: Where the times of two backends may cross, one backend is looked for at every this-many-th part more rows.
GRID = 1.05
MAX_ROWS = 10_000_000
#: Calls whose median counts as the time of one.
MOST_CALLS = 9

#: Seconds by rows.
Times = Mapping[int, float]


class Step(NamedTuple):
    """From this many rows on, this backend."""

    from_rows: int
    backend: str


class Plan:
    """Which backend computes how many rows.

    Parameters
    ----------
    times : mapping of str to mapping of int to float
        By backend, the one to prefer between equals first: seconds by rows, at least one each.
    """

    def __init__(self, times: Mapping[str, Times]) -> None:
        self.times = {name: dict(sorted(of.items())) for name, of in times.items()}
        self.steps = list(self._steps())
        self._starts = [step.from_rows for step in self.steps]

    def best(self, n_rows: int) -> str:
        """The backend for this many rows."""
        return self.steps[bisect_right(self._starts, max(n_rows, 1)) - 1].backend

    def seconds(self, backend: str, n_rows: int) -> float:
        """How long a backend is expected to take for this many rows."""
        known = self.times[backend]
        sizes = list(known)
        if n_rows <= sizes[0]:
            return known[sizes[0]]
        upper = bisect_right(sizes, n_rows)
        if len(sizes) == 1:
            return known[sizes[0]] * n_rows / sizes[0]
        if upper == len(sizes):
            low, high = sizes[-2], sizes[-1]
            # a noisy machine may have found more rows to take less; a tenth of the mean rate is little for any backend
            rate = max((known[high] - known[low]) / (high - low), known[high] / high / 10)
            return known[high] + rate * (n_rows - high)
        low, high = sizes[upper - 1], sizes[upper]
        return known[low] + (known[high] - known[low]) * (n_rows - low) / (high - low)

    def rows_within(self, seconds: float) -> int:
        """The most rows that are expected to be scored in so many seconds; 0 where not even one is."""
        n_rows = 0
        while n_rows < MAX_ROWS and self.seconds(self.best(n_rows + 1), n_rows + 1) <= seconds:
            n_rows = max(n_rows + 1, int(n_rows * GRID))
        return n_rows

    def _steps(self) -> Iterator[Step]:
        chosen, n_rows = "", 1
        while n_rows <= MAX_ROWS:
            best = ""
            for name in self.times:
                if not best or self.seconds(name, n_rows) * CLEARLY < self.seconds(best, n_rows):
                    best = name
            if best != chosen:
                chosen = best
                yield Step(n_rows, best)
            n_rows = max(n_rows + 1, int(n_rows * GRID))


def measure(score: Callable[[int], object], budget: float, row_counts: Sequence[int] = ROW_COUNTS) -> dict[int, float]:
    """Time a backend on growing row counts until the budget is spent.

    Parameters
    ----------
    score : callable
        Takes a row count and scores that many rows.
    budget : float
        Seconds for all of it. The first row count is always measured; a larger one only if it is expected to fit.
    row_counts : sequence of int

    Returns
    -------
    dict of int to float
        Median seconds by rows.
    """
    found: dict[int, float] = {}
    deadline = time.perf_counter() + budget
    score(row_counts[0])  # the first call pays for what is lazy in it
    for i, n_rows in enumerate(row_counts):
        left = deadline - time.perf_counter()
        if found and found[row_counts[i - 1]] * n_rows / row_counts[i - 1] > left:
            break
        calls: list[float] = []
        share = left / (len(row_counts) - i)
        # a second call where the first one fits twice: that may have had something to open, and says little
        while (
            not calls
            or (len(calls) == 1 and calls[0] < left - calls[0])
            or (len(calls) < MOST_CALLS and sum(calls) + calls[-1] < share)
        ):
            start = time.perf_counter()
            score(n_rows)
            calls.append(time.perf_counter() - start)
        found[n_rows] = statistics.median(calls[1:] or calls)
    return found
