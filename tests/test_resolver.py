"""Model URIs against real stores: SQLite and a file store in this process, and an ``mlflow server`` over HTTP."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import mlflow
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

from fin_pyfunc.model.errors import ArtifactError, ModelNotFoundError, StoreUnavailableError
from fin_pyfunc.serving.resolver import Resolver, allow_file_store
from fin_pyfunc.serving.snapshot import digest
from fin_pyfunc.serving.store import Store
from fin_pyfunc.serving.uris import parse
from tests.conftest import MlflowProxy, MlflowServer, SqliteStore, tracking_to
from tests.resolving import NOBODY, X, Y, refused, save


class Logged(NamedTuple):
    """A store that holds one model in each of MLflow's layouts."""

    tracking_uri: str
    run_id: str
    model_id: str
    is_local: bool


def log(tracking_uri: str, saved: Path, artifact_location: str | None, *, is_local: bool) -> Logged:
    client = MlflowClient(tracking_uri)
    experiment = client.create_experiment("resolver", artifact_location=artifact_location)
    # MLflow goes by the process-wide URI when a logged model is registered
    with tracking_to(tracking_uri):
        with mlflow.start_run(experiment_id=experiment) as run:
            info = mlflow.sklearn.log_model(
                LogisticRegression().fit(X, Y), name="model", pip_requirements=["scikit-learn"]
            )
        run_id = run.info.run_id
        client.log_artifacts(run_id, str(saved), "old/model")
        client.log_artifact(run_id, __file__, "plain")
        mlflow.register_model(f"models:/{info.model_id}", "rf")
        client.create_model_version("rf", f"{client.get_run(run_id).info.artifact_uri}/old/model", run_id)
        client.create_model_version("rf", f"runs:/{run_id}/old/model", run_id)
        client.create_model_version("rf", f"runs:/{run_id}/model", run_id)
        client.set_registered_model_alias("rf", "champion", "1")
        if is_local:
            client.copy_model_version("models:/rf/1", "rf_live")
        client.create_registered_model("empty")
    return Logged(tracking_uri, run_id, info.model_id, is_local)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture(scope="module")
def in_sqlite(sqlite_store: SqliteStore, saved: Path) -> Logged:
    return log(sqlite_store.tracking_uri, saved, sqlite_store.artifact_root.as_uri(), is_local=True)


@pytest.fixture(scope="module")
def in_files(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Logged]:
    uri = (tmp_path_factory.mktemp("file-store") / "mlruns").as_uri()
    with pytest.MonkeyPatch.context() as patch:
        environ: dict[str, str] = {}
        allow_file_store(environ, uri)
        for name, value in environ.items():
            patch.setenv(name, value)
        yield log(uri, saved, None, is_local=True)


@pytest.fixture(scope="module")
def in_server(mlflow_server: MlflowServer, saved: Path) -> Logged:
    return log(mlflow_server.uri, saved, None, is_local=False)


@pytest.fixture(scope="module", params=["in_sqlite", "in_files", "in_server"])
def logged(request: pytest.FixtureRequest) -> Logged:
    found: Logged = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def resolver(logged: Logged) -> Iterator[Resolver]:
    with contextlib.closing(Resolver(logged.tracking_uri)) as found:
        yield found


@pytest.mark.parametrize(
    ("text", "mutable"),
    [
        ("runs:/{run}/model", False),
        ("models:/{model}", False),
        ("models:/rf/1", False),
        ("models:/rf/4", False),
        ("models:/rf@champion", True),
        ("models:/rf/latest", True),
    ],
)
def test_every_uri_that_leads_to_a_logged_model_has_its_id(
    logged: Logged, resolver: Resolver, text: str, mutable: bool
) -> None:
    text = text.format(run=logged.run_id, model=logged.model_id)
    found = resolver.resolve(parse(text))
    assert (found.uri, found.model_id, found.run_id) == (text, f"models:/{logged.model_id}", logged.run_id)
    assert (found.mutable, found.kind) == (mutable, "mlflow")


