"""Real MLflow stores for the tests: one SQLite store and one server a session, each started when first asked for."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from fin_pyfunc.serving.store import bound_mlflow_waits

# before MLflow is imported: the tests log to stores of their own, and tell nobody about it
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
bound_mlflow_waits(os.environ)  # as a server of ours does: a store that is down is an error at once


class SqliteStore(NamedTuple):
    tracking_uri: str
    artifact_root: Path


class MlflowServer(NamedTuple):
    uri: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def sqlite_store(tmp_path_factory: pytest.TempPathFactory) -> SqliteStore:
    """A store in a file; make experiments with ``artifact_location=artifact_root.as_uri()``."""
    folder = tmp_path_factory.mktemp("sqlite-store")
    root = folder / "artifacts"
    root.mkdir()
    return SqliteStore(f"sqlite:///{folder / 'mlflow.db'}", root)


def start_mlflow_server(folder: Path) -> MlflowServer:
    """Start ``mlflow server`` with its own store and artifacts in `folder`, and wait until it answers."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_HTTP")}
    environ["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # its job runners are processes that nothing here needs
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{uri}/health", timeout=2).ok:
                return MlflowServer(uri, process)
        except requests.RequestException:
            time.sleep(0.1)
    stop_process(process)
    raise RuntimeError(f"mlflow server did not start:\n{(folder / 'server.log').read_text()}")


def stop_process(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A real ``mlflow server`` on loopback that serves its own artifacts."""
    server = start_mlflow_server(tmp_path_factory.mktemp("mlflow-server"))
    yield server
    stop_process(server.process)
