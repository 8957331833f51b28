"""Real MLflow stores for the tests: one SQLite store and one server a session, each started when first asked for."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pandas as pd  # noqa: F401 - xdist's own process rebuilds warnings of pandas' types
import pytest
import requests
from hypothesis import settings

from fin_pyfunc.serving.store import bound_mlflow_waits

pytest_plugins = ["tests.scan"]  # every answer and every log line of the run

# before MLflow is imported: the tests log to stores of their own, and tell nobody about it
settings.register_profile("no-deadline", deadline=None)  # how long an example takes says more of the machine
settings.load_profile("no-deadline")
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


@pytest.fixture(scope="module", autouse=True)
def mlflow_as_it_was() -> Iterator[None]:
    """Undo, after each file, what MLflow keeps for the whole process: its tracking URI and its active experiment."""
    yield
    if "mlflow" in sys.modules:
        import mlflow

        mlflow.set_tracking_uri(None)
        mlflow.tracking.fluent._active_experiment_id = None  # there is no public way back from set_experiment
        os.environ.pop("MLFLOW_EXPERIMENT_ID", None)


@contextlib.contextmanager
def tracking_to(uri: str) -> Iterator[None]:
    """Let MLflow's module-level functions log to `uri`; unlike ``set_tracking_uri`` it leaves nothing behind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        yield


def start_mlflow_server(folder: Path, store_uri: str | None = None) -> MlflowServer:
    """Start ``mlflow server`` with artifacts in `folder`, and its store there or as named; wait until it answers."""
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store_uri or f"sqlite:///{folder / 'server.db'}", "--serve-artifacts"]
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


class MlflowProxy(http.server.ThreadingHTTPServer):
    """Hands each request on to a real MLflow server, counts them, and can be gone while the server is not."""

    daemon_threads = True

    def __init__(self, target: str, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Forward)
        self.target = urlsplit(target).netloc
        self.uri = f"http://127.0.0.1:{self.server_port}"
        self.count = 0
        self._thread = threading.Thread(target=self.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()


class _Forward(http.server.BaseHTTPRequestHandler):
    server: MlflowProxy

    def _forward(self) -> None:
        self.server.count += 1
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        connection = http.client.HTTPConnection(self.server.target, timeout=60)
        connection.request(self.command, self.path, body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        self.send_response(answer.status)
        self.send_header("Content-Type", answer.headers["Content-Type"])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = _forward  # noqa: N815  (the names that http.server looks for)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its name there)
        pass


@pytest.fixture
def mlflow_proxy(mlflow_server: MlflowServer) -> Iterator[MlflowProxy]:
    proxy = MlflowProxy(mlflow_server.uri)
    yield proxy
    proxy.stop()


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """One logged model of each kind, in a SQLite store of their own (a `tests.shelf.Shelf`)."""
    from tests.shelf import fill  # it imports MLflow, which most tests can do without

    folder = tmp_path_factory.mktemp("shelf")
    return fill(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", folder)
