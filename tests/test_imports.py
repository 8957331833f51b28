"""No request imports MLflow or any other library with circular imports, and no two threads import one at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import mlflow
import pytest
import requests
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from tests import shelf
from tests.conftest import MlflowServer, free_port, tracking_to
from tests.models import bars, labels
from tests.servers import Serving, clean_environment, serving
from tests.shelf import Echo
from tests.test_api import row

#: Packages whose first import must not be a request's, once the server listens.
WATCHED = ("alembic", "mlflow", "pandas", "pyarrow", "requests", "sqlalchemy")
#: Those that only `library_imports` may import then, on one thread at a time: compiled models need none of them.
ONE_THREAD = ("lightgbm", "sklearn", "skops", "xgboost")
#: Notes, once the process listens, each module that is about to be imported for the first time, and by which thread.
HOOK = f"""
import os, socket, sys, threading

listens, listen = False, socket.socket.listen

def noting(self, *backlog):
    global listens
    listens = True
    return listen(self, *backlog)

def note(event, args):
    if event == "import" and listens and args[0].partition(".")[0] in {(*WATCHED, *ONE_THREAD)}:
        with open(os.environ["IMPORTS_FILE"], "a") as file:
            file.write(f"{{os.getpid()}} {{threading.get_ident()}} {{args[0]}}\\n")

socket.socket.listen = noting
sys.addaudithook(note)
"""


cloudpickle.register_pickle_by_value(shelf)  # a model host does not have these tests on its path


class Stock(NamedTuple):
    """Models of several kinds in one store, and below a folder."""

    tracking_uri: str
    uris: dict[str, str]
    roots: Path

    @property
    def env(self) -> dict[str, str]:
        return {
            "MLFLOW_TRACKING_URI": self.tracking_uri,
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "FIN_PYFUNC__MODELS__FILE_ROOTS": str(self.roots),
        }


def stocked(tracking_uri: str, folder: Path, artifact_root: str | None) -> Stock:
    X, y = bars(), labels(-1, 0, 1)
    logistic, forest = LogisticRegression().fit(X, y), RandomForestClassifier(5, random_state=0).fit(X, y)
    signature = mlflow.models.infer_signature(X, forest.predict(X))
    skops: dict[str, Any] = {"signature": signature, "serialization_format": "skops", "skops_trusted_types": []}
    roots = folder / "roots"
    roots.mkdir()
    uris = {"file": (roots / "model").as_uri()}
    mlflow.sklearn.save_model(logistic, roots / "model", **skops)
    loggers: dict[str, Callable[[], Any]] = {
        "ours": lambda: fin_pyfunc.log_model(forest, X, registered_model_name="ours"),
        "skops": lambda: mlflow.sklearn.log_model(logistic, name="model", registered_model_name="skops", **skops),
        "echo": lambda: mlflow.pyfunc.log_model(name="model", python_model=Echo()),
    }
    with pytest.MonkeyPatch.context() as patch, tracking_to(tracking_uri):
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        experiment = mlflow.create_experiment("imports", artifact_location=artifact_root)
        for kind, logger in loggers.items():
            with mlflow.start_run(experiment_id=experiment) as run:
                logger()
            uris[kind] = f"models:/{kind}/1" if kind != "echo" else f"runs:/{run.info.run_id}/model"
    return Stock(tracking_uri, uris, roots)


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Stock:
    folder = tmp_path_factory.mktemp("imports")
    return stocked(f"sqlite:///{folder / 'mlflow.db'}", folder, (folder / "artifacts").as_uri())


@pytest.fixture(params=["sqlite", "file", "http"])
def any_stock(request: pytest.FixtureRequest, tmp_path: Path) -> Stock:
    if request.param == "sqlite":
        found: Stock = request.getfixturevalue("stock")
        return found
    if request.param == "file":
        return stocked((tmp_path / "mlruns").as_uri(), tmp_path, None)
    server: MlflowServer = request.getfixturevalue("mlflow_server")
    return stocked(server.uri, tmp_path, None)


@pytest.fixture
def hook(tmp_path: Path) -> dict[str, str]:
    """The environment of a server that is watched."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    return {"PYTHONPATH": str(tmp_path / "hook"), "IMPORTS_FILE": str(tmp_path / "imports.txt")}


def imported(hook: dict[str, str]) -> list[tuple[str, str]]:
    """Each thread that imported something, and the module."""
    file = Path(hook["IMPORTS_FILE"])
    lines = file.read_text().splitlines() if file.exists() else []
    return [(f"{pid} {thread}", module) for pid, thread, module in (line.split() for line in lines)]


def ask_everything(url: str, uris: dict[str, str]) -> None:
    """Send every kind of request at once, so that each may be the first to import something."""
    csv, records = bars().head(3).to_csv(index=False), bars().head(3).to_dict("records")
    for kind, uri in uris.items():
        asked: list[Callable[[], requests.Response]] = [
            lambda uri=uri: requests.post(f"{url}/predict", json={"features": row(), "model_uri": uri}, timeout=60),
            lambda uri=uri: requests.post(
                f"{url}/predict/batch", json={"features_list": records, "model_uri": uri}, timeout=60
            ),
            lambda uri=uri: requests.post(
                f"{url}/predict/batch", csv, params={"model_uri": uri}, headers={"Content-Type": "text/csv"}, timeout=60
            ),
        ]
        with ThreadPoolExecutor(8) as pool:
            for answered in pool.map(lambda ask: ask(), asked * 2):
                assert answered.status_code == 200, (kind, answered.text)


