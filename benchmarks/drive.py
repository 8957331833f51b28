"""One measurement of a server under load, by wrk where it is installed, else by our own client.

wrk leaves uncounted what is under way when its time is up, and a slow server behind with it for the next measurement.
So a server that is slow is measured by our client, which waits for the last answer and costs nothing beside it.
wrk's latencies are corrected for what a stalled connection did not ask meanwhile; those of our client are as measured.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import statistics
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.http_client import HOST, load, request

SCRIPT = Path(__file__).with_name("wrk.lua")
PERCENTILES = (50.0, 75.0, 90.0, 95.0, 99.0, 99.9)
#: Requests before a measurement, which is of a server that has settled.
WARM_UP_SECONDS = 1.0
#: wrk measures where what is under way at its end is at most this part of all requests.
UNCOUNTED = 0.02


class Found(NamedTuple):
    """What one measurement found.

    Parameters
    ----------
    rate : float
        Requests answered, each with 200, a second.
    requests : int
        How many were answered.
    latency : dict of float to float
        Percentile to milliseconds.
    """

    rate: float
    requests: int
    latency: dict[float, float]

    @property
    def p50(self) -> float:
        """The median latency, in ms."""
        return self.latency[50.0]


def driver() -> str:
    """What drives the servers on this machine."""
    return "wrk, and for slow servers our own client" if shutil.which("wrk") else "our own asyncio client"


def drive(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float, headers: Sequence[str] = ()
) -> Found:
    """Ask a server over several connections, each with one request at a time, until the time is up.

    Parameters
    ----------
    port : int
    path : str
    bodies : sequence of bytes
        JSON without a line break, sent in turn.
    connections : int
    seconds : float
        A warm-up of at most `WARM_UP_SECONDS` comes before.
    headers : sequence of str, default ()
        Further header lines.

    Raises
    ------
    RuntimeError
        An answer was not 200: numbers of a server that refuses are worth nothing.
    """
    return driving(port, path, bodies, connections, seconds, headers)()


def driving(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float, headers: Sequence[str] = ()
) -> Callable[[], Found]:
    """Warm a server up; what drives it then, as often as it is called. See `drive`."""
    warm_up = _client(port, path, bodies, connections, min(seconds, WARM_UP_SECONDS), headers)
    is_fast = connections <= UNCOUNTED * warm_up.rate * seconds
    measure = _wrk if is_fast and shutil.which("wrk") else _client
    return partial(measure, port, path, bodies, connections, seconds, headers)


def _wrk(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float, headers: Sequence[str]
) -> Found:
    with tempfile.NamedTemporaryFile(prefix="bench-") as file:
        file.write(b"\n".join(bodies) + b"\n")
        file.flush()
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "30s"]
        command += [part for line in headers for part in ("-H", line)]
        command += ["-s", str(SCRIPT), f"http://{HOST}:{port}{path}", "--", file.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=False)
    line = next((line for line in done.stdout.splitlines() if line.startswith("JSON ")), None)
    if done.returncode or line is None:
        raise RuntimeError(f"wrk failed: {done.stderr or done.stdout}")
    found = json.loads(line.removeprefix("JSON "))
    if found["failed"] or not found["requests"]:
        raise RuntimeError(f"{found['failed']} of {found['requests']} requests to {path} were not answered with 200")
    latency = {float(p): us / 1e3 for p, us in found["percentiles"].items()}
    return Found(found["requests"] / found["microseconds"] * 1e6, found["requests"], latency)


def _client(
    port: int, path: str, bodies: Sequence[bytes], connections: int, seconds: float, headers: Sequence[str]
) -> Found:
    sent = [request(path, body, headers=headers) for body in bodies]
    found = asyncio.run(load(port, sent, connections, seconds))
    return Found(len(found.latencies) / found.seconds, len(found.latencies), percentiles(found.latencies))


def percentiles(seconds: Sequence[float]) -> dict[float, float]:
    """Percentile to milliseconds, of latencies in seconds."""
    values = np.percentile(np.asarray(seconds), PERCENTILES) * 1e3
    return {p: float(value) for p, value in zip(PERCENTILES, values, strict=True)}


def median_latency(port: int, sent: bytes, calls: int) -> float:
    """Median milliseconds of one whole request, asked again and again over one connection."""
    found = asyncio.run(load(port, [sent], 1, seconds=60.0, max_requests=calls))
    return statistics.median(found.latencies) * 1e3
