"""How much a caller can have loaded: sizes, loads at once, and URIs that lead to nothing."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError, ModelNotFoundError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolved, Resolver
from fin_pyfunc.serving.trust.loads import Loads
from fin_pyfunc.serving.trust.unknown import Unknown
from fin_pyfunc.serving.uris import parse
from tests.conftest import MlflowProxy, MlflowServer, tracking_to
from tests.models import logistic
from tests.servers import serving
from tests.shelf import Shelf
from tests.test_api import row


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def resolved(name: str) -> Resolved:
    return Resolved(name, name, "/nowhere", None, mutable=False, kind="mlflow")


def test_what_is_not_there_stays_so_for_a_while_and_no_longer() -> None:
    clock = Clock()
    unknown = Unknown(5, 10, max_uris=2, clock=clock)
    for uri in ("a", "b", "c"):
        with pytest.raises(ModelNotFoundError, match="none"), unknown.remembering(uri):
            raise ModelNotFoundError("There is none.")
    unknown.check("a")  # the oldest makes room
    with pytest.raises(ModelNotFoundError, match="There is none") as again:
        unknown.check("c")
    assert again.value.__cause__ is None
    clock.now += 5
    unknown.check("c")
    with pytest.raises(RequestError), unknown.remembering("d"):
        raise RequestError(503, "Busy.")
    unknown.check("d")  # that may be over at once


def test_only_questions_that_lead_to_nothing_are_counted() -> None:
    clock = Clock()
    unknown = Unknown(5, 3, clock=clock)
    for _ in range(50):
        with unknown.asking():
            pass
    for _ in range(3):
        with pytest.raises(ModelNotFoundError), unknown.asking():
            raise ModelNotFoundError("There is none.")
    with pytest.raises(RequestError, match="not there") as refused, unknown.asking():
        pass
    assert refused.value.status == 503
    assert "Retry-After" in refused.value.headers
    clock.now += 0.4
    with unknown.asking():
        pass


def test_a_stream_of_made_up_uris_is_turned_away_without_asking_the_store(
    mlflow_server: MlflowServer, tmp_path: Path
) -> None:
    proxy = MlflowProxy(mlflow_server.uri)
    env = {
        "MLFLOW_TRACKING_URI": proxy.uri,
        "FIN_PYFUNC__MODELS__UNKNOWN_PER_SECOND": "2",
        "FIN_PYFUNC__MODELS__UNKNOWN_SECONDS": "300",
        "FIN_PYFUNC__MLFLOW__PROBE_SECONDS": "3600",
    }
    try:
        with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
            assert server.predict({"a": 1}, "models:/made-up/1").status_code == 404
            before = proxy.count
            statuses = [server.predict({"a": 1}, "models:/made-up/1").status_code for _ in range(30)]
            assert statuses == [404] * 30  # from memory
            assert proxy.count == before
            threads = 40
            answers: list[Any] = []
            ask = [
                threading.Thread(
                    target=lambda i=i: answers.append(server.predict({"a": 1}, f"models:/made-up/{i + 2}"))
                )
                for i in range(threads)
            ]
            for thread in ask:
                thread.start()
            for thread in ask:
                thread.join()
            turned_away = [answer for answer in answers if answer.status_code == 503]
            assert {answer.status_code for answer in answers} <= {404, 503}
            assert turned_away
            assert all(answer.headers["Retry-After"] for answer in turned_away)
            assert server.predict({"a": 1}, "models:/made-up/1").status_code == 404
    finally:
        proxy.stop()


def test_a_model_that_does_not_load_is_not_loaded_for_each_request(shelf: Shelf) -> None:
    tried = []

    def fails(of: Resolved) -> Any:
        tried.append(of)
        raise ArtifactError("It is damaged.")

    async def ask() -> None:
        cache = ModelCache(Resolver(shelf.tracking_uri), fails, 2, 30, unknown=Unknown(60, 10))
        for _ in range(5):
            with pytest.raises(ArtifactError, match="damaged"):
                await cache.get(shelf.uris["forest"])
        cache.close()

    asyncio.run(ask())
    assert len(tried) == 1


def too_long(loads: Loads[str]) -> None:
    with pytest.raises(RequestError, match=r"longer than the 0\.2 s") as refused:
        loads(resolved("slow"))
    assert refused.value.status == 503


def test_a_load_that_never_ends_keeps_no_other_from_its_turn() -> None:
    goes_on, discarded = threading.Event(), []

    def one(of: Resolved) -> str:
        if of.uri == "slow":
            goes_on.wait(60)
        return of.uri

    loads: Loads[str] = Loads(one, discarded.append, at_once=1, seconds=0.2)
    assert loads(resolved("quick")) == "quick"
    too_long(loads)
    assert loads(resolved("quick")) == "quick"
    too_long(loads)
    with pytest.raises(RequestError, match="still under way"):
        loads(resolved("quick"))
    goes_on.set()
    for _ in range(200):
        if len(discarded) == 2:
            break
        threading.Event().wait(0.05)
    assert [of.uri for of in discarded] == ["slow", "slow"]
    assert loads(resolved("quick")) == "quick"


def test_what_was_downloaded_for_a_model_that_does_not_load_is_removed() -> None:
    discarded: list[Resolved] = []

    def fails(of: Resolved) -> str:
        raise ArtifactError("It is damaged.")

    with pytest.raises(ArtifactError):
        Loads(fails, discarded.append, 1, 60)(resolved("a"))
    assert len(discarded) == 1


@pytest.mark.parametrize("bound", [100, 10**9])
def test_a_model_that_is_too_large_is_not_fetched(bound: int, mlflow_server: MlflowServer) -> None:
    client = MlflowClient(mlflow_server.uri)
    experiment = client.get_experiment_by_name("sizes")
    with tracking_to(mlflow_server.uri):
        made = experiment.experiment_id if experiment else client.create_experiment("sizes")
        with mlflow.start_run(experiment_id=made) as run:
            mlflow.sklearn.log_model(logistic().estimator, name="model", pip_requirements=["skops"])
    resolver = Resolver(mlflow_server.uri, max_bytes=bound, artifact_roots=())
    found = resolver.resolve(parse(f"runs:/{run.info.run_id}/model"))
    if bound > 100:
        assert load(resolver, found).model.features is not None
    else:
        with pytest.raises(ModelForbiddenError, match=r"deployment\.api\.models\.max_bytes"):
            resolver.fetch(found)
        assert resolver._fetched == {}
        assert resolver._root is not None
        assert list(resolver._root.iterdir()) == []
    resolver.close()


def test_a_local_model_that_is_too_large_is_not_opened(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(bytes(1000))
    resolver = Resolver(shelf.tracking_uri, max_bytes=500, file_roots=[tmp_path])
    for fetch in (
        lambda: resolver.resolve(parse((tmp_path / "m.onnx").as_uri())),
        lambda: resolver.fetch(resolver.resolve(parse(shelf.uris["forest"]))),
    ):
        with pytest.raises(ModelForbiddenError, match="larger than this server loads"):
            fetch()


def test_a_server_takes_the_bounds_of_its_settings(shelf: Shelf, tmp_path: Path) -> None:
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__MODELS__ALLOW": "models:/eurusd_*@champion",
        "FIN_PYFUNC__MODELS__TRUST": "data",
    }
    with serving("-m", shelf.uris["words"], folder=tmp_path, env=env) as server:
        assert server.predict(row()).status_code == 200  # the operator's own is not held to `allow`
        assert server.predict(row(), "models:/eurusd_rf@champion").status_code == 200
        for uri in ("models:/eurusd_rf/1", shelf.uris["words"]):
            refused = server.predict(row(), uri)
            assert refused.status_code == 403
            assert "deployment.api.models.allow" in refused.json()["detail"]
