"""A server that is started in the wrong place, and one that is told to end at once."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

import fin_pyfunc
from fin_pyfunc.model.store_database import require_store
from fin_pyfunc.serving.record.reading import entries
from tests.models import logistic
from tests.servers import COMMAND, serving


@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT"])
def test_sigint_and_sigquit_end_the_server_at_once_and_keep_the_record(name: str, tmp_path: Path) -> None:
    record = {"FIN_PYFUNC__RECORD__FOLDER": str(tmp_path / "record")}
    fin_pyfunc.save_model(logistic().estimator, logistic().train, tmp_path / "model")
    with serving("-m", str(tmp_path / "model"), folder=tmp_path, env=record) as server:
        assert server.predict(logistic().train.iloc[0].to_dict()).status_code == 200
        began = time.monotonic()
        server.process.send_signal(getattr(signal, name))
        assert server.process.wait(30) == 0
        assert time.monotonic() - began < 10  # `drain_seconds` are 30
    assert "predictions are recorded: chain 0, sync" in server.log()
    assert "SIGKILL" not in server.log()
    assert sum(1 for _ in entries(tmp_path / "record")) == 1


def test_a_store_that_is_not_there_is_one_sentence_and_none_is_made(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "-m", "models:/eurusd_rf@champion"],
        cwd=tmp_path,
        env={name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: There is no MLflow store mlflow.db in {tmp_path}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "uri", ["sqlite:///{}?timeout=5", "sqlite:///{}", "sqlite:///:memory:", "http://mlflow:5000", ""]
)
def test_a_store_that_is_there_or_is_no_file_is_taken(uri: str, tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").touch()
    require_store(uri.format(tmp_path / "mlflow.db"))
