"""A store that does not answer, or is none: said at once, in a sentence; and a file store where one is configured."""

from __future__ import annotations

import contextlib
import socket
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fin_pyfunc.model.errors import ModelNotFoundError, StoreUnavailableError
from fin_pyfunc.serving.catalog import Catalog
from fin_pyfunc.serving.resolver import Resolved, Resolver, allow_file_store, bound_mlflow_waits
from fin_pyfunc.serving.store import Store
from fin_pyfunc.serving.uris import parse
from tests.conftest import free_port, stop_process
from tests.resolving import NOBODY, refused


def test_a_refused_connection_is_a_store_that_is_unavailable() -> None:
    resolver = Resolver(f"http://127.0.0.1:{free_port()}")
    for text in (f"runs:/{NOBODY}/model", "models:/rf/1", "models:/rf@champion", "models:/rf/latest"):
        refused(lambda text=text: resolver.resolve(parse(text)), StoreUnavailableError)
    refused(lambda: resolver.resolve_argument("mlflow-artifacts:/1/model"), StoreUnavailableError)


@pytest.mark.parametrize("status", ["500 Internal Server Error", "503 Service Unavailable", "404 Not Found"])
def test_a_server_that_is_not_mlflow_or_is_broken_is_unavailable(status: str) -> None:
    # the bytes of a real HTTP server of ours, not MLflow's: a proxy's error page
    program = (
        "import http.server, sys\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(int(sys.argv[2])); self.send_header('Retry-After', '3600'); self.end_headers()\n"
        "        self.wfile.write(b'<html>no</html>')\n"
        "    do_POST = do_GET\n"
        "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
    )
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", program, str(port), status[:3]], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
        resolver = Resolver(f"http://127.0.0.1:{port}")
        refused(lambda: resolver.resolve(parse("models:/rf/1")), StoreUnavailableError)
    finally:
        stop_process(process)


def test_a_locked_damaged_or_vanished_sqlite_file_is_unavailable(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"this is not a database, and MLflow would try it for a hundred seconds" * 50)
    refused(lambda: Resolver(f"sqlite:///{path}").resolve(parse("models:/rf/1")), StoreUnavailableError)
    path.unlink()
    MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)  # MLflow makes a new store
    resolver = Resolver(f"sqlite:///{path}")
    refused(lambda: resolver.resolve(parse("models:/rf/1")), ModelNotFoundError)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        refused(lambda: resolver.resolve(parse("models:/rf/1")), StoreUnavailableError)
    refused(lambda: resolver.resolve(parse("models:/rf/1")), ModelNotFoundError)
    path.unlink()
    refused(lambda: resolver.resolve(parse("models:/rf/1")), StoreUnavailableError)


def test_a_file_store_that_is_not_allowed_says_which_variable_allows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    (tmp_path / "mlruns").mkdir()
    resolver = Resolver((tmp_path / "mlruns").as_uri())
    message = refused(lambda: resolver.resolve(parse("models:/rf/1")), StoreUnavailableError)
    assert "MLFLOW_ALLOW_FILE_STORE" in message


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("file:./mlruns", {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": "file:./mlruns"}),
        ("./mlruns", {"MLFLOW_ALLOW_FILE_STORE": "true", "MLFLOW_TRACKING_URI": "./mlruns"}),
        ("sqlite:///mlflow.db", {}),
        ("http://127.0.0.1:5000", {}),
        ("databricks", {}),
        (None, {}),
    ],
)
def test_a_file_store_is_allowed_where_one_is_configured(uri: str | None, expected: dict[str, str]) -> None:
    environ: dict[str, str] = {}
    allow_file_store(environ, uri)
    assert environ == expected
    environ = {"MLFLOW_ALLOW_FILE_STORE": "false"}
    allow_file_store(environ, uri)
    assert environ["MLFLOW_ALLOW_FILE_STORE"] == "false"


def test_waits_are_bounded_unless_the_operator_has_said() -> None:
    environ = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "77"}
    bound_mlflow_waits(environ)
    assert environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"
    assert environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "1"
    assert environ["MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER"] == "false"
    from mlflow import environment_variables as known  # a misspelt name would bound nothing

    assert all(hasattr(known, name) for name in environ)


def test_a_ping_asks_an_sqlite_store_without_a_client_and_makes_none_anew(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MlflowClient(uri).search_experiments(max_results=1)  # MLflow makes the store
    store = Store(uri)
    store.ping()
    assert store._client is None
    (tmp_path / "mlflow.db").rename(tmp_path / "elsewhere.db")
    with pytest.raises(StoreUnavailableError):
        store.ping()
    assert not (tmp_path / "mlflow.db").exists()
    (tmp_path / "mlflow.db").write_bytes(b"no database" * 100)
    with pytest.raises(StoreUnavailableError):
        store.ping()
    (tmp_path / "elsewhere.db").rename(tmp_path / "mlflow.db")
    store.ping()


@pytest.mark.parametrize("uri", ["sqlite:///{}/mlflow.db", "sqlite:///file:{}/mlflow.db?uri=true", "file:{}/mlruns"])
def test_reading_makes_no_store(uri: str, tmp_path: Path) -> None:
    uri = uri.format(tmp_path)
    for ask in (Store(uri).ping, lambda: Catalog(uri, "x").list_models(), lambda: find(uri, "models:/rf@champion")):
        assert "There is no MLflow store" in refused(ask, StoreUnavailableError)
    assert list(tmp_path.iterdir()) == []


def test_reading_makes_no_tables_in_a_database_of_others(tmp_path: Path) -> None:
    path = tmp_path / "ours.db"
    for statement in ("", "CREATE TABLE trades (id INTEGER)"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
        before = path.read_bytes()
        assert "There is no MLflow store" in refused(Store(f"sqlite:///{path}").ping, StoreUnavailableError)
        refused(lambda: find(f"sqlite:///{path}", "models:/rf/1"), StoreUnavailableError)
        assert path.read_bytes() == before


def test_a_store_of_a_newer_mlflow_says_so(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    MlflowClient(uri).search_experiments(max_results=1)
    with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db", isolation_level=None)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = 'ffffffffffff'")
    message = refused(lambda: find(uri, "models:/rf/1"), StoreUnavailableError)
    assert "newer MLflow" in message
    assert "db upgrade" not in message


def find(tracking_uri: str, text: str) -> Resolved:
    return Resolver(tracking_uri).resolve(parse(text))
