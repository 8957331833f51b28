"""Point 5: estimators that cannot be compiled, asked for one row at a time by many; and pickles, in model hosts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.blocks import median_seconds
from benchmarks.contenders import MLFLOW, OURS, serving
from benchmarks.drive import drive
from benchmarks.row import Row, ratios

FAMILIES = {"svc": "SVC (RBF)", "knn": "k-nearest neighbours", "custom": "a custom object"}
CONNECTIONS = 32
#: Calls whose median is one round of the estimator itself.
CALLS = 200
OVER_MS = 2.0
HOSTED = "fin-pyfunc serve, a pickle in a model host"


def measure(bench: Bench) -> list[Row]:
    """Ours and `mlflow models serve`, both started, driven in turn."""
    lines: list[Row] = []
    for family, name in FAMILIES.items():
        print(f"  {name}", flush=True)
        lines += _family(bench, family, name)
    return lines


def _family(bench: Bench, family: str, name: str) -> list[Row]:
    models = bench.models
    rows, expected = models.records(), models.expected(family)
    own = _own_call(models.on_matrix(family), models.frame().to_numpy())
    rates: dict[str, list[float]] = {OURS: [], HOSTED: [], MLFLOW: []}
    p50: dict[str, list[float]] = {OURS: [], HOSTED: [], MLFLOW: []}
    alone: list[float] = []
    with contextlib.ExitStack() as stack:
        pickled = models.theirs[family]
        servers = (
            contenders.ours(models.ours[family]), contenders.ours(pickled, name=HOSTED), contenders.mlflow(pickled)
        )  # fmt: skip
        started = [(each, stack.enter_context(serving(each, models, rows, expected))) for each in servers]
        for i in range(bench.rounds):
            alone.append(median_seconds(own, CALLS) * 1e3)
            for contender, server in turn(started, i):
                bodies = contender.bodies(rows)
                many = drive(server.port, contender.path, bodies, CONNECTIONS, bench.seconds)
                rates[contender.name].append(many.rate)
                p50[contender.name].append(drive(server.port, contender.path, bodies, 1, bench.seconds).p50)
    over = [a - b for a, b in zip(p50[OURS], alone, strict=True)]
    what = f"requests/s at {CONNECTIONS} connections"
    return [
        Row(5, f"{name}: {what}, ours to `mlflow models serve`", "×", ratios(rates[OURS], rates[MLFLOW]), 15),
        Row(
            20,
            f"{name}: {what}, a pickle in a model host to `mlflow models serve`",
            "×",
            ratios(rates[HOSTED], rates[MLFLOW]),
            15,
        ),
        Row(5, f"{name}: p50 at 1 connection, over the estimator's own call", "ms", over, at_most=OVER_MS),
        *(Row(5, f"{name}: {what}, {server}", "/s", values) for server, values in rates.items()),
        *(Row(5, f"{name}: p50 at 1 connection, {server}", "ms", values) for server, values in p50.items()),
        Row(5, f"{name}: the estimator's own call on a one-row matrix", "ms", alone),
    ]


def _own_call(estimator: Any, matrix: np.ndarray) -> Callable[[], Any]:
    """The estimator on one row, another each time: its probabilities where it has them."""
    call = getattr(estimator, "predict_proba", estimator.predict)
    at = 0

    def one() -> Any:
        nonlocal at
        at = (at + 1) % len(matrix)
        return call(matrix[at : at + 1])

    return one