def test_a_version_copied_to_another_name_is_still_the_logged_model(in_sqlite: Logged) -> None:
    found = Resolver(in_sqlite.tracking_uri).resolve(parse("models:/rf_live/1"))
    assert found.model_id == f"models:/{in_sqlite.model_id}"


def test_a_model_among_a_runs_artifacts_is_known_by_run_and_path(logged: Logged, resolver: Resolver) -> None:
    text = f"runs:/{logged.run_id}/old/model"
    found = resolver.resolve(parse(text))
    assert (found.model_id, found.run_id, found.mutable, found.kind) == (text, logged.run_id, False, "mlflow")


@pytest.mark.parametrize("version", [2, 3])
def test_a_version_of_a_runs_artifacts_is_known_by_name_and_number(
    logged: Logged, resolver: Resolver, version: int
) -> None:
    found = resolver.resolve(parse(f"models:/rf/{version}"))
    assert (found.model_id, found.run_id) == (f"models:/rf/{version}", logged.run_id)
    assert (resolver.fetch(found).path / "MLmodel").is_file()


@pytest.mark.parametrize("text", ["runs:/{run}/model", "runs:/{run}/old/model", "models:/rf/2", "models:/rf@champion"])
def test_what_is_fetched_predicts(logged: Logged, resolver: Resolver, text: str) -> None:
    folder = resolver.fetch(resolver.resolve(parse(text.format(run=logged.run_id)))).path
    model = mlflow.pyfunc.load_model(str(folder))
    assert list(model.predict(X)) == list(LogisticRegression().fit(X, Y).predict(X))


def test_local_artifacts_are_copied_and_stay_as_they_are(in_sqlite: Logged, sqlite_store: SqliteStore) -> None:
    resolver = Resolver(in_sqlite.tracking_uri)
    found = resolver.resolve(parse(f"models:/{in_sqlite.model_id}"))
    copied, source = resolver.fetch(found), Path(found.location.removeprefix("file://"))
    assert not copied.path.is_relative_to(sqlite_store.artifact_root)
    assert copied.digest == digest(source)
    assert not (source / "registered_model_meta").exists()
    resolver.discard(found)
    assert not copied.path.exists()
    resolver.close()
    assert (source / "MLmodel").is_file()


def test_a_download_is_private_shared_and_removed(in_server: Logged) -> None:
    resolver = Resolver(in_server.tracking_uri)
    found = resolver.resolve(parse("models:/rf@champion"))
    with ThreadPoolExecutor(8) as threads:
        folders = {snapshot.path for snapshot in threads.map(lambda _: resolver.fetch(found), range(16))}
    (folder,) = folders
    for above in (folder.parent, folder.parent.parent):
        assert stat.S_IMODE(above.stat().st_mode) == 0o700
    resolver.discard(found)
    assert not folder.parent.exists()
    again = resolver.fetch(found).path
    resolver.close()
    assert not again.parent.parent.exists()


def test_many_threads_resolve_at_once(logged: Logged, resolver: Resolver) -> None:
    uris = [parse(t) for t in (f"runs:/{logged.run_id}/model", "models:/rf@champion", "models:/rf/1")] * 8
    with ThreadPoolExecutor(8) as threads:
        found = {r.model_id for r in threads.map(resolver.resolve, uris)}
    assert found == {f"models:/{logged.model_id}"}


@pytest.mark.parametrize(
    "text",
    [
        f"runs:/{NOBODY}/model",
        "runs:/{run}/nobody",
        "runs:/{run}/old",
        "runs:/{run}/plain",
        "runs:/{run}/old/model/MLmodel",
        "models:/nobody/1",
        "models:/rf/77",
        "models:/nobody@champion",
        "models:/rf@nobody",
        "models:/nobody/latest",
        "models:/empty/latest",
        "models:/it's/1",
        f"models:/m-{NOBODY}",
    ],
)
def test_what_the_store_does_not_hold_is_not_found(logged: Logged, resolver: Resolver, text: str) -> None:
    message = refused(lambda: resolver.resolve(parse(text.format(run=logged.run_id))), ModelNotFoundError)
    assert "nobody" not in message
    where = "MLflow's model registry" if text.startswith("models:/") and "m-" not in text else "fin-pyfunc models"
    assert where in message


