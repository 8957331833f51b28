"""A real `fin-pyfunc serve` process for the tests, ended by its process id."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import httpx
import requests

from fin_pyfunc.serving.admin.client import find_socket
from tests.scan import SCAN

COMMAND = [sys.executable, "-m", "fin_pyfunc_cli", "serve"]


class Serving:
    """A server that runs, and what it has said so far."""

    def __init__(self, process: subprocess.Popen[bytes], url: str, log_file: Path) -> None:
        self.process, self.url, self._log_file = process, url, log_file

    def log(self) -> str:
        return self._log_file.read_text()

    def wait_for(self, path: str, status: int = 200, seconds: float = 60) -> requests.Response:
        """Ask until the answer has this status."""
        deadline = time.monotonic() + seconds
        answered: requests.Response | None = None
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the server ended with {self.process.returncode}:\n{self.log()}")
            try:
                answered = requests.get(self.url + path, timeout=10)
                if answered.status_code == status:
                    return answered
            except requests.ConnectionError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"{path} did not answer {status}, last {answered and answered.text}:\n{self.log()}")

    def wait_until_listening(self, seconds: float = 60) -> None:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        deadline = time.monotonic() + seconds
        while True:
            try:
                socket.create_connection((host, int(port)), 1).close()
                return
            except OSError:
                assert time.monotonic() < deadline, self.log()
                time.sleep(0.005)

    def wait_for_log(self, text: str, seconds: float = 60, times: int = 1) -> None:
        deadline = time.monotonic() + seconds
        while self.log().count(text) < times:
            assert time.monotonic() < deadline, f"{text!r} is not in the log:\n{self.log()}"
            time.sleep(0.05)

    def predict(
        self, features: Mapping[str, object], model_uri: str | None = None, **more: object
    ) -> requests.Response:
        return self._post("/predict", {"features": features, **_named(model_uri), **more})

    def predict_batch(
        self, rows: list[dict[str, object]], model_uri: str | None = None, **more: object
    ) -> requests.Response:
        return self._post("/predict/batch", {"features_list": rows, **_named(model_uri), **more})

    def admin(self, path: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        """Ask as the operator does, by the admin socket: GET, or POST if there is a body."""
        socket_path = find_socket(int(self.url.rpartition(":")[2]))
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(socket_path)), timeout=60) as client:
            return client.request("GET" if body is None else "POST", f"http://localhost{path}", json=body)

    def _post(self, path: str, body: Mapping[str, object]) -> requests.Response:
        return requests.post(self.url + path, json=body, timeout=60)


def _named(model_uri: str | None) -> dict[str, object]:
    return {} if model_uri is None else {"model_uri": model_uri}


def clean_environment(env: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment without what would configure a server, and with `env`."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FIN_PYFUNC", "MLFLOW_"))}
    return clean | {"MLFLOW_DISABLE_TELEMETRY": "true", **(env or {})}


@cache
def empty_store() -> bytes:
    """The SQLite file of an MLflow store that holds nothing yet: a server makes none."""
    from mlflow import MlflowClient  # most tests can do without

    with tempfile.TemporaryDirectory() as folder:
        MlflowClient(f"sqlite:///{folder}/mlflow.db").search_experiments(max_results=1)
        return Path(folder, "mlflow.db").read_bytes()


def make_store(folder: Path, arguments: Sequence[str], env: Mapping[str, str]) -> None:
    """Put an empty store where a server without a model of its own would look for one, and wait until it answers."""
    uri = env.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    if uri.startswith("sqlite:///") and not {"-m", "--mlflow-tracking-uri"} & set(arguments):
        path = folder / uri.removeprefix("sqlite:///")
        if not path.exists() and not (folder / "mlruns").exists():
            path.write_bytes(empty_store())


@contextmanager
def serving(
    *arguments: str,
    folder: Path,
    env: Mapping[str, str] | None = None,
    wait_for: str | None = "/health/ready",
    has_store: bool = True,
) -> Iterator[Serving]:
    """Start a server in `folder`, on a free port, and stop it as an operator would.

    Parameters
    ----------
    *arguments : str
        As `fin-pyfunc serve` takes them.
    folder : Path
        Working folder; the log goes there.
    env : mapping, optional
        Added to the environment, from which what would configure a server is taken out first.
    wait_for : str or None
        Path that must answer 200 first; None to return as soon as it has been started.
    has_store : bool
        Whether an empty store is made where there is none.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    log_file = folder / f"serve-{port}.log"
    clean = clean_environment(env)
    if has_store:
        make_store(folder, arguments, clean)
    with log_file.open("wb") as log:
        process = subprocess.Popen(
            [*COMMAND, "--port", str(port), *arguments], cwd=folder, env=clean, stdout=log, stderr=subprocess.STDOUT
        )
    server = Serving(process, f"http://127.0.0.1:{port}", log_file)
    try:
        if wait_for is not None:
            server.wait_for(wait_for)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        SCAN.log(server.url, server.log())
