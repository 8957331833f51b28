"""Point 1 and 7: one row a request, beside every other server of the same forest."""

from __future__ import annotations

import contextlib

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.contenders import BARE, EMPTY, MLFLOW, MLFLOW_NOTHING, MLFLOW_OURS, OURS, Contender, serving
from benchmarks.drive import Found, drive
from benchmarks.row import Row, ratios
from benchmarks.servers import Running

CONNECTIONS = (1, 16)
#: Those that are there for point 7 only.
_SEVENTH = (MLFLOW_OURS, MLFLOW_NOTHING)


def measure(bench: Bench) -> list[Row]:
    """All servers are started, then driven one after the other, in rounds; the others are idle meanwhile."""
    rows, expected = bench.models.records(), bench.models.expected("forest")
    found: dict[str, dict[int, list[Found]]] = {}
    with contextlib.ExitStack() as stack:
        started: list[tuple[Contender, Running]] = []
        for contender in _contenders(bench):
            print(f"  starting {contender.name}", flush=True)
            started.append((contender, stack.enter_context(serving(contender, bench.models, rows, expected))))
            found[contender.name] = {c: [] for c in CONNECTIONS}
        for i in range(bench.rounds):
            print(f"  round {i + 1} of {bench.rounds}", flush=True)
            for contender, server in turn(started, i):
                for c in CONNECTIONS:
                    one = drive(server.port, contender.path, contender.bodies(rows), c, bench.seconds)
                    found[contender.name][c].append(one)
    for c in CONNECTIONS:
        bench.latencies[c] = {name: _typical(of[c]) for name, of in found.items() if name not in _SEVENTH}
    return _rows(found)


def _contenders(bench: Bench) -> list[Contender]:
    from benchmarks.contenders import extras

    models = bench.models
    chosen = [
        contenders.ours(models.ours["forest"]),
        contenders.mlflow(models.theirs["forest"]),
        contenders.mlflow(models.ours["forest"], MLFLOW_OURS),
        contenders.mlflow(models.nothing, MLFLOW_NOTHING),
        contenders.bare(models),
        contenders.empty(),
    ]
    for name in bench.extras:
        try:
            print(f"  preparing {name}", flush=True)
            chosen.append(extras.prepare(name))
        except extras.NotToBeHadError as e:
            bench.left_out[name] = str(e)
    return chosen


def _typical(found: list[Found]) -> dict[float, float]:
    """The median of each percentile over the rounds."""
    return {p: Row(0, "", "", [one.latency[p] for one in found]).median for p in found[0].latency}


def _rows(found: dict[str, dict[int, list[Found]]]) -> list[Row]:
    rates = {name: [one.rate for one in of[16]] for name, of in found.items()}
    p50 = {name: [one.p50 for one in of[1]] for name, of in found.items()}
    lines = [
        Row(
            *(1, "requests/s at 16 connections, `/predict` to `mlflow models serve`", "×"),
            *(ratios(rates[OURS], rates[MLFLOW]), 200),
        ),
        Row(
            *(1, "requests/s at 16 connections, `/predict` to the bare one", "×"),
            *(ratios(rates[OURS], rates[BARE]), 0.75),
        ),
        Row(
            *(1, "p50 at 1 connection, `mlflow models serve` to `/predict`", "×"),
            *(ratios(p50[MLFLOW], p50[OURS]), 60),
        ),
        Row(
            *(7, "p50 at 1 connection, `mlflow models serve` on the `mlflow.sklearn` model to the same on ours", "×"),
            *(ratios(p50[MLFLOW], p50[MLFLOW_OURS]), 5),
        ),
        Row(
            *(7, "the same to a model that computes nothing: what MLflow itself leaves", "×"),
            ratios(p50[MLFLOW], p50[MLFLOW_NOTHING]),
        ),
    ]
    for name, of in found.items():
        point = 7 if name in _SEVENTH else 1
        note = "checks nothing" if name == BARE else "computes nothing" if name == EMPTY else ""
        lines += [
            Row(point, f"{name}: requests/s at 16 connections", "/s", rates[name], note=note),
            Row(point, f"{name}: p50 at 1 connection", "ms", p50[name], note=note),
            Row(point, f"{name}: p99 at 16 connections", "ms", [one.latency[99.0] for one in of[16]], note=note),
        ]
    return lines
