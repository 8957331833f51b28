"""Timing calls within this process: each again and again for a block of time, the blocks alternating."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

#: Seconds of one block: long enough for caches to be warm, short beside what disturbs a machine.
BLOCK_SECONDS = 0.02


def median_seconds(call: Callable[[], Any], calls: int) -> float:
    """Median duration of a number of calls."""
    times = []
    for _ in range(calls):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def alternate(
    calls: Mapping[str, Callable[[int], Any]],
    rounds: int,
    block_seconds: float = BLOCK_SECONDS,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Median duration of each call in each of several blocks.

    Parameters
    ----------
    calls : mapping of str to callable
        Each is given the number of the call, so that it may take another row each time.
    rounds : int
        Blocks of each, taken in turn, forwards and backwards.
    block_seconds : float, default BLOCK_SECONDS
        A block holds one call at least.
    clock : callable, default time.perf_counter
        `time.thread_time` where the calls use one thread: what else runs on the machine is left out.

    Returns
    -------
    dict of str to list of float
        Seconds, one a round.
    """
    found: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(0)  # whatever is made at the first call
    for i in range(rounds):
        for name in list(calls) if i % 2 == 0 else list(calls)[::-1]:
            found[name].append(statistics.median(_block(calls[name], block_seconds, clock)))
    return found


def _block(call: Callable[[int], Any], seconds: float, clock: Callable[[], float]) -> list[float]:
    times: list[float] = []
    end = clock() + seconds
    while (start := clock()) < end or not times:
        call(len(times))
        times.append(clock() - start)
    return times
