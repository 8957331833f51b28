"""What a shadow adds to the latency of the model that it shadows, as two things that one window of requests shows.

Some requests meet the shadow's process at work: the others are what there would be without it. And requests that the
shadow sees come in slices, by chance between slices that it does not see: what the worker does to tell the shadow falls
into the former. Windows with a shadow beside windows without show less: what this machine does beside differs more.
"""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any, NamedTuple

import psutil

from benchmarks import contenders
from benchmarks.at_work import AtWork
from benchmarks.bench import Bench
from benchmarks.contenders import compact, serving
from benchmarks.drive import drive, percentiles
from benchmarks.http_client import request
from benchmarks.models import Models
from benchmarks.open_loop import steadily
from benchmarks.row import Row, ratios
from benchmarks.servers import Running
from fin_pyfunc.serving.admin.client import AdminConnection, find_socket

#: At most this times the 99th percentile without.
AT_MOST = 1.05
CONNECTIONS = 16
#: Of what one worker can do, how much is asked of it, and the most requests a second that our own client keeps up with.
LOAD, MAX_RATE = 0.5, 1500.0
#: Seconds of a window at least: the shadow may rest for three after it has scored 512 rows, and then nothing is seen.
WINDOW_SECONDS = 10.0
#: Seconds of a slice; and how much of its begin is left out, in which the worker still tells of the one before.
SLICE_SECONDS, TOLD_SECONDS = 0.2, 0.06
#: Seconds of the same load before a window, so that the shadow is at its work as it is in the middle of a day.
SETTLE_SECONDS = 2.0
#: The shadow by its name here, and the family of the model: none, for what such a comparison finds of nothing; one that
#: is compiled, and one that never is.
SHADOWS = {"nothing": None, "a compiled forest": "forest", "an estimator that is not compiled": "svc"}
#: One model by two names; the requests for one of them are seen.
NAME, SEEN, UNSEEN = "bench_shadowed", "seen", "free"


class _Window(NamedTuple):
    """Latencies, in seconds, of the requests of one round.

    Parameters
    ----------
    every, apart : list of float
        Of all, and of those that did not meet the shadow at work.
    seen, unseen : list of float
        Of those that it saw, and of the others, without the begin of each slice.
    part : float
        Of a processor that it took.
    compared : float
        Of the rows meant for it.
    """

    every: list[float]
    apart: list[float]
    seen: list[float]
    unseen: list[float]
    part: float
    compared: float


def measure(bench: Bench) -> list[Row]:
    """The forest at half of what it can do at most, each shadow seeing half of its requests."""
    models = bench.models
    rows, expected = models.records(), models.expected("forest")
    _name(models)
    contender = contenders.ours(models.ours["forest"])
    measured: list[Row] = []
    with serving(contender, models, rows, expected) as server:
        most = drive(server.port, contender.path, contender.bodies(rows), CONNECTIONS, bench.seconds).rate
        rate = min(most * LOAD, MAX_RATE)
        sent = {
            is_seen: [request(contender.path, compact({"model_uri": _uri(is_seen), "features": row})) for row in rows]
            for is_seen in (False, True)
        }
        for name, family in SHADOWS.items():
            windows = list[_Window]()
            for i in range(bench.rounds):
                print(f"  {name} in the shadow, round {i + 1} of {bench.rounds}", flush=True)
                _switch(server.port, family and models.ours[family])  # anew: what waited is dropped
                windows.append(_window(server, sent, max(bench.seconds, WINDOW_SECONDS), rate))
            measured += _rows(name, windows, is_there=family is not None)
    return [*measured, Row(0, "requests/s at which the shadow was measured", "/s", [rate])]


