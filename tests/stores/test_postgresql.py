"""A real PostgreSQL, Debian's, behind MLflow: read by our server, and by MLflow's own as compose.yaml starts it."""

from __future__ import annotations

import contextlib
import getpass
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
import requests
import yaml
from mlflow import MlflowClient
from sqlalchemy import create_engine, inspect, text

import fin_pyfunc
from fin_pyfunc.model.errors import StoreUnavailableError
from fin_pyfunc.serving.catalog import Catalog
from fin_pyfunc.serving.store import Store
from tests.conftest import free_port, start_mlflow_server, stop_process, tracking_to
from tests.models import logistic
from tests.resolving import refused
from tests.servers import clean_environment, serving

ROOT = Path(__file__).parents[2]


def program(name: str) -> str | None:
    """A program of PostgreSQL's; Debian keeps those of its server off the PATH."""
    debians = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(debians[-1]) if debians else shutil.which(name)


def account() -> str:
    """Whom the database runs as, which must not be root."""
    if os.geteuid() != 0:
        return getpass.getuser()
    return next(name for name in ("postgres", "nobody") if name in {entry.pw_name for entry in pwd.getpwall()})


pytestmark = pytest.mark.skipif(
    program("initdb") is None, reason="PostgreSQL is not installed (Debian: apt-get install postgresql)"
)


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The URI of an empty database, with a password that has to be percent-encoded, as documented for compose."""
    folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="postgresql-"))  # pytest's is closed to others
    port, user, password = free_port(), account(), "s%cr@t"
    secret = folder / "password"
    secret.write_text(password)
    for path in (folder, secret):
        os.chown(path, pwd.getpwnam(user).pw_uid, -1)
    as_user = {"user": user} if os.geteuid() == 0 else {}
    data = folder / "data"
    made = subprocess.run(
        [str(program("initdb")), "-D", data, "-U", "mlflow", "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync"],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
        **as_user,
    )
    assert made.returncode == 0, made.stderr
    options = ["-c", "fsync=off", "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(program("postgres")), "-D", data, "-p", str(port), *options],
            cwd=folder,
            stdout=log,
            stderr=log,
            **as_user,
        )
    try:
        encoded = password.replace("%", "%25").replace("@", "%40")
        yield from _databases(f"postgresql://mlflow:{encoded}@127.0.0.1:{port}", process, folder)
    finally:
        stop_process(process)
        shutil.rmtree(folder, ignore_errors=True)


def _databases(server: str, process: subprocess.Popen[bytes], folder: Path) -> Iterator[str]:
    engine = create_engine(f"{server}/postgres", isolation_level="AUTOCOMMIT")
    while True:
        assert process.poll() is None, (folder / "log").read_text()
        with contextlib.suppress(Exception), engine.connect() as connection:
            connection.execute(text("CREATE DATABASE mlflow"))
            break
    engine.dispose()
    yield f"{server}/mlflow"


@pytest.fixture(scope="module")
def filled(database: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same once MLflow has made its tables there and a model is logged and registered."""
    location = tmp_path_factory.mktemp("artifacts").as_uri()
    assert "no MLflow store" in refused(Store(database).ping, StoreUnavailableError)
    engine = create_engine(database)
    assert inspect(engine).get_table_names() == []  # reading makes no tables
    engine.dispose()
    with tracking_to(database):
        experiment = MlflowClient(database).create_experiment("financial_ml", artifact_location=location)
        with mlflow.start_run(experiment_id=experiment):
            fin_pyfunc.log_model(logistic().estimator, logistic().train, registered_model_name="fx")
        MlflowClient(database).set_registered_model_alias("fx", "champion", "1")
    return database


def test_a_server_reads_models_and_their_names_from_postgresql(filled: str, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": filled, "FIN_PYFUNC__MODELS__ARTIFACT_ROOTS": "/"}
    with serving("-m", "models:/fx@champion", folder=tmp_path, env=env) as server:
        assert server.predict(logistic().train.iloc[0].to_dict()).status_code == 200
        (entry,) = requests.get(f"{server.url}/models?names=true", timeout=60).json()["models"]
        assert entry["registered"] == [{"name": "fx", "version": "1", "aliases": ["champion"]}]
        server.wait_for_log("MLflow answers")
        assert "s%cr@t" not in server.log()
        assert "s%25cr%40t" not in server.log()
    done = subprocess.run(
        [sys.executable, "-m", "fin_pyfunc_cli", "models"],
        env=clean_environment(env),
        capture_output=True,
        text=True,
        check=True,
    )
    assert "fx/1 @champion" in done.stdout


def test_a_database_of_an_older_mlflow_is_not_migrated_by_reading(filled: str) -> None:
    engine = create_engine(filled)
    with engine.begin() as connection:
        (now,) = connection.execute(text("SELECT version_num FROM alembic_version")).one()
        connection.execute(text("UPDATE alembic_version SET version_num = '867495a8f9d4'"))
    try:
        for ask in (Store(filled).ping, lambda: Catalog(filled, "financial_ml").list_models()):
            assert "mlflow db upgrade" in refused(ask, StoreUnavailableError)
    finally:
        with engine.begin() as connection:
            (kept,) = connection.execute(text("SELECT version_num FROM alembic_version")).one()
            connection.execute(text("UPDATE alembic_version SET version_num = :now"), {"now": now})
        engine.dispose()
    assert kept == "867495a8f9d4"


def test_a_database_that_is_away_is_said_at_once(filled: str) -> None:
    refused(Store(filled.replace("/mlflow", "/other")).ping, StoreUnavailableError)
    refused(Store("postgresql://mlflow:x@127.0.0.1:9/mlflow").ping, StoreUnavailableError)


def test_mlflows_server_of_the_compose_profile_starts_on_the_documented_uri(filled: str, tmp_path: Path) -> None:
    compose = (ROOT / "compose.yaml").read_text()
    assert "MLFLOW_BACKEND_STORE_URI=postgresql://mlflow:$POSTGRES_PASSWORD@postgres/mlflow" in compose
    assert "postgres" in yaml.safe_load(compose)["services"]
    server = start_mlflow_server(tmp_path, filled)
    try:
        listed = Catalog(server.uri, "financial_ml").list_models(with_names=True)
        assert [version.name for entry in listed.models for version in entry.registered or ()] == ["fx"]
    finally:
        stop_process(server.process)


def test_what_postgresql_needs_is_in_the_extra_the_constraints_and_the_image() -> None:
    for file in ("constraints.txt", "fin_pyfunc/image/requirements.txt"):
        pins = (ROOT / file).read_text()
        for package in ("psycopg==", "psycopg-binary=="):
            assert f"\n{package}" in pins, file
    uninstalled = (ROOT / "Dockerfile").read_text().partition("pip uninstall")[2].partition("&&")[0]
    assert "psycopg" not in uninstalled
