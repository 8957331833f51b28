"""A Docker daemon for the tests of images: the machine's own, or they skip."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pytest

from tests.conftest import tracking_to

ROOT = Path(__file__).parents[2]
BASE_IMAGE = os.environ.get("BASE_IMAGE", "python:3.11-slim")
#: RUN steps have the machine's network: a daemon may have none of its own.
NETWORK = "host"
MODEL_TAG = "fin-pyfunc-test-model"


class Champion(NamedTuple):
    """A store, the alias in it, and the immutable model that it means."""

    tracking_uri: str
    uri: str
    model_id: str


def docker(*arguments: str, seconds: float = 900, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run it; what it said on stdout."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    assert not check or done.returncode == 0, (
        f"docker {' '.join(arguments)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    )
    return done.stdout


def told(folder: Path, run_network: str) -> Path:
    """A folder for PATH with a `docker` that names what this daemon lacks: a default network, and Docker Hub."""
    folder.mkdir()
    script = folder / "docker"
    script.write_text(f"""#!/bin/bash
case "$1" in
  build) shift; exec {shutil.which("docker")} build --network {NETWORK} --build-arg BASE_IMAGE={BASE_IMAGE} "$@" ;;
  run) shift; exec {shutil.which("docker")} run --network {run_network} "$@" ;;
  *) exec {shutil.which("docker")} "$@" ;;
esac
""")
    script.chmod(0o755)
    return folder


def inspect(name: str) -> Any:
    """What Docker knows of a container or an image."""
    return json.loads(docker("inspect", name))[0]


@pytest.fixture(scope="session", autouse=True)
def daemon() -> None:
    """Skip where there is no Docker."""
    if shutil.which("docker") is None or subprocess.run(["docker", "version"], capture_output=True).returncode:
        pytest.skip("no Docker daemon answers here; 'make test-docker' says how to have one")


@pytest.fixture(scope="session")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Champion:
    """The demo model in an SQLite store."""
    folder = tmp_path_factory.mktemp("champion")
    tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
    run_demo(tracking_uri, folder)
    with tracking_to(tracking_uri):
        version = mlflow.MlflowClient().get_model_version_by_alias("eurusd_rf", "champion")
    return Champion(tracking_uri, "models:/eurusd_rf@champion", version.source)


def run_demo(tracking_uri: str, folder: Path) -> None:
    """`fin-pyfunc demo`, as a data scientist would run it against a store."""
    done = subprocess.run(
        [sys.executable, "-m", "fin_pyfunc_cli", "demo", "--trees", "50", "--mlflow-tracking-uri", tracking_uri],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


@contextlib.contextmanager
def running(image: str, *options: str) -> Iterator[str]:
    """A container that is healthy, removed afterwards; its id."""
    container = docker("run", "--detach", *options, image).strip()
    try:
        wait_healthy(container)
        yield container
    finally:
        docker("rm", "--force", container)


def wait_healthy(container: str, seconds: float = 120) -> None:
    """Wait for Docker's own health check."""
    deadline = time.monotonic() + seconds
    while (state := inspect(container)["State"])["Health"]["Status"] != "healthy":
        log = docker("logs", container, check=False)
        assert state["Running"], f"it ended with {state['ExitCode']}: {log}"
        assert time.monotonic() < deadline, f"not healthy: {state['Health']}\n{log}"
        time.sleep(0.2)


def wait_for_log(container: str, words: str, seconds: float = 120) -> None:
    """Wait until a running container has said something."""
    deadline = time.monotonic() + seconds
    while True:
        done = subprocess.run(["docker", "logs", container], capture_output=True, text=True, check=True)
        if words in (log := done.stdout + done.stderr):
            return
        assert inspect(container)["State"]["Running"], f"it ended: {log}"
        assert time.monotonic() < deadline, f"it did not say {words!r}: {log}"
        time.sleep(0.2)


def ask(container: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """A request from inside a container, which has a loopback even where it has no network: (answer, headers)."""
    code = (
        "import json, sys, urllib.request as r\n"
        "path, body = json.loads(sys.argv[1])\n"
        "data = None if body is None else json.dumps(body).encode()\n"
        "q = r.Request('http://127.0.0.1:8000' + path, data, {'Content-Type': 'application/json'})\n"
        "a = r.urlopen(q, timeout=30)\n"
        "print(json.dumps([json.loads(a.read()), {k.lower(): v for k, v in a.headers.items()}]))"
    )
    return json.loads(docker("exec", container, "python", "-c", code, json.dumps([path, body])))
