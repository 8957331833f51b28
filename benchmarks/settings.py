"""One server with one setting or another, each started anew every round.

Two servers that are started alike differ by up to a tenth for as long as they run, by where their memory came to lie:
what a setting costs is less, and shows only over many starts.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.bench import Bench, turn
from benchmarks.contenders import Contender, serving
from benchmarks.drive import Found, driving
from benchmarks.servers import processor_seconds

#: A server is driven for so long before it is another's turn: what this machine does beside changes slower than that.
WINDOW_SECONDS = 1.0
#: The fewest windows of a server and round.
TURNS = 3


class Window(NamedTuple):
    """One measurement of one server.

    Parameters
    ----------
    found : Found
    processor : float
        Microseconds of processor time that all of the server's processes took for a request.
    """

    found: Found
    processor: float


#: A contender's name to the windows of each round, the k-th of one beside the k-th of any other.
Windows = dict[str, list[list[Window]]]


def side_by_side(bench: Bench, contenders: Sequence[Contender], connections: int) -> Windows:
    """Start all of them each round, the first one first and then the last one, and drive them in turns.

    Parameters
    ----------
    bench : Bench
        A server is driven for `bench.seconds` a round, a window at a time, and `TURNS` windows at least.
    contenders : sequence of Contender
        Each serves the forest.
    connections : int
    """
    rows, expected = bench.models.records(), bench.models.expected("forest")
    found: Windows = {contender.name: [] for contender in contenders}
    for i in range(bench.rounds):
        print(f"  round {i + 1} of {bench.rounds}", flush=True)
        for contender in contenders:
            found[contender.name].append([])
        with contextlib.ExitStack() as stack:
            drives = []
            for contender in turn(contenders, i):
                server = stack.enter_context(serving(contender, bench.models, rows, expected))
                asked = server.port, contender.path, contender.bodies(rows), connections, WINDOW_SECONDS
                drives.append((contender.name, server.pid, driving(*asked, contender.headers)))
            for k in range(max(TURNS, round(bench.seconds / WINDOW_SECONDS))):
                for name, pid, drive in turn(drives, k):
                    before = processor_seconds(pid)
                    one = drive()
                    took = processor_seconds(pid) - before
                    found[name][i].append(Window(one, 1e6 * took / one.requests))
    return found


def medians(rounds: list[list[Window]], figure: Callable[[Window], float]) -> list[float]:
    """A figure of the median window of each round."""
    return [statistics.median(map(figure, windows)) for windows in rounds]


def beside(
    above: list[list[Window]], below: list[list[Window]], figure: Callable[[Window], float] = lambda w: w.found.rate
) -> list[float]:
    """The median of each round, of what a figure of one server is to that of another in the window beside it."""
    return [
        statistics.median(figure(a) / figure(b) for a, b in zip(*windows, strict=True))
        for windows in zip(above, below, strict=True)
    ]
