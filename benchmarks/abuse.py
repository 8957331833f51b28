"""How long the others wait while somebody means harm: the p99 of a steady caller, beside that of a quiet server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.drive import percentiles
from benchmarks.http_client import HOST, request
from benchmarks.many import steadily
from benchmarks.row import Row, ratios

#: The others may wait this many times as long as on a quiet server.
AT_MOST = 2.0
IDLE = 1000
QUIET = "quiet"
HEAD = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"

Harm = Callable[[int, threading.Event], None]


def measure(bench: Bench) -> list[Row]:
    """One server of default settings; each harm in turn, beside a steady caller."""
    models = bench.models
    rows, expected = models.records(), models.expected("forest")
    found: dict[str, list[float]] = {name: [] for name in (QUIET, *HARMS)}
    contender = contenders.ours(models.ours["forest"])
    with contenders.serving(contender, models, rows, expected) as server:
        sent = [request(contender.path, body) for body in contender.bodies(rows)]
        for i in range(bench.rounds):
            print(f"  round {i + 1} of {bench.rounds}", flush=True)
            for name in turn(list(found), i):
                with _harmed(server.port, HARMS.get(name)):
                    steady = asyncio.run(steadily(server.port, sent, max(2.0, bench.seconds), []))
                found[name].append(percentiles(steady.latencies)[99.0])
    lines = [
        Row(10, f"p99 of the others with {name}, to a quiet one", "×", ratios(of, found[QUIET]), at_most=AT_MOST)
        for name, of in found.items()
        if name != QUIET
    ]
    return lines + [Row(10, f"p99 of the others, {name}", "ms", of) for name, of in found.items()]


@contextlib.contextmanager
def _harmed(port: int, harm: Harm | None) -> Iterator[None]:
    stop = threading.Event()
    # a process of its own, so that it does not hold up the caller that is measured
    pid = 0 if harm is None else os.fork()
    if harm is not None and pid == 0:
        try:
            harm(port, stop)
        finally:
            os._exit(0)
    try:
        time.sleep(0.5)
        yield
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)


def _connections(port: int, n: int, start: bytes = b"") -> list[socket.socket]:
    made = []
    for _ in range(n):
        connection = socket.create_connection((HOST, port), 10)
        connection.sendall(start)
        made.append(connection)
    return made


def _idle(port: int, stop: threading.Event) -> None:
    made = _connections(port, IDLE)
    stop.wait()
    del made


def _dripping(port: int, stop: threading.Event) -> None:
    made = _connections(port, 100, HEAD)
    while not stop.wait(0.2):
        for i, connection in enumerate(made):
            try:
                connection.sendall(b"a")
            except OSError:
                made[i] = _connections(port, 1, HEAD)[0]


def _never_reading(ask: bytes) -> Harm:
    def harm(port: int, stop: threading.Event) -> None:
        made = _connections(port, 20)
        for connection in made:
            connection.settimeout(0.05)
        while not stop.wait(0.2):
            for i, connection in enumerate(made):
                with contextlib.suppress(TimeoutError):
                    try:
                        connection.sendall(ask)
                    except TimeoutError:
                        raise
                    except OSError:
                        made[i] = _connections(port, 1)[0]

    return harm


def _repeated(path: str, body: bytes) -> Harm:
    def ask(port: int, stop: threading.Event) -> None:
        sent = request(path, body)
        while not stop.wait(0.05):
            with contextlib.suppress(OSError), contextlib.closing(_connections(port, 1)[0]) as connection:
                connection.sendall(sent)
                connection.recv(1 << 16)

    return ask


def _keys(n: int) -> bytes:
    return b'{"features": {' + b",".join(b'"k%d":1' % i for i in range(n)) + b"}}"


#: What is done to the server, by its name; twenty bodies a second, or so many connections.
HARMS: dict[str, Harm] = {
    f"{IDLE:,} idle connections": _idle,
    "100 bodies sent byte by byte": _dripping,
    "20 clients that read no large answer": _never_reading(b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"),
    # 400 requests at once, five times a second: what is waited for is their turn, and `rate.requests` is against it
    "20 clients that read none of 2,000 answers a second": _never_reading(
        b"GET /models?limit=x HTTP/1.1\r\nHost: x\r\n\r\n" * 20
    ),
    "rows nested 100,000 deep": _repeated("/predict", b'{"features": {"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}"),
    # the first of each two is as much as is taken by default
    "numbers of 250,000 digits": _repeated("/predict", b'{"features": {"x": ' + b"1" * 250_000 + b"}}"),
    "numbers of a million digits": _repeated("/predict", b'{"features": {"x": ' + b"1" * 1_000_000 + b"}}"),
    "rows of 2,500 keys": _repeated("/predict", _keys(2_500)),
    "rows of 50,000 keys": _repeated("/predict", _keys(50_000)),
    "rows of a key given 2,500 times": _repeated("/predict", b'{"features": {' + b",".join([b'"k":1'] * 2_500) + b"}}"),
    "rows of a key given 5,000 times": _repeated("/predict", b'{"features": {' + b",".join([b'"k":1'] * 5_000) + b"}}"),
}
