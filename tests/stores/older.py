"""MLflow as others have it: older versions in environments of their own, each with its own server and SQLite store."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import requests

from tests.conftest import free_port

#: MLflow, and what was current with it.
REQUIREMENTS = {
    version: f"mlflow=={version}\nscikit-learn==1.3.2\nnumpy<2\npandas<3\nsetuptools<80\nsqlalchemy<2.1\nflask-wtf"
    for version in ("2.9.2", "2.20.4")
}
#: Logs two runs with a model each, registers one under an alias, and deletes one run whose model is registered.
LOG = """
import json, sys
import mlflow, mlflow.sklearn
import numpy as np, pandas as pd
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

mlflow.set_tracking_uri(sys.argv[1])
location = sys.argv[2] if len(sys.argv) > 2 else None
experiment = MlflowClient().create_experiment("financial_ml", artifact_location=location)
rows = pd.DataFrame(np.random.default_rng(3).normal(size=(200, 3)), columns=["bid", "ask", "spread"])
runs, answers = [], None
for sign in (1, -1):
    fitted = LogisticRegression().fit(rows, np.where(sign * rows["bid"] > 0, 1, -1))
    answers = answers or [rows.iloc[0].to_dict(), fitted.predict_proba(rows.iloc[:1])[0].tolist()]
    with mlflow.start_run(experiment_id=experiment) as run:
        mlflow.log_param("n", 200)
        signature = mlflow.models.infer_signature(rows, fitted.predict(rows))
        mlflow.sklearn.log_model(fitted, "model", signature=signature, registered_model_name="fx")
    runs.append(run.info.run_id)
MlflowClient().set_registered_model_alias("fx", "champion", "1")
print(json.dumps([mlflow.__version__, runs, answers]))
"""


class Older(NamedTuple):
    """A store of an older MLflow: where it is, its runs, a row, and what the first run's model answers to it."""

    python: Path
    version: str
    uri: str
    runs: list[str]
    row: dict[str, float]
    probabilities: list[float]


def run(python: Path, program: str, *arguments: str) -> Any:
    """Run a program with another Python, and return what it printed last, as JSON."""
    done = subprocess.run([python, "-I", "-c", program, *arguments], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MLFLOW"))}


def log(python: Path, uri: str, *arguments: str) -> Older:
    version, runs, (row, probabilities) = run(python, LOG, uri, *arguments)
    return Older(python, version, uri, runs, row, probabilities)


@contextlib.contextmanager
def server(python: Path, folder: Path, *options: str) -> Iterator[str]:
    """Run ``mlflow server`` of another version, with a store in `folder`."""
    uri = f"http://127.0.0.1:{(port := free_port())}"
    command = [str(python), "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--serve-artifacts"]
    command += ["--artifacts-destination", str(folder / "artifacts"), *options]
    # it starts gunicorn by name; the key is for basic-auth
    environ = {**environment(), "PATH": f"{python.parent}:{os.environ['PATH']}", "MLFLOW_FLASK_SERVER_SECRET_KEY": "x"}
    with (folder / "server.log").open("wb") as log_file:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=log_file, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        _wait(uri, process, folder / "server.log")
        yield uri
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)  # the gunicorn that it has started does not end with it
        process.wait(60)


def _wait(uri: str, process: subprocess.Popen[bytes], log_file: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{uri}/health", timeout=2).ok:
                return
        time.sleep(0.1)
    raise AssertionError(f"the older mlflow server did not start:\n{log_file.read_text()}")
