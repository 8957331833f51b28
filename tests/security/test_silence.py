"""The libraries below us report their use to their makers, model names and digests included: not from here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fin_pyfunc
from tests import models
from tests.servers import serving

#: What has MLflow take this for a test, and be silent of itself.
OF_A_TEST = ("PYTEST_", "CI", "GITHUB_", "MLFLOW_", "ORT_", "FIN_PYFUNC")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silence") / "model"
    logistic = models.logistic()
    fin_pyfunc.save_model(logistic.estimator, logistic.train, folder, backend="onnx")
    return folder


def left_in(home: Path) -> list[str]:
    """Where ONNX Runtime keeps what it will report, and the id that it reports it with."""
    return [str(path.relative_to(home)) for path in home.rglob("*") if "Microsoft" in path.parts]


def run(code: str, home: Path, *arguments: str) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith(OF_A_TEST)} | {"HOME": str(home)}
    env.pop("XDG_CACHE_HOME", None)
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_a_notebook_that_runs_our_model_keeps_nothing_to_report(saved: Path, tmp_path: Path) -> None:
    code = "import sys, fin_pyfunc; print(fin_pyfunc.load_model(sys.argv[1], backend='onnx').dispatch.described)"
    assert "onnx" in run(code, tmp_path, str(saved))
    assert left_in(tmp_path) == []


def test_a_server_keeps_nothing_to_report(saved: Path, tmp_path: Path) -> None:
    with serving("-m", str(saved), "--backend", "onnx", folder=tmp_path, env={"HOME": str(tmp_path)}) as server:
        answer = server.predict(models.logistic().train.iloc[0].to_dict())
    assert answer.headers["X-Model-Backend"] == "onnx"
    assert left_in(tmp_path) == []


def test_the_mlflow_of_a_server_reports_nothing_unless_told_to(tmp_path: Path) -> None:
    code = (
        "import os, sys; "
        "from fin_pyfunc.serving.settings import Settings; from fin_pyfunc.serving.warming import warm; "
        "os.environ.update(dict(pair.split('=') for pair in sys.argv[1:])); warm(Settings(workers=2)); "
        "from mlflow.telemetry import get_telemetry_client; print(get_telemetry_client() is None)"
    )
    assert run(code, tmp_path) == "True"
    assert run(code, tmp_path, "MLFLOW_DISABLE_TELEMETRY=false") == "False"
