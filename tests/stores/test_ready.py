"""One notion of ready: said once, when it is true, and not before MLflow has answered where nothing can do without."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
import requests

import fin_pyfunc
from fin_pyfunc.model.errors import StoreUnavailableError
from tests.conftest import MlflowProxy, MlflowServer, free_port
from tests.models import logistic
from tests.servers import empty_store, serving


def test_without_a_model_ready_is_said_once_when_mlflow_has_answered(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    address = f"http://127.0.0.1:{(port := free_port())}"
    env = {"FIN_PYFUNC__MLFLOW__PROBE_SECONDS": "0.2"}
    arguments = ("--mlflow-tracking-uri", address, "--workers", "2")
    with serving(*arguments, folder=tmp_path, env=env, wait_for="/health/live") as server:
        server.wait_for_log("MLflow does not answer; it is asked every")
        for path in ("/health", "/health/ready", "/ping"):
            assert requests.get(server.url + path, timeout=10).status_code == 503
        assert "MLflow does not answer" in requests.get(server.url + "/health/ready", timeout=10).json()["detail"]
        assert "\nready" not in server.log()
        proxy = MlflowProxy(mlflow_server.uri, port)
        try:
            server.wait_for("/health/ready")
            server.wait_for_log("\nready;")
            assert requests.get(server.url + "/health", timeout=10).json()["status"] == "healthy"
        finally:
            proxy.stop()
        server.wait_for_log("does not answer any more")
        # it has been ready: an outage is the health's to say
        assert requests.get(server.url + "/health/ready", timeout=10).status_code == 200
        deadline = time.monotonic() + 30  # each worker asks by itself
        while requests.get(server.url + "/health", timeout=10).status_code != 503:
            assert time.monotonic() < deadline
        assert server.log().count("\nready") == 1


def test_a_store_that_comes_later_is_found(tmp_path: Path) -> None:
    with serving(folder=tmp_path, wait_for="/health/live", has_store=False) as server:
        server.wait_for_log("There is no MLflow store")
        assert requests.get(server.url + "/health/ready", timeout=10).status_code == 503
        assert not (tmp_path / "mlflow.db").exists()
        (tmp_path / "made.db").write_bytes(empty_store())
        shutil.move(tmp_path / "made.db", tmp_path / "mlflow.db")
        server.wait_for("/health/ready")


@pytest.mark.parametrize("kind", ["roots", "default"])
def test_what_is_served_without_mlflow_is_ready_without_it(kind: str, tmp_path: Path) -> None:
    fin_pyfunc.save_model(logistic().estimator, logistic().train, tmp_path / "models" / "m")
    env = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}"}
    arguments = ["-m", str(tmp_path / "models" / "m")] if kind == "default" else []
    if kind == "roots":
        env["FIN_PYFUNC__MODELS__FILE_ROOTS"] = str(tmp_path / "models")
    with serving(*arguments, folder=tmp_path, env=env) as server:
        uri = None if arguments else f"file://{tmp_path / 'models' / 'm'}"
        assert server.predict(logistic().train.iloc[0].to_dict(), uri).status_code == 200
        health = requests.get(server.url + "/health", timeout=10)
        assert (health.status_code, health.json()["status"]) == (200, "degraded")
        assert server.log().count("\nready") == 1


def test_loading_in_the_wrong_folder_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for uri in ("models:/fx/1", "models:/fx@champion", f"runs:/{'0' * 32}/model"):
        with pytest.raises(StoreUnavailableError, match=r"There is no MLflow store mlflow\.db in "):
            fin_pyfunc.load_model(uri)
    assert list(tmp_path.iterdir()) == []
    fin_pyfunc.save_model(logistic().estimator, logistic().train, tmp_path / "m")
    assert fin_pyfunc.load_model("m").predict_one(logistic().train.iloc[0].to_dict())
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