def nothing_was_imported_late(hook: dict[str, str]) -> None:
    late = imported(hook)
    assert [module for _, module in late if module.partition(".")[0] in WATCHED] == []
    threads = {thread for thread, module in late if module.partition(".")[0] in ONE_THREAD}
    assert len(threads) <= 1, late


def test_no_request_is_the_first_to_import_a_library(any_stock: Stock, hook: dict[str, str], tmp_path: Path) -> None:
    for named in ([], ["-m", any_stock.uris["ours"]], ["-m", any_stock.uris["skops"]]):
        with serving(*named, folder=tmp_path, env=any_stock.env | hook) as server:
            ask_everything(server.url, any_stock.uris)
            invocations = {"dataframe_records": [row()]}
            if named:
                assert requests.post(f"{server.url}/invocations", json=invocations, timeout=60).status_code == 200
            for path in ("/models", "/version", "/ping", "/health", "/metrics", "/docs", "/openapi.json"):
                assert requests.get(server.url + path, timeout=60).status_code in (200, 404), path
            server.wait_for_log("MLflow answers")
        nothing_was_imported_late(hook)
        Path(hook["IMPORTS_FILE"]).unlink(missing_ok=True)


def test_an_application_under_plain_uvicorn_imports_before_it_listens(
    stock: Stock, hook: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    code = (
        "import uvicorn; from fin_pyfunc.serving.app import create_app; from fin_pyfunc.serving.settings import load;"
        f"uvicorn.run(create_app(load(None)), port={port}, loop='asyncio', log_level='warning')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=clean_environment(stock.env | hook))
    server = Serving(process, f"http://127.0.0.1:{port}", Path(os.devnull))
    try:
        server.wait_for("/health/ready")
        ask_everything(server.url, stock.uris)
    finally:
        process.terminate()
        process.wait(30)
    nothing_was_imported_late(hook)


def test_mlflows_table_of_stores_is_whole_before_two_threads_ask_for_it(tmp_path: Path) -> None:
    """It is made when it is first asked for, and a second thread could see a half of it (mlflow#11283)."""
    code = (
        "from mlflow.tracking._model_registry import utils; from fin_pyfunc.serving.settings import Settings;"
        "from fin_pyfunc.serving.warming import warm; assert utils._model_registry_store_registry is None;"
        "warm(Settings()); print(*utils._model_registry_store_registry._registry)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, env=clean_environment(), capture_output=True, text=True, timeout=60)
    assert {"http", "sqlite", "file"} <= set(done.stdout.split()), done.stderr


def ask_at_once(stock: Stock, kinds: list[str], folder: Path) -> None:
    """Start a server without a default model and send fifty requests as soon as it listens."""
    with serving(folder=folder, env=stock.env, wait_for=None) as server:
        server.wait_until_listening()
        uris = [stock.uris[kinds[i % len(kinds)]] for i in range(50)]
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda uri: server.predict(row(), uri), uris))
        assert [answered.text for answered in answers if answered.status_code != 200] == [], server.log()


@pytest.mark.parametrize("kinds", [["file"], ["skops", "file", "ours"]])
def test_fifty_first_requests_at_once_are_all_answered(stock: Stock, kinds: list[str], tmp_path: Path) -> None:
    ask_at_once(stock, kinds, tmp_path)


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("kinds", [["file"], ["skops", "file", "ours", "echo"]])
def test_fifty_first_requests_at_once_are_all_answered_twenty_times(
    stock: Stock, kinds: list[str], tmp_path: Path
) -> None:
    for _ in range(20):
        ask_at_once(stock, kinds, tmp_path)


def test_a_store_that_is_not_there_costs_no_imports_and_may_be_made_later(stock: Stock, tmp_path: Path) -> None:
    """An SQLite file that is not there is asked nothing; fifty first requests at once meet it when it is."""
    store = tmp_path / "later.db"
    env = stock.env | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{store}",
        "FIN_PYFUNC__MODELS__ARTIFACT_ROOTS": str(stock.roots.parent),
    }
    code = (
        "import sys; from fin_pyfunc.serving.settings import load; from fin_pyfunc.serving.warming import warm;"
        "warm(load(None)); print('sqlalchemy.orm' in sys.modules, 'alembic' in sys.modules)"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=tmp_path, env=clean_environment(env), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == ["False", "False"]
    with serving("-m", stock.uris["file"].removeprefix("file://"), folder=tmp_path, env=env) as server:
        shutil.copy(stock.tracking_uri.removeprefix("sqlite:///"), store)
        uris = [stock.uris["ours"], stock.uris["skops"]] * 25
        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(lambda uri: server.predict(row(), uri), uris))
        assert [answered.text for answered in answers if answered.status_code != 200] == [], server.log()
