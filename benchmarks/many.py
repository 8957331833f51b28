"""Point 8: twenty models through one cache, and one model's latency while others are being loaded."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.contenders import OURS, compact, serving
from benchmarks.drive import Found, drive, percentiles
from benchmarks.http_client import TIMEOUT, Connection, request, tasks
from benchmarks.models import N_SMALL
from benchmarks.row import Row, ratios

CONNECTIONS = 16
#: Requests a second of the model whose latency is measured while others load.
RATE = 200.0
OVER_MS = 10.0


def measure(bench: Bench) -> list[Row]:
    """Both questions, each on a server of its own."""
    return [*_in_turn(bench), *_while_loading(bench)]


def _in_turn(bench: Bench) -> list[Row]:
    """One server with a cache of 20 and no default model: one model, and all in turn."""
    models = bench.models
    rows = models.records()
    contender = contenders.ours(None, environ={"FIN_PYFUNC__CACHE__MAX_MODELS": str(N_SMALL)})
    # every model on every row, and one model on the same rows as often: no model is asked the same row twice running,
    # which the processor's caches and branch prediction would answer for it (28 µs a row instead of 51, `micro`)
    every = [_body(uri, row) for row in rows for uri in models.small]
    one = [_body(models.small[0], row) for _ in models.small for row in rows]
    found: dict[str, list[Found]] = {"one": [], "every": []}
    with _without_default(bench, contender) as port:
        for i in range(bench.rounds):
            print(f"  twenty models, round {i + 1} of {bench.rounds}", flush=True)
            for name in turn(list(found), i):
                bodies = one if name == "one" else every
                found[name].append(drive(port, contender.path, bodies, CONNECTIONS, bench.seconds))
    rates = {name: [each.rate for each in of] for name, of in found.items()}
    what = f"requests/s at {CONNECTIONS} connections"
    return [
        Row(8, f"{what}, {N_SMALL} models in turn to one model", "×", ratios(rates["every"], rates["one"]), 0.9),
        Row(8, f"{what}, {N_SMALL} models in turn", "/s", rates["every"]),
        Row(8, f"{what}, one of them", "/s", rates["one"]),
    ]


@contextlib.contextmanager
def _without_default(bench: Bench, contender: contenders.Contender) -> Iterator[int]:
    """A server that each request names a model to, all of which it has answered for."""
    models = bench.models
    first = contender._replace(body=lambda row: _body(models.small[0], row), prediction=None)
    with serving(first, models, models.records(1), [None]) as server:
        for uri in models.small:
            asyncio.run(_ask(server.port, [_body(uri, row) for row in models.records(8)]))
        yield server.port


def _body(uri: str, row: dict[str, float]) -> bytes:
    return compact({"model_uri": uri, "features": row})


async def _ask(port: int, bodies: Sequence[bytes]) -> None:
    """Ask once each.

    Raises
    ------
    RuntimeError
        An answer was not 200.
    """
    connection = Connection(port)
    try:
        for body in bodies:
            status, answer = await connection.ask(request("/predict", body))
            if status != 200:
                raise RuntimeError(f"{OURS} answered {status}: {answer[:200].decode(errors='replace')}")
    finally:
        connection.close()


class Steady(NamedTuple):
    """Latencies, in seconds, of requests at a steady rate, and how many other models were loaded meanwhile."""

    latencies: list[float]
    loads: int


def _while_loading(bench: Bench) -> list[Row]:
    """The forest asked at a steady rate, by itself and while a cache of one is asked for the small ones in turn."""
    models = bench.models
    rows, expected = models.records(), models.expected("forest")
    contender = contenders.ours(models.ours["forest"], environ={"FIN_PYFUNC__CACHE__MAX_MODELS": "1"})
    seconds = max(2.0, bench.seconds)
    quiet: list[float] = []
    loading: list[float] = []
    loads: list[float] = []
    with serving(contender, models, rows, expected) as server:
        sent = [request(contender.path, body) for body in contender.bodies(rows)]
        others = [_body(uri, rows[0]) for uri in models.small]
        for i in range(bench.rounds):
            print(f"  latency while models load, round {i + 1} of {bench.rounds}", flush=True)
            for is_quiet in turn([True, False], i):
                steady = asyncio.run(steadily(server.port, sent, seconds, [] if is_quiet else others))
                (quiet if is_quiet else loading).append(percentiles(steady.latencies)[99.0])
                if not is_quiet:
                    loads.append(steady.loads / seconds)
    over = [a - b for a, b in zip(loading, quiet, strict=True)]
    what = f"p99 of one model at {RATE:g} requests/s"
    return [
        Row(8, f"{what}, while others load, over the same without", "ms", over, at_most=OVER_MS),
        Row(8, f"{what}, nothing else", "ms", quiet),
        Row(8, f"{what}, while others load", "ms", loading),
        Row(8, "models loaded meanwhile", "/s", loads),
    ]


async def steadily(
    port: int, sent: Sequence[bytes], seconds: float, others: Sequence[bytes], rate: float = RATE
) -> Steady:
    """Ask at a steady rate, whether or not earlier requests are answered yet.

    Parameters
    ----------
    port : int
    sent : sequence of bytes
        Whole requests, sent in turn.
    seconds : float
    others : sequence of bytes
        Bodies that are asked one after the other over a connection of their own until the time is up.
    rate : float, default RATE
        Requests a second.

    Raises
    ------
    RuntimeError
        An answer was not 200.
    """
    free: list[Connection] = []
    latencies: list[float] = []
    loads = 0
    start = time.perf_counter()

    async def ask_one(i: int) -> None:
        connection = free.pop() if free else Connection(port)
        began = time.perf_counter()
        status, _ = await connection.ask(sent[i % len(sent)])
        latencies.append(time.perf_counter() - began)
        free.append(connection)
        if status != 200:
            raise RuntimeError(f"{OURS} answered {status} while other models were loading")

    async def ask_others() -> None:
        nonlocal loads
        while others and time.perf_counter() < start + seconds:
            await _ask(port, [others[loads % len(others)]])
            loads += 1

    try:
        async with tasks(seconds + TIMEOUT) as group:
            group.create_task(ask_others())
            for i in range(int(seconds * rate)):
                await asyncio.sleep(max(0.0, start + i / rate - time.perf_counter()))
                group.create_task(ask_one(i))
    finally:
        for connection in free:
            connection.close()
    return Steady(latencies, loads)
