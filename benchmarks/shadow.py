"""What a shadow adds to the latency of the model that it shadows: while it sees the requests and while it does not."""

from __future__ import annotations

import json
import statistics
import time
from itertools import chain

import requests

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.contenders import compact, serving
from benchmarks.drive import drive, percentiles
from benchmarks.http_client import HOST, request
from benchmarks.models import Models
from benchmarks.open_loop import steadily
from benchmarks.row import Row, ratios

#: At most this times the 99th percentile without.
AT_MOST = 1.05
CONNECTIONS = 16
#: Of what one worker can do, how much is asked of it, and the most requests a second that our own client keeps up with.
LOAD, MAX_RATE = 0.5, 1500.0
#: A round is made of windows of so many seconds, seen and unseen in turn, some looks of the shadow's into its pipe long.
WINDOW_SECONDS = 2.0
#: Seconds of the same load before each, so that the shadow is at its work as it is in the middle of a day.
SETTLE_SECONDS = 1.0
#: Rows that may wait for the shadow: so few that it is done with them before the window that it does not see.
MAX_ROWS = "500"
#: The shadow by its name here, and the family of the model: none, for what such a comparison finds of nothing; one that
#: is compiled, and one that never is.
SHADOWS = {"nothing": None, "a compiled forest": "forest", "an estimator that is not compiled": "svc"}
#: One model by two names; the requests for one of them are seen.
NAME, SEEN, UNSEEN = "bench_shadowed", "seen", "free"


def measure(bench: Bench) -> list[Row]:
    """The forest at half of what it can do at most, with and without each shadow of all of its requests."""
    models = bench.models
    rows, expected = models.records(), models.expected("forest")
    _name(models)
    contender = contenders.ours(models.ours["forest"], environ={"FIN_PYFUNC__SHADOW__MAX_ROWS": MAX_ROWS})
    measured: list[Row] = []
    with serving(contender, models, rows, expected) as server:
        most = drive(server.port, contender.path, contender.bodies(rows), CONNECTIONS, bench.seconds).rate
        rate = min(most * LOAD, MAX_RATE)
        sent = {
            is_seen: [request(contender.path, compact({"model_uri": _uri(is_seen), "features": row})) for row in rows]
            for is_seen in (False, True)
        }
        for name, family in SHADOWS.items():
            _switch(server.port, family and models.ours[family])
            found: dict[bool, list[list[list[float]]]] = {False: [], True: []}
            compared: list[float] = []
            for i in range(bench.rounds):
                print(f"  {name} in the shadow, round {i + 1} of {bench.rounds}", flush=True)
                before = _counts(server.port)
                of_round = _round(server.port, sent, bench.seconds, rate)
                for is_seen, windows in of_round.items():
                    found[is_seen].append(windows)
                meant = sum(map(len, of_round[True])) * (1 + SETTLE_SECONDS / WINDOW_SECONDS)
                compared.append((_counts(server.port) - before) / meant)
            measured += _rows(name, found, compared if family else [])
    return [*measured, Row(0, "requests/s at which the shadow was measured", "/s", [rate])]


def _round(port: int, sent: dict[bool, list[bytes]], seconds: float, rate: float) -> dict[bool, list[list[float]]]:
    """Latencies of each window of one round, by whether the shadow saw the requests."""
    latencies: dict[bool, list[list[float]]] = {False: [], True: []}
    for k in range(max(2, round(seconds / WINDOW_SECONDS))):
        for is_seen in turn([False, True], k):
            steadily(port, sent[is_seen], SETTLE_SECONDS, rate)
            latencies[is_seen].append(steadily(port, sent[is_seen], WINDOW_SECONDS, rate))
            _counts(port)  # until it has nothing left to do
    return latencies


def _rows(name: str, found: dict[bool, list[list[list[float]]]], compared: list[float]) -> list[Row]:
    """What came of all rounds, each of them windows of latencies, by whether the shadow saw the requests."""
    what = f"with {name} in the shadow"
    rounds = {is_seen: [list(chain.from_iterable(windows)) for windows in of] for is_seen, of in found.items()}
    p99 = {is_seen: [percentiles(of)[99.0] for of in rounds[is_seen]] for is_seen in rounds}
    whole = [percentiles(list(chain.from_iterable(rounds[is_seen])))[99.0] for is_seen in (True, False)]
    return [
        Row(0, f"p99 {what} to without", "×", _beside(found, 99.0), at_most=AT_MOST if compared else None),
        Row(0, f"p50 {what} to without", "×", _beside(found, 50.0)),
        Row(0, f"p99 of whole rounds {what} to without", "×", ratios(p99[True], p99[False])),
        Row(0, f"p99 of all rounds together {what} to without", "×", [whole[0] / whole[1]]),
        Row(0, f"p99 of whole rounds {what}", "ms", p99[True]),
        Row(0, f"p99 of whole rounds without {name}", "ms", p99[False]),
        *([Row(0, f"rows compared, of those meant for it, {what}", "×", compared)] if compared else []),
    ]


def _beside(found: dict[bool, list[list[list[float]]]], percentile: float) -> list[float]:
    """The median of each round, of what a percentile is to that of the window beside it, which the shadow did not see.

    A window in which the machine did something else for 10 ms says nothing of the shadow, and is one of many.
    """
    return [
        statistics.median(
            percentiles(seen)[percentile] / percentiles(unseen)[percentile]
            for seen, unseen in zip(*windows, strict=True)
        )
        for windows in zip(found[True], found[False], strict=True)
    ]


def _uri(is_seen: bool) -> str:
    return f"models:/{NAME}@{SEEN if is_seen else UNSEEN}"


def _name(models: Models) -> None:
    """Register the forest by two aliases, if it is not yet."""
    import mlflow

    mlflow.set_tracking_uri(models.tracking_uri)
    client = mlflow.MlflowClient()
    if client.search_model_versions(f"name = '{NAME}'"):
        return  # an earlier run's, in the same folder
    version = mlflow.register_model(models.ours["forest"], NAME).version
    for alias in (SEEN, UNSEEN):
        client.set_registered_model_alias(NAME, alias, version)


def _switch(port: int, uri: str | None) -> None:
    """Put a model in the shadow of one of the two names, or none."""
    body = {"model_uri": uri, "share": 1.0, "of": _uri(True)}
    answered = requests.post(f"http://{HOST}:{port}/admin/shadow", json=body, timeout=60)
    if answered.status_code != 200:
        raise RuntimeError(f"the shadow could not be switched: {json.dumps(answered.json())}")


def _counts(port: int) -> float:
    """Rows compared so far, once none waits."""
    deadline = time.monotonic() + 10
    while True:
        state = requests.get(f"http://{HOST}:{port}/admin/models", timeout=60).json()["shadow"]
        if not state["waiting"] or time.monotonic() > deadline:
            return float(state["agreed"] + sum(state["differed"].values()))
        time.sleep(0.1)
