"""The list of models against real stores, and how often MLflow is asked for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import mlflow
import msgspec
import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.models import Model
from sklearn.linear_model import LogisticRegression

from fin_pyfunc.model.errors import ModelNotFoundError, StoreUnavailableError
from fin_pyfunc.serving.catalog import Catalog
from fin_pyfunc.serving.resolver import Resolver, allow_file_store
from fin_pyfunc.serving.uris import parse
from tests.conftest import MlflowProxy, MlflowServer, SqliteStore, free_port, tracking_to

EXPERIMENT = "catalog"
LIMITS = (1, 2, 3, 100)


class Filled(NamedTuple):
    tracking_uri: str
    runs: dict[str, str]  # what it is to its id


def fill(tracking_uri: str, artifact_location: str | None) -> Filled:
    """Five runs with a model, each made in another way, and others between them."""
    client = MlflowClient(tracking_uri)
    experiment = client.create_experiment(EXPERIMENT, artifact_location=artifact_location)
    started = iter(range(1_700_000_000_000, 1_800_000_000_000, 1000))
    runs: dict[str, str] = {}

    def start(name: str) -> str:
        run_id: str = client.create_run(experiment, start_time=next(started)).info.run_id
        runs[name] = run_id
        return run_id

    def create(name: str, run_id: str) -> None:
        logged = client.create_logged_model(experiment, name=name, source_run_id=run_id)
        client.finalize_logged_model(logged.model_id, "READY")

    slow = start("oldest")  # its model is the last to be logged
    tagged = start("mlflow 2")
    client._record_logged_model(tagged, Model(artifact_path="old/model", run_id=tagged))
    for i in range(5):
        start(f"none {i}")
    with tracking_to(tracking_uri), mlflow.start_run(run_id=start("logged")):
        mlflow.log_params({"n": 200, "rate": 0.1, "deep": "true", "big": "1e3", "nan": "NaN", "inf": "Infinity"})
        mlflow.log_params({"name": "rf", "none": "null", "py": True, "list": "[1]", "huge": "9" * 400})
        mlflow.log_metrics({"accuracy": 0.85, "nan": float("nan"), "inf": float("inf"), "neg": -float("inf")})
        mlflow.set_tags({"asset": "EURUSD", "mlflow.note.content": "ours to leave out"})
        X = np.arange(20.0).reshape(10, 2)
        estimator = LogisticRegression().fit(X, [0, 1] * 5)
        mlflow.sklearn.log_model(estimator, name="model", pip_requirements=["scikit-learn"])
    several = start("several")
    for name in ("first", "second"):
        create(name, several)
    if "listed" not in {model.name for model in client.search_registered_models()}:
        client.create_registered_model("listed")
    for name in ("first", "second"):
        client.create_model_version("listed", f"runs:/{several}/{name}", several)
    client.set_registered_model_alias("listed", "champion", "2")
    create("model", start("deleted"))
    client.delete_run(runs["deleted"])
    client.create_logged_model(experiment, name="unfinished", source_run_id=start("pending"))
    create("nowhere", "")
    create("late", slow)
    for i in range(5, 10):
        start(f"none {i}")
    client.create_experiment("empty")
    return Filled(tracking_uri, runs)


@pytest.fixture(scope="module")
def in_sqlite(sqlite_store: SqliteStore) -> Filled:
    return fill(sqlite_store.tracking_uri, sqlite_store.artifact_root.as_uri())


@pytest.fixture(scope="module")
def in_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Filled]:
    with pytest.MonkeyPatch.context() as patch:
        uri = (tmp_path_factory.mktemp("file-store") / "mlruns").as_uri()
        environ: dict[str, str] = {}
        allow_file_store(environ, uri)
        for name, value in environ.items():
            patch.setenv(name, value)
        yield fill(uri, None)


@pytest.fixture(scope="module")
def in_server(mlflow_server: MlflowServer) -> Filled:
    return fill(mlflow_server.uri, None)


@pytest.fixture(scope="module", params=["in_sqlite", "in_files", "in_server"])
def filled(request: pytest.FixtureRequest) -> Filled:
    found: Filled = request.getfixturevalue(request.param)
    return found


def test_every_run_with_a_model_is_listed_newest_first(filled: Filled) -> None:
    found = Catalog(filled.tracking_uri, EXPERIMENT).list_models(None, 100)
    ids = filled.runs
    assert [entry.model_uri for entry in found.models] == [
        f"runs:/{ids['several']}/second",
        f"runs:/{ids['logged']}/model",
        f"runs:/{ids['mlflow 2']}/old/model",
        f"runs:/{ids['oldest']}/late",
    ]
    assert found.count == 4


@pytest.mark.parametrize("limit", LIMITS)
def test_a_limit_counts_models_and_not_the_runs_between_them(filled: Filled, limit: int) -> None:
    catalog = Catalog(filled.tracking_uri, "another")
    everything = catalog.list_models(EXPERIMENT, 1000).models
    found = catalog.list_models(EXPERIMENT, limit)
    assert found.models == everything[:limit]
    assert found.count == min(limit, 4)


def test_an_entry_is_json_with_numbers_as_numbers(filled: Filled) -> None:
    entry = next(
        e for e in Catalog(filled.tracking_uri, EXPERIMENT).list_models().models if e.run_id == filled.runs["logged"]
    )
    assert entry.params == {
        "n": 200,
        "rate": 0.1,
        "deep": True,
        "big": 1000.0,
        "nan": "NaN",
        "inf": "Infinity",
        "name": "rf",
        "none": "null",
        "py": "True",
        "list": "[1]",
        "huge": "9" * 400,
    }
    assert entry.params["deep"] is True
    assert entry.metrics == {"accuracy": 0.85, "nan": None, "inf": None, "neg": None}
    assert entry.tags == {"asset": "EURUSD"}
    assert msgspec.json.decode(msgspec.json.encode(entry)) == msgspec.to_builtins(entry)


def test_names_versions_and_aliases_are_listed_where_they_are_asked_for(filled: Filled) -> None:
    catalog = Catalog(filled.tracking_uri, EXPERIMENT)
    assert all(entry.registered is msgspec.UNSET for entry in catalog.list_models().models)
    listed = {entry.run_id: entry.registered for entry in catalog.list_models(with_names=True).models}
    assert msgspec.to_builtins(listed.pop(filled.runs["several"])) == [
        {"name": "listed", "version": "1", "aliases": []},
        {"name": "listed", "version": "2", "aliases": ["champion"]},
    ]
    assert list(listed.values()) == [[]] * 3


def test_what_is_listed_can_be_resolved(filled: Filled) -> None:
    entry = next(
        e for e in Catalog(filled.tracking_uri, EXPERIMENT).list_models().models if e.run_id == filled.runs["logged"]
    )
    assert Resolver(filled.tracking_uri).resolve(parse(entry.model_uri)).run_id == entry.run_id


def test_an_experiment_without_models_is_an_empty_list(filled: Filled) -> None:
    assert Catalog(filled.tracking_uri, "empty").list_models().models == []


def test_an_unknown_or_deleted_experiment_is_not_found(filled: Filled) -> None:
    client = MlflowClient(filled.tracking_uri)
    if (gone := client.get_experiment_by_name("gone")) is None:
        client.delete_experiment(client.create_experiment("gone"))
    else:
        assert gone.lifecycle_stage == "deleted"
    for name in ("nobody", "gone"):
        with pytest.raises(ModelNotFoundError) as caught:
            Catalog(filled.tracking_uri, EXPERIMENT).list_models(name, 10)
        assert name not in str(caught.value).split("experiment", 1)[0]


def test_mlflow_that_does_not_answer_is_unavailable() -> None:
    with pytest.raises(StoreUnavailableError):
        Catalog(f"http://127.0.0.1:{free_port()}", EXPERIMENT).list_models()


def test_mlflow_is_asked_four_times_however_many_runs_there_are(
    mlflow_server: MlflowServer, mlflow_proxy: MlflowProxy
) -> None:
    client = MlflowClient(mlflow_server.uri)
    experiment = client.create_experiment("many")
    catalog = Catalog(f"http://127.0.0.1:{mlflow_proxy.server_port}", "many")
    catalog.list_models()  # the client's first question may ask more
    made, asked = 0, {}
    for upto in (1, 30):
        for _ in range(made, upto):
            run_id = client.create_run(experiment).info.run_id
            logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
            client.finalize_logged_model(logged.model_id, "READY")
        made = upto
        mlflow_proxy.count = 0
        assert catalog.list_models(None, 1000).count == upto
        asked[upto] = mlflow_proxy.count
    assert asked == {1: 4, 30: 4}


def test_more_models_than_the_limit_over_many_runs(tmp_path: Path) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("many", artifact_location=tmp_path.as_uri())
    ids = []
    for i in range(40):
        run_id = client.create_run(experiment, start_time=1_700_000_000_000 + i).info.run_id
        if i % 2:
            logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
            client.finalize_logged_model(logged.model_id, "READY")
            ids.append(run_id)
    found = Catalog(f"sqlite:///{tmp_path / 'mlflow.db'}", "many").list_models(None, 12)
    assert [entry.run_id for entry in found.models] == ids[::-1][:12]


@pytest.mark.parametrize("status", [None, "FAILED"])
def test_a_model_that_is_not_ready_is_not_listed(tmp_path: Path, status: str | None) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("pending", artifact_location=tmp_path.as_uri())
    for is_tagged in (False, True):
        run_id = client.create_run(experiment).info.run_id
        logged = client.create_logged_model(experiment, name="model", source_run_id=run_id)
        if status is not None:
            client.finalize_logged_model(logged.model_id, status)
        if is_tagged:  # as MLflow 2 did, and code that still calls it
            client._record_logged_model(run_id, Model(artifact_path="model", run_id=run_id))
    assert Catalog(f"sqlite:///{tmp_path / 'mlflow.db'}", "pending").list_models().count == 0
