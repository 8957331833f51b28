"""Starting a server in a process group of its own, waiting for its first answer, ending it with all it started."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.http_client import HOST, first_answer

ROOT = Path(__file__).parent.parent
START_SECONDS, STOP_SECONDS = 180.0, 20.0
#: Seconds between two questions whether a server answers yet.
ASK_AGAIN = 0.01


class Running(NamedTuple):
    """A server that answers: its port, its first process, and the seconds from its start to its first 200."""

    port: int
    pid: int
    start_up: float


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


def environment(tracking_uri: str, extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a server is started with: nothing of the caller's own settings, and its own Python's commands first."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FIN_PYFUNC", "MLFLOW_"))}
    environ |= {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true", "ORT_DISABLE_TELEMETRY": "1"}
    # MLflow starts uvicorn by its name
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    return {**environ, **(extra or {})}


@contextlib.contextmanager
def running(
    command: Sequence[str], port: int, first: bytes, environ: Mapping[str, str], name: str = ""
) -> Iterator[Running]:
    """Start a server, wait until it answers a request with 200, and end it afterwards.

    Parameters
    ----------
    command : sequence of str
    port : int
        The one it will listen on.
    first : bytes
        A whole request, asked until it is answered.
    environ : mapping of str to str
    name : str, default the command's first word
        For the message when it does not start.

    Raises
    ------
    RuntimeError
        It ended or gave no 200 within `START_SECONDS`; with the end of what it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        log_file = Path(folder, "log")
        with log_file.open("wb") as log:
            start = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=folder, env=dict(environ), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        try:
            while (status := first_answer(port, first)) != 200:
                if process.poll() is not None or time.perf_counter() - start > START_SECONDS:
                    said = log_file.read_text(errors="replace")[-4000:]
                    raise RuntimeError(f"{name or command[0]} did not start (its last answer was {status}):\n{said}")
                time.sleep(ASK_AGAIN)
            yield Running(port, process.pid, time.perf_counter() - start)
        finally:
            end_group(process)


def processor_seconds(pid: int) -> float:
    """Processor time that a process and those below it have taken; what of them has ended is left out."""
    import psutil

    first = psutil.Process(pid)
    times = [process.cpu_times() for process in (first, *first.children(recursive=True))]
    return float(sum(of.user + of.system for of in times))


def wait_for_all(port: int, sent: bytes, workers: int) -> None:
    """Wait until every worker answers: so many connections in a row, each given to any of them, that none was missed.

    Raises
    ------
    RuntimeError
        Some still answer other than 200 after `START_SECONDS`.
    """
    in_a_row, deadline = 0, time.perf_counter() + START_SECONDS
    while in_a_row < 16 * workers:
        in_a_row = in_a_row + 1 if first_answer(port, sent) == 200 else 0
        if time.perf_counter() > deadline:
            raise RuntimeError(f"not all {workers} workers answer with 200")


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: asked first, then made to."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever of the group is left
    process.wait()
