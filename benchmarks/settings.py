"""One server with one setting or another, each started anew every round.

Two servers that are started alike differ by up to a tenth for as long as they run, by where their memory came to lie:
what a setting costs is less, and shows only over many starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from benchmarks.bench import Bench, turn
from benchmarks.contenders import Contender, serving
from benchmarks.drive import Found, drive

#: Times that each server of a round is driven; the middle one counts.
TURNS = 3


def side_by_side(bench: Bench, contenders: Sequence[Contender], connections: int) -> dict[str, list[Found]]:
    """Start all of them each round, the first one first and then the last one, and drive them in turns.

    Parameters
    ----------
    bench : Bench
        A server is driven for `bench.seconds` a round, in `TURNS` parts of a second at least.
    contenders : sequence of Contender
        Each serves the forest.
    connections : int

    Returns
    -------
    dict of str to list of Found
        A contender's name to what was found of it, one a round.
    """
    rows, expected = bench.models.records(), bench.models.expected("forest")
    found: dict[str, list[Found]] = {contender.name: [] for contender in contenders}
    for i in range(bench.rounds):
        print(f"  round {i + 1} of {bench.rounds}", flush=True)
        of_round: dict[str, list[Found]] = {contender.name: [] for contender in contenders}
        with contextlib.ExitStack() as stack:
            started = [
                (contender, stack.enter_context(serving(contender, bench.models, rows, expected)))
                for contender in turn(contenders, i)
            ]
            for k in range(TURNS):
                for contender, server in turn(started, k):
                    of_round[contender.name].append(
                        drive(
                            *(server.port, contender.path, contender.bodies(rows), connections),
                            *(max(1.0, bench.seconds / TURNS), contender.headers),
                        )
                    )
        for name, of in of_round.items():
            found[name].append(sorted(of, key=lambda one: one.rate)[TURNS // 2])
    return found