def test_an_unknown_version_says_where_to_look(in_sqlite: Logged) -> None:
    message = refused(lambda: Resolver(in_sqlite.tracking_uri).resolve(parse("models:/rf/7")), ModelNotFoundError)
    assert message == ("No model version 7 of the name asked for is registered; look it up in MLflow's model registry.")


def test_an_alias_that_moves_means_the_other_model_next_time(in_sqlite: Logged) -> None:
    client, resolver = MlflowClient(in_sqlite.tracking_uri), Resolver(in_sqlite.tracking_uri)
    client.set_registered_model_alias("rf", "moving", "1")
    before = resolver.resolve(parse("models:/rf@moving"))
    client.set_registered_model_alias("rf", "moving", "2")
    after = resolver.resolve(parse("models:/rf@moving"))
    assert (before.model_id, after.model_id) == (f"models:/{in_sqlite.model_id}", "models:/rf/2")


def test_a_model_whose_files_are_gone_is_an_artifact_error(
    in_sqlite: Logged, sqlite_store: SqliteStore, in_server: Logged, saved: Path
) -> None:
    client = MlflowClient(in_sqlite.tracking_uri)
    version = client.create_model_version("rf", (sqlite_store.artifact_root / "gone").as_uri())
    resolver = Resolver(in_sqlite.tracking_uri)
    refused(lambda: resolver.fetch(resolver.resolve(parse(f"models:/rf/{version.version}"))), ArtifactError)
    client.delete_model_version("rf", version.version)

    served = MlflowClient(in_server.tracking_uri)
    root = served.get_run(in_server.run_id).info.artifact_uri
    version = served.create_model_version("rf", f"{root}/gone", in_server.run_id)
    resolver = Resolver(in_server.tracking_uri)
    refused(lambda: resolver.fetch(resolver.resolve(parse(f"models:/rf/{version.version}"))), ArtifactError)
    served.delete_model_version("rf", version.version)


# --- the operator's argument


def test_the_operators_argument_may_be_any_uri(logged: Logged, resolver: Resolver) -> None:
    wanted = f"models:/{logged.model_id}"
    for text in ("models:/rf@champion", "models:/rf/Latest", f"runs:/{logged.run_id}/model", wanted):
        assert resolver.resolve_argument(text).model_id == wanted
    refused(lambda: resolver.resolve_argument("models:/rf/Production"), ModelNotFoundError)


def test_an_artifact_uri_is_downloaded_and_known_by_its_content(in_server: Logged) -> None:
    resolver = Resolver(in_server.tracking_uri)
    location = resolver.resolve(parse("models:/rf/2")).location
    found = resolver.resolve_argument(location)
    folder = resolver.fetch(found).path
    assert (folder / "MLmodel").is_file()
    assert found.model_id.startswith("sha256:")
    assert resolver.resolve_argument(location).model_id == found.model_id
    resolver.discard(found)
    assert not folder.exists()
    assert (resolver.fetch(found).path / "MLmodel").is_file()
    refused(lambda: resolver.resolve_argument("mlflow-artifacts:/gone/model"), ArtifactError)
    resolver.close()


# --- a store that does not answer


def test_a_server_that_goes_down_and_comes_back(in_server: Logged) -> None:
    proxy = MlflowProxy(in_server.tracking_uri)
    resolver, uri = Resolver(proxy.uri), parse("models:/rf@champion")
    found = resolver.resolve(uri)
    Store(proxy.uri).ping()
    proxy.stop()
    refused(lambda: resolver.resolve(uri), StoreUnavailableError)
    refused(lambda: resolver.fetch(found), StoreUnavailableError)
    refused(Store(proxy.uri).ping, StoreUnavailableError)
    proxy = MlflowProxy(in_server.tracking_uri, proxy.server_port)
    assert resolver.resolve(uri) == found
    assert (resolver.fetch(found).path / "MLmodel").is_file()
    resolver.close()
    proxy.stop()
