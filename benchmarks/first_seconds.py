"""Issue 22, item 4: latency in the first seconds after a server is ready, against the next ones."""

from __future__ import annotations

import asyncio
import itertools
from typing import NamedTuple

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.contenders import EMPTY, OURS, Contender, verify
from benchmarks.drive import percentiles
from benchmarks.http_client import load, request
from benchmarks.row import Row, ratios
from benchmarks.servers import environment, free_port, running

SECONDS = 5.0
AT_MOST = 2.0
FOLDER = f"{OURS}, a model folder"
STORE = f"{OURS}, an SQLite store"
TWO = f"{OURS}, an SQLite store, 2 workers"


class Found(NamedTuple):
    """Of one start: seconds to the first answer, and percentiles of latency in ms, in the first seconds and after."""

    start_up: float
    first: dict[float, float]
    then: dict[float, float]


def measure(bench: Bench) -> list[Row]:
    """Start each server in turn, and ask it over one connection from its first answer on."""
    models = bench.models
    chosen = [
        contenders.ours(str(models.saved), name=FOLDER),
        contenders.ours(models.ours["forest"], name=STORE),
        contenders.ours(models.ours["forest"], workers=2, name=TWO),
        contenders.empty(),
    ]
    found: dict[str, list[Found]] = {contender.name: [] for contender in chosen}
    for i in range(bench.rounds):
        print(f"  first seconds, round {i + 1} of {bench.rounds}", flush=True)
        for contender in turn(chosen, i):
            found[contender.name].append(_started(contender, bench))
    return [row for name, of in found.items() for row in _rows(name, of)]


def _started(contender: Contender, bench: Bench) -> Found:
    """Nothing is asked between the first answer and the measurement; the answers are verified afterwards."""
    models, port = bench.models, free_port()
    bodies = contender.bodies(models.records())
    sent = [request(contender.path, body) for body in bodies]
    environ = environment(models.tracking_uri, contender.environ)
    with running(contender.command(port), port, sent[0], environ, contender.name) as server:
        latencies = asyncio.run(load(port, sent, 1, 2 * SECONDS)).latencies
        verify(contender, port, bodies, models.expected("forest"))
    # one connection asks again as soon as it is answered, so that a latency's place in time is the sum before it
    n_first = sum(1 for at in itertools.accumulate(latencies) if at <= SECONDS)
    return Found(server.start_up, percentiles(latencies[:n_first]), percentiles(latencies[n_first:]))


def _rows(name: str, found: list[Found]) -> list[Row]:
    first, then = ([getattr(one, when)[99.0] for one in found] for when in ("first", "then"))
    most = None if name == EMPTY else AT_MOST
    what = f"{name}, 1 connection: p99 of the first {SECONDS:g} s after its first answer"
    return [
        Row(4, f"{what}, to that of the next {SECONDS:g} s", "×", ratios(first, then), at_most=most),
        Row(4, what, "ms", first),
        Row(4, f"{name}, 1 connection: p99 of the next {SECONDS:g} s", "ms", then),
        *(
            Row(4, f"{name}, 1 connection: p50 of the {words} {SECONDS:g} s", "ms", [of[50.0] for of in values])
            for words, values in (("first", [one.first for one in found]), ("next", [one.then for one in found]))
        ),
        Row(4, f"{name}: start to first answer", "s", [one.start_up for one in found]),
    ]
