"""Real MLflow 2.x: its tracking server, which lacks what MLflow 3 asks, and its SQLite store, which nobody migrates."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from mlflow import MlflowClient

import fin_pyfunc
from fin_pyfunc.model.errors import ModelNotFoundError, StoreUnavailableError
from fin_pyfunc.serving.catalog import Catalog
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.store import Store
from fin_pyfunc.serving.uris import parse
from tests.resolving import NOBODY, refused
from tests.servers import clean_environment, serving
from tests.stores.older import Older, log, run, server

pytestmark = [pytest.mark.long, pytest.mark.timeout(900), pytest.mark.xdist_group("environments")]


@pytest.fixture(scope="module")
def older_server(older_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Older]:
    with server(older_python, tmp_path_factory.mktemp("older-server")) as uri:
        yield log(older_python, uri)


@pytest.fixture
def older_store(older_python: Path, tmp_path: Path) -> Older:
    return log(older_python, f"sqlite:///{tmp_path / 'mlflow.db'}", (tmp_path / "artifacts").as_uri())


def test_a_server_of_mlflow_2_serves_its_runs_versions_and_aliases(older_server: Older, tmp_path: Path) -> None:
    first, second = older_server.runs
    with serving("--mlflow-tracking-uri", older_server.uri, folder=tmp_path) as served:
        assert served.wait_for("/health").json()["status"] == "healthy"
        for uri in (f"runs:/{first}/model", "models:/fx/1", "models:/fx@champion"):
            answer = served.predict(older_server.row, uri, return_proba=True)
            assert answer.status_code == 200, answer.text
            assert list(answer.json()["probabilities"].values()) == pytest.approx(older_server.probabilities)
        assert served.predict(older_server.row, "models:/fx/latest").status_code == 200
        for unknown in (f"models:/m-{NOBODY}", f"runs:/{first}/other", "models:/fx/9", "models:/fx@nobody"):
            assert served.predict(older_server.row, unknown).status_code == 404
        listed = requests.get(f"{served.url}/models?names=true", timeout=30).json()["models"]
    assert [entry["model_uri"] for entry in listed] == [f"runs:/{second}/model", f"runs:/{first}/model"]
    assert [entry["registered"] for entry in listed] == [
        [{"name": "fx", "version": "2", "aliases": []}],
        [{"name": "fx", "version": "1", "aliases": ["champion"]}],
    ]


def test_a_run_that_was_deleted_there_is_served_by_its_version(older_server: Older) -> None:
    client = MlflowClient(older_server.uri)
    client.delete_run(older_server.runs[1])
    try:
        resolver = Resolver(older_server.uri)
        assert resolver.resolve(parse("models:/fx/2")).run_id == older_server.runs[1]
        refused(lambda: resolver.resolve(parse(f"runs:/{older_server.runs[1]}/model")), ModelNotFoundError)
    finally:
        client.restore_run(older_server.runs[1])


def test_reading_an_sqlite_store_of_mlflow_2_leaves_it_to_mlflow_2(older_store: Older, tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", older_store.uri)
        for ask in (
            Store(older_store.uri).ping,
            lambda: Catalog(older_store.uri, "financial_ml").list_models(),
            lambda: Resolver(older_store.uri).resolve(parse("models:/fx/1")),
            lambda: fin_pyfunc.load_model("models:/fx/1"),
        ):
            assert "mlflow db upgrade" in refused(ask, StoreUnavailableError)
    for command in (["models"], ["inspect", "models:/fx/1"], ["log", "m.skops", "x.csv"], ["demo"]):
        (tmp_path / "m.skops").touch()
        (tmp_path / "x.csv").touch()
        done = subprocess.run(
            [sys.executable, "-m", "fin_pyfunc_cli", *command, "--mlflow-tracking-uri", older_store.uri],
            cwd=tmp_path,
            env=clean_environment(),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 1
        assert "mlflow db upgrade" in done.stderr
        assert len(done.stderr.strip().splitlines()) == 1
    with serving("--mlflow-tracking-uri", older_store.uri, folder=tmp_path, wait_for="/health/live") as served:
        served.wait_for_log("mlflow db upgrade")
        assert requests.get(served.url + "/health/ready", timeout=10).status_code == 503
        assert served.predict(older_store.row, "models:/fx/1").status_code == 503
    assert hashlib.sha256(path.read_bytes()).hexdigest() == before
    program = "import mlflow, sys; print(mlflow.MlflowClient(sys.argv[1]).get_model_version('fx', '1').version)"
    assert run(older_store.python, program, older_store.uri) == 1


def test_a_server_told_so_upgrades_the_store_once_and_serves_it(older_store: Older, tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__MLFLOW__UPGRADE_STORE": "true"}
    arguments = ("--mlflow-tracking-uri", older_store.uri, "-m", "models:/fx@champion", "--workers", "2")
    with serving(*arguments, folder=tmp_path, env=env, wait_for=None) as served:
        served.wait_for("/health/ready", seconds=300)  # the upgrade alone is some 15 s
        answer = served.predict(older_store.row, return_proba=True).json()
        assert list(answer["probabilities"].values()) == pytest.approx(older_store.probabilities)
        assert served.log().count("upgraded") == 1
    Store(older_store.uri).ping()


def test_a_store_that_mlflow_db_upgrade_has_upgraded_is_served(older_store: Older) -> None:
    upgrade = [sys.executable, "-m", "mlflow", "db", "upgrade", older_store.uri]
    subprocess.run(upgrade, env=clean_environment(), capture_output=True, check=True)
    with contextlib.closing(Resolver(older_store.uri)) as resolver:
        assert resolver.resolve(parse("models:/fx/1")).run_id == older_store.runs[0]


def test_wrong_credentials_are_told_from_an_outage(older_python: Path, tmp_path: Path) -> None:
    environ = {"MLFLOW_TRACKING_USERNAME": "admin", "MLFLOW_TRACKING_PASSWORD": "password"}
    with server(older_python, tmp_path, "--app-name", "basic-auth") as uri, pytest.MonkeyPatch.context() as patch:
        message = refused(Store(uri).ping, StoreUnavailableError)
        assert "MLFLOW_TRACKING_USERNAME" in message
        for name, value in environ.items():
            patch.setenv(name, value)
        Store(uri).ping()
        assert os.environ["MLFLOW_TRACKING_PASSWORD"] not in message
