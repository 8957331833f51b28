"""Aliases that move under load: no request fails or waits, and each answer is one version's."""

from __future__ import annotations

import asyncio
import gc
import json
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import psutil
import pytest
import requests

from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.endpoints import identity
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.motion.follower import IDLE_ROUNDS, Follower
from fin_pyfunc.serving.motion.last_good import LastGood
from fin_pyfunc.serving.motion.tally import Tally
from fin_pyfunc.serving.record.facts import of_model
from fin_pyfunc.serving.resolver import Resolver
from tests.motion.conftest import NAME, Registry, loaded
from tests.servers import Serving, serving
from tests.test_api import row
from tests.test_error_table import refused

ENV = {"FIN_PYFUNC__MODELS__REFRESH_SECONDS": "0.2"}


@pytest.fixture(scope="module")
def served(registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    registry.move("followed", 1)
    env = {**ENV, "MLFLOW_TRACKING_URI": registry.tracking_uri}
    with serving("-m", f"models:/{NAME}@followed", folder=tmp_path_factory.mktemp("followed"), env=env) as server:
        yield server


@pytest.fixture(autouse=True)
def back_to_the_first(registry: Registry, served: Serving) -> None:
    registry.move("followed", 1)
    until(served, registry.ids[1])


def until(server: Serving, model_id: str, uri: str | None = None) -> requests.Response:
    """Ask until this version answers."""
    deadline = time.monotonic() + 60
    while (answered := server.predict(row(), uri)).headers.get("X-Model-ID") != model_id:
        assert time.monotonic() < deadline, server.log()
        time.sleep(0.02)
    return answered


def admin(server: Serving) -> dict[str, Any]:
    answered = server.admin("/admin/models")
    assert answered.status_code == 200, answered.text
    body: dict[str, Any] = answered.json()
    return body


def test_an_alias_that_moves_under_load_fails_no_request_and_every_answer_is_one_versions(
    served: Serving, registry: Registry
) -> None:
    done, answers = threading.Event(), list[requests.Response]()
    bodies: list[tuple[str, dict[str, Any]]] = [
        ("/predict", {"features": row(), "return_proba": True}),
        ("/predict", {"features": row(), "return_proba": True, "model_uri": f"models:/{NAME}@followed"}),
        ("/predict/batch", {"features_list": [row()] * 3, "return_proba": True}),
        ("/invocations", {"dataframe_records": [row()]}),
    ]

    def ask(path: str, body: dict[str, Any]) -> None:
        with requests.Session() as session:
            while not done.is_set():
                answers.append(session.post(served.url + path, json=body, timeout=60))

    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask, *body) for body in bodies * 2]
        try:
            for version in (2, 1, 2, 1):
                registry.move("followed", version)
                until(served, registry.ids[version])
                until(served, registry.ids[version], f"models:/{NAME}@followed")
                time.sleep(0.2)
        finally:
            done.set()
        for each in asking:
            each.result()
    assert {answered.status_code for answered in answers} == {200}
    seen = set()
    for answered in answers:
        body, model_id = answered.json(), answered.headers["X-Model-ID"]
        if "predictions" in body and body.get("probabilities") is None:  # MLflow's
            rows = [{n: p[f"probability_{n}"] for n in ("-1", "0", "1")} for p in body["predictions"]]
        else:
            rows = body["probabilities"] if isinstance(body["probabilities"], list) else [body["probabilities"]]
        seen.add(model_id)
        for probabilities in rows:
            assert probabilities == pytest.approx(registry.answers[model_id], abs=1e-6)
    assert seen == {registry.ids[1], registry.ids[2]}


def test_the_version_before_is_gone_from_memory_once_nothing_stands_for_it(served: Serving, registry: Registry) -> None:
    registry.move("followed", 2)
    until(served, registry.ids[2])
    until(served, registry.ids[2], f"models:/{NAME}@followed")
    assert registry.ids[2] in (entries := loaded(admin(served)))
    assert registry.ids[1] not in entries
    assert entries[registry.ids[2]]["is_default"]