def _window(server: Running, sent: dict[bool, list[bytes]], seconds: float, rate: float) -> _Window:
    n = round(SLICE_SECONDS * rate)
    # by chance, lest the slices keep time with something else that comes and goes
    slices = random.sample([True, False] * round(seconds * rate / n / 2), k=2 * round(seconds * rate / n / 2))
    in_turn = [sent[is_seen][i % len(sent[is_seen])] for is_seen in slices for i in range(n)]
    with _at_work(server) as work:
        steadily(server.port, in_turn, SETTLE_SECONDS, rate)
        work.look()
        compared, before, began = _compared(server.port), work.seconds(), time.perf_counter()
        asked = steadily(server.port, in_turn, len(in_turn) / rate, rate, work.look)
        took = time.perf_counter() - began
        part, compared = (work.seconds() - before) / took, _compared(server.port) - compared
        asked.sort()
        of_slices: dict[bool, list[float]] = {True: [], False: []}
        for i, each in enumerate(asked):
            if i % n >= TOLD_SECONDS * rate:
                of_slices[slices[i // n]].append(each.seconds)
        return _Window(
            [each.seconds for each in asked],
            [each.seconds for each in asked if not work.met(each)],
            of_slices[True],
            of_slices[False],
            part,
            compared / (len(in_turn) / 2),
        )


def _rows(name: str, windows: Sequence[_Window], *, is_there: bool) -> list[Row]:
    what = f"with {name} in the shadow"
    every, apart = [each.every for each in windows], [each.apart for each in windows]
    seen, unseen = [each.seen for each in windows], [each.unseen for each in windows]
    together = [_of_each([list(chain.from_iterable(each))])[0] for each in (seen, unseen)]
    to_apart = ratios(_of_each(every), _of_each(apart))
    met = [100 - 100 * len(few) / len(all_) for few, all_ in zip(apart, every, strict=True)]
    of_process = [
        Row(0, f"p99 {what} to that of requests that did not meet it at work", "×", to_apart, at_most=AT_MOST),
        Row(0, f"requests that met it at work, {what}", "%", met),
        Row(0, f"part of a processor {what}", "", [each.part for each in windows]),
        Row(0, f"rows compared, of those meant for it, {what}", "×", [each.compared for each in windows]),
    ]
    return [
        *(of_process if is_there else []),
        Row(0, f"p99 {what}, requests that it sees to others", "×", ratios(_of_each(seen), _of_each(unseen))),
        Row(0, f"p99 {what}, requests that it sees to others, all together", "×", [together[0] / together[1]]),
        Row(0, f"p50 {what}, requests that it sees to others", "×", ratios(_of_each(seen, 50), _of_each(unseen, 50))),
        Row(0, f"p99 {what}", "ms", _of_each(every)),
    ]


def _of_each(latencies: Sequence[Sequence[float]], percentile: float = 99) -> list[float]:
    """The percentile of each window, in ms."""
    return [percentiles(each)[percentile] for each in latencies]


@contextlib.contextmanager
def _at_work(server: Running) -> Iterator[AtWork]:
    """The shadow's process, or, where there is none, one that does nothing."""
    processes = psutil.Process(server.pid).children(recursive=True)
    shadows = [each for each in processes if "fin_pyfunc.serving.motion.shadow" in each.cmdline()]
    shadows.sort(key=psutil.Process.create_time)  # one that has just been ended may still be there
    idle = None if shadows else subprocess.Popen(["sleep", "infinity"])
    work = AtWork(shadows[-1].pid if idle is None else idle.pid)
    try:
        yield work
    finally:
        work.close()
        if idle is not None:
            idle.kill()
            idle.wait()


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
    _ask_admin(port, "/admin/shadow", body)


def _compared(port: int) -> float:
    """Rows compared so far."""
    state = _ask_admin(port, "/admin/models")["shadow"]
    return float(state["agreed"] + sum(state["differed"].values()))


def _ask_admin(port: int, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Ask a server by its admin socket: GET, or POST if there is a body."""
    connection = AdminConnection(find_socket(port), timeout=60.0)
    sent = None if body is None else json.dumps(body)
    connection.request("GET" if body is None else "POST", path, sent, {"Content-Type": "application/json"})
    answered = connection.getresponse()
    said: dict[str, Any] = json.loads(answered.read())
    connection.close()
    if answered.status != 200:
        raise RuntimeError(f"{path} answered {answered.status}: {said}")
    return said
