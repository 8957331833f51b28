"""What a shadow adds to the latency of the model that it shadows: off and on in turn, on one server."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence

import requests

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.contenders import serving
from benchmarks.drive import drive, percentiles
from benchmarks.http_client import HOST, request
from benchmarks.many import steadily
from benchmarks.row import Row, ratios

#: At most this times the 99th percentile without.
AT_MOST = 1.05
CONNECTIONS = 16
#: Of what one worker can do, how much is asked of it, and the most requests a second that our own client keeps up with.
LOAD, MAX_RATE = 0.5, 1500.0
#: Seconds for a switch to settle: what waited for the shadow is scored, or gone.
SETTLE_SECONDS = 2.0
#: The shadow by its name here, and the family of the model: one that is compiled, and one that never is.
SHADOWS = {"a compiled forest": "forest", "an estimator of milliseconds": "svc"}


def measure(bench: Bench) -> list[Row]:
    """The forest at half of what it can do at most, with and without each shadow of all of its requests."""
    models = bench.models
    rows, expected = models.records(), models.expected("forest")
    contender = contenders.ours(models.ours["forest"])
    measured: list[Row] = []
    with serving(contender, models, rows, expected) as server:
        sent = [request(contender.path, body) for body in contender.bodies(rows)]
        most = drive(server.port, contender.path, contender.bodies(rows), CONNECTIONS, bench.seconds).rate
        rate = min(most * LOAD, MAX_RATE)
        for name, family in SHADOWS.items():
            found: dict[bool, list[dict[float, float]]] = {False: [], True: []}
            seen: list[float] = []
            for i in range(bench.rounds):
                print(f"  {name} in the shadow, round {i + 1} of {bench.rounds}", flush=True)
                for is_on in turn([False, True], i):
                    before = _switch(server.port, models.ours[family] if is_on else None)
                    latencies = _latencies(server.port, sent, max(2.0, bench.seconds), rate)
                    found[is_on].append(percentiles(latencies))
                    if is_on:
                        after = _counts(server.port)
                        seen.append((after - before) / len(latencies))
            _switch(server.port, None)
            measured += _rows(name, found, seen)
    return [*measured, Row(0, "requests/s at which the shadow was measured", "/s", [rate])]


def _rows(name: str, found: dict[bool, list[dict[float, float]]], seen: list[float]) -> list[Row]:
    off, on = ([each[99.0] for each in found[is_on]] for is_on in (False, True))
    medians = ([each[50.0] for each in found[is_on]] for is_on in (True, False))
    what = f"with {name} in the shadow"
    return [
        Row(0, f"p99 {what} to without", "×", ratios(on, off), at_most=AT_MOST),
        Row(0, f"p50 {what} to without", "×", ratios(*medians)),
        Row(0, f"p99 {what}", "ms", on),
        Row(0, f"p99 without {name}", "ms", off),
        Row(0, f"rows compared, of those answered, {what}", "×", seen),
    ]


def _latencies(port: int, sent: Sequence[bytes], seconds: float, rate: float) -> list[float]:
    return asyncio.run(steadily(port, sent, seconds, [], rate)).latencies


def _switch(port: int, uri: str | None) -> float:
    """Put a model in the shadow, or none, and say how many rows were compared so far."""
    body = {"model_uri": uri, "share": 1.0}
    answered = requests.post(f"http://{HOST}:{port}/admin/shadow", json=body, timeout=60)
    if answered.status_code != 200:
        raise RuntimeError(f"the shadow could not be switched: {json.dumps(answered.json())}")
    time.sleep(SETTLE_SECONDS)
    return _counts(port)


def _counts(port: int) -> float:
    state = requests.get(f"http://{HOST}:{port}/admin/models", timeout=60).json()["shadow"]
    return float(state["agreed"] + sum(state["differed"].values()))
