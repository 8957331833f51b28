"""What looking on costs: the same server with nothing that looks on, with metrics, and with JSON logs beside them."""

from __future__ import annotations

import contextlib

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.contenders import Contender, serving
from benchmarks.drive import drive
from benchmarks.row import Row
from benchmarks.servers import Running

CONNECTIONS = 16
#: What is on, by name; the first is what the others are compared with. All of them are one server, on one model.
WATCHED: dict[str, dict[str, str]] = {
    "nothing": {"FIN_PYFUNC__METRICS__ENABLED": "false"},
    "metrics": {"FIN_PYFUNC__METRICS__ENABLED": "true"},
    "metrics and JSON logs": {"FIN_PYFUNC__METRICS__ENABLED": "true", "FIN_PYFUNC__LOG_FORMAT": "json"},
}
#: How much of the throughput each may cost, of what is left without it.
AT_MOST = {"metrics and JSON logs": 0.08}
#: Throughput swings by more than what is looked for from one second to the next, so that many short turns tell more
#: than a few long ones.
TURNS = 4


def measure(bench: Bench) -> list[Row]:
    """All servers are started, then driven in turns, each of which ends where the one before began."""
    rows, expected = bench.models.records(), bench.models.expected("forest")
    rates: dict[str, list[float]] = {name: [] for name in WATCHED}
    with contextlib.ExitStack() as stack:
        started: list[tuple[str, Contender, Running]] = []
        for name, environ in WATCHED.items():
            contender = contenders.ours(bench.models.ours["forest"], name=f"with {name}", environ=environ)
            started.append((name, contender, stack.enter_context(serving(contender, bench.models, rows, expected))))
        for i in range(bench.rounds * TURNS):
            for name, contender, server in turn(started, i):
                found = drive(server.port, contender.path, contender.bodies(rows), CONNECTIONS, bench.seconds / TURNS)
                rates[name].append(found.rate)
    return _rows(rates)


def _rows(rates: dict[str, list[float]]) -> list[Row]:
    bare, *watched = WATCHED
    lines = [
        Row(0, f"requests/s at {CONNECTIONS} connections, {name} looking on", "/s", rates[name]) for name in WATCHED
    ]
    for name in watched:
        lost = [1 - with_it / without for with_it, without in zip(rates[name], rates[bare], strict=True)]
        lines.append(Row(0, f"part of the throughput that {name} cost", "", lost, at_most=AT_MOST.get(name)))
    return lines