@pytest.mark.parametrize(("version", "word"), [(3, "damaged"), (4, "recorded example")])
def test_a_version_that_is_bad_stays_out_and_is_not_tried_at_every_look(
    served: Serving, registry: Registry, version: int, word: str
) -> None:
    before = served.predict(row(), return_proba=True)
    tries = served.log().count(f"and not as {registry.ids[version]}")
    registry.move("followed", version)
    served.wait_for_log(f"and not as {registry.ids[version]}", times=tries + 1)
    time.sleep(1)  # five more looks
    assert served.log().count(f"and not as {registry.ids[version]}") <= tries + 2  # the default's, and a client's
    after = served.predict(row(), return_proba=True)
    assert after.json() == before.json()
    assert after.headers["X-Model-ID"] == registry.ids[1]
    stays_out = admin(served)["rejected"][0]
    assert (stays_out["model_id"], stays_out["model_uri"]) == (registry.ids[version], f"models:/{NAME}@followed")
    assert word in stays_out["reason"]
    assert stays_out["retry_in_seconds"] > 0
    assert word in refused(served.predict(row(), f"models:/{NAME}/{version}"), 500)["detail"]


def test_a_bad_version_is_forgotten_once_the_alias_leads_elsewhere(served: Serving, registry: Registry) -> None:
    registry.move("followed", 4)
    deadline = time.monotonic() + 60
    while not admin(served)["rejected"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    registry.move("followed", 2)
    until(served, registry.ids[2])
    assert not admin(served)["rejected"]


def test_an_alias_that_is_removed_is_unknown_to_clients_and_the_default_goes_on(
    served: Serving, registry: Registry
) -> None:
    registry.move("removed", 1)
    until(served, registry.ids[1], f"models:/{NAME}@removed")
    registry.remove("removed")
    registry.remove("followed")
    deadline = time.monotonic() + 60
    while served.predict(row(), f"models:/{NAME}@removed").status_code == 200:
        assert time.monotonic() < deadline
    refused(served.predict(row(), f"models:/{NAME}@removed"), 404)
    served.wait_for_log("and not as nothing")
    assert served.predict(row()).headers["X-Model-ID"] == registry.ids[1]
    registry.move("followed", 2)
    until(served, registry.ids[2])


def test_a_worker_that_starts_while_the_alias_leads_to_a_bad_version_answers_as_the_one_before_it(
    served: Serving, registry: Registry
) -> None:
    registry.move("followed", 3)
    served.wait_for_log(f"@followed goes on as {registry.ids[1]} and not as {registry.ids[3]}")
    (worker,) = psutil.Process(served.process.pid).children()
    worker.kill()
    served.wait_for_log("as in the other workers")
    served.wait_for("/health/ready")
    assert served.predict(row()).headers["X-Model-ID"] == registry.ids[1]
    registry.move("followed", 2)
    until(served, registry.ids[2])


def test_mlflow_that_is_away_changes_nothing_and_is_asked_again(served: Serving, registry: Registry) -> None:
    before = served.predict(row(), return_proba=True)
    elsewhere = registry.database.with_suffix(".away")
    registry.database.rename(elsewhere)
    try:
        served.wait_for_log("following aliases: MLflow does not answer")
        after = served.predict(row(), return_proba=True)
        assert after.json() == before.json()
        assert after.headers["X-Model-ID"] == before.headers["X-Model-ID"]
    finally:
        elsewhere.rename(registry.database)
    registry.move("followed", 2)
    until(served, registry.ids[2])
    assert served.log().count("following aliases: MLflow") == 2


# --- in this process -------------------------------------------------------------------------------------------------


class Worker:
    """The parts of one worker that follow, looked at one look at a time."""

    def __init__(self, registry: Registry, max_models: int = 10) -> None:
        self.resolver = Resolver(registry.tracking_uri)
        load_one = partial(load, self.resolver, backend=None)
        self.cache = ModelCache(self.resolver, load_one, max_models, 30.0, is_followed=True)
        self.tally = Tally()
        self.default = DefaultModel(self.cache, f"models:/{NAME}@counted", LastGood(Board()))
        self.follower = Follower(self.cache, self.default, 30.0, self.tally)

    def close(self) -> None:
        self.follower.close()
        self.cache.close()


def test_nothing_is_looked_at_in_the_first_seconds(registry: Registry) -> None:
    registry.move("counted", 1)

    async def begin() -> None:
        worker = Worker(registry)
        try:
            await worker.default.start()
            registry.move("counted", 2)
            following = asyncio.create_task(worker.follower.run())
            await asyncio.sleep(0.5)
            assert (following.done(), worker.tally.total("followed")) == (False, 0)
            following.cancel()
        finally:
            worker.close()

    asyncio.run(begin())


def test_the_old_version_is_freed_after_its_last_request_and_outcomes_are_counted(registry: Registry) -> None:
    registry.move("counted", 1)

    async def follow() -> None:
        worker = Worker(registry)
        try:
            await worker.default.start()
            held = worker.default.peek()  # by a request that is under way
            assert held is not None
            old = weakref.ref(held)
            registry.move("counted", 2)
            await worker.follower.look()
            assert worker.tally.total("followed") == 1
            assert worker.default.peek() is not held
            assert held.model.decide([row()]).distributions == [
                pytest.approx(registry.answers[registry.ids[1]], abs=1e-6)
            ]
            del held
            gc.collect()
            assert old() is None
            for version, reason in ((3, "files"), (4, "example")):
                registry.move("counted", version)
                await worker.follower.look()
                await worker.follower.look()  # not tried again yet
                assert worker.tally.by_label("rejected")[reason,] == 1
            assert worker.default.loaded is not None
            assert worker.default.loaded.resolved.model_id == registry.ids[2]
        finally:
            worker.close()

    asyncio.run(follow())


def test_a_default_model_goes_by_its_own_uri_whoever_loaded_it_and_one_move_is_told_once(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.move("counted", 1)
    uri = f"models:/{NAME}@counted"

    async def follow() -> None:
        worker = Worker(registry)
        try:
            await worker.default.start()
            await worker.cache.get(uri)  # a client's, which is followed, too
            await worker.cache.get(f"models:/{NAME}/2")
            registry.move("counted", 2)
            with caplog.at_level("INFO"):
                await worker.follower.look()
            model = worker.default.loaded
            assert model is not None
            assert model.resolved.model_id == registry.ids[2]
            assert identity(None, model) == {"X-Model-URI": uri, "X-Model-ID": registry.ids[2]}
            said = json.loads(b"{" + of_model(model, None, "onnx") + b"}")
            assert (said["model_uri"], said["default_model"]) == (uri, True)
            assert identity(f"models:/{NAME}/2", model)["X-Model-URI"] == f"models:/{NAME}/2"
            assert worker.tally.total("followed") == 1
            assert caplog.text.count("from now on") == 1
        finally:
            worker.close()

    asyncio.run(follow())


def test_an_alias_that_nobody_asks_for_any_more_is_not_followed_for_ever(registry: Registry) -> None:
    registry.move("idle", 1)
    uri = f"models:/{NAME}@idle"

    async def follow() -> None:
        worker = Worker(registry)
        try:
            await worker.cache.get(uri)
            for _ in range(IDLE_ROUNDS):
                await worker.follower.look()
                assert worker.cache.peek(uri) is not None
            for _ in range(IDLE_ROUNDS + 1):
                await worker.follower.look()
            assert worker.cache.peek(uri) is None
            assert (await worker.cache.get(uri)).resolved.model_id == registry.ids[1]
        finally:
            worker.close()

    asyncio.run(follow())


def test_what_is_not_kept_in_memory_is_resolved_anew(registry: Registry) -> None:
    registry.move("unkept", 1)
    uri = f"models:/{NAME}@unkept"

    async def follow() -> None:
        worker = Worker(registry, max_models=0)
        try:
            assert (await worker.cache.get(uri)).resolved.model_id == registry.ids[1]
            registry.move("unkept", 2)
            await worker.follower.look()
            assert (await worker.cache.get(uri)).resolved.model_id == registry.ids[2]
        finally:
            worker.close()

    asyncio.run(follow())
