"""Workers that come and go under load: real processes, real signals, every answer checked."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from tests.endurance.load import Load, Outcome
from tests.operations.exposition import total, wait_for
from tests.servers import Serving, serving
from tests.shelf import Shelf
from tests.test_api import row

pytestmark = pytest.mark.timeout(600)

N_ROWS, CONNECTIONS, RATE = 20, 8, 100.0


@pytest.fixture
def config(tmp_path: Path, model_folder: Path) -> Path:
    return configured(tmp_path / "api.yaml", model_folder)


def configured(file: Path, model_folder: Path, more: str = "") -> Path:
    file.write_text(f"deployment:\n  api:\n    workers: 2\n    model_uri: {model_folder}\n{more}")
    return file


@pytest.fixture
def server(config: Path, tmp_path: Path) -> Iterator[Serving]:
    (tmp_path / "tmp").mkdir()
    with serving("--config", str(config), folder=tmp_path, env={"TMPDIR": str(tmp_path / "tmp")}) as server:
        wait_for(server.url, lambda n: total(n, "fin_pyfunc_workers_ready") == 2)
        yield server


def workers(server: Serving) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children() if child.status() != "zombie"}


def under_load(server: Serving, what: Callable[[], Awaitable[None]]) -> Outcome:
    """Do something while rows are asked for, and see what became of them."""
    rows = [row(i) for i in range(N_ROWS)]
    answers = [server.predict(each, return_proba=True) for each in rows]
    expected = {answers[0].headers["X-Model-ID"]: [answer.json() for answer in answers]}
    load = Load(int(server.url.rpartition(":")[2]), rows, expected, CONNECTIONS, RATE)

    async def both() -> Outcome:
        running = asyncio.create_task(load.run())
        await asyncio.sleep(0.5)
        await what()
        await asyncio.sleep(0.5)
        load.stop()
        return await running

    return asyncio.run(both())


async def until(holds: Callable[[], Any], seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not await asyncio.to_thread(holds):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.1)


def test_sighup_takes_a_new_configuration_with_no_request_lost(
    server: Serving, config: Path, model_folder: Path
) -> None:
    before = workers(server)

    async def reload() -> None:
        configured(config, model_folder, "    limits: {max_batch_rows: 3}\n")
        server.process.send_signal(signal.SIGHUP)
        await until(lambda: not workers(server) & before and len(workers(server)) == 2)

    outcome = under_load(server, reload)
    assert (outcome.closed, outcome.refused, outcome.wrong) == ([], [], [])
    assert outcome.total > 50
    assert server.process.poll() is None  # the same process as ever
    assert server.predict_batch([row()] * 4).status_code == 413
    # what was counted before still counts
    numbers = wait_for(server.url, lambda n: total(n, "fin_pyfunc_worker_exits_total", reason="reload") == 2)
    assert total(numbers, "fin_pyfunc_reloads_total", result="taken") == 1
    assert total(numbers, "fin_pyfunc_requests_total", route="/predict", status="200") >= outcome.total


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("    cache: {max_modles: 3}\n", "deployment.api.cache.max_modles"),
        ("    preload: ['models:/nobody/1']\n", "preload list"),
        ("    auth: {mode: keys, keys_file: nowhere.json}\n", "nowhere.json"),
    ],
)
def test_a_bad_configuration_is_said_and_changes_nothing(
    server: Serving, config: Path, model_folder: Path, more: str, said: str
) -> None:
    before = workers(server)
    configured(config, model_folder, more)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("is not taken, all goes on as it was", seconds=240)
    (line,) = (line for line in server.log().splitlines() if "is not taken" in line)
    assert said in line
    assert workers(server) == before
    assert server.predict(row()).status_code == 200
    assert total(wait_for(server.url, bool), "fin_pyfunc_reloads_total", result="refused") == 1
    # and a good one is still taken afterwards
    configured(config, model_folder)
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_log("the new configuration and code are taken", seconds=240)
    server.wait_for("/health/ready")


def test_a_worker_killed_under_load_costs_what_it_held_and_is_replaced(server: Serving) -> None:
    before = workers(server)

    async def kill() -> None:
        os.kill(min(before), signal.SIGKILL)
        await until(lambda: len(workers(server)) == 2 and min(before) not in workers(server))
        url = server.url
        await asyncio.to_thread(wait_for, url, lambda n: total(n, "fin_pyfunc_workers_ready") == 2)

    outcome = under_load(server, kill)
    assert (outcome.refused, outcome.wrong) == ([], [])
    assert len(outcome.closed) <= CONNECTIONS  # each at most once
    assert outcome.total > 20


def test_with_one_worker_whoever_comes_while_it_is_replaced_waits_and_is_answered(
    model_folder: Path, tmp_path: Path
) -> None:
    with serving("-m", str(model_folder), folder=tmp_path) as server:
        (before,) = workers(server)
        os.kill(before, signal.SIGKILL)
        assert server.predict(row()).status_code == 200
        assert before not in workers(server)


def test_a_worker_that_has_grown_is_replaced_with_no_request_lost(model_folder: Path, tmp_path: Path) -> None:
    # a worker that has just started is measured first, so the limit is set beyond that by what a big body takes
    with serving("-m", str(model_folder), folder=tmp_path) as probe:
        numbers = wait_for(probe.url, lambda n: total(n, "fin_pyfunc_workers_ready") == 1)
        limit = int(total(numbers, "fin_pyfunc_worker_memory_bytes")) + 60_000_000
    env = {"FIN_PYFUNC__LIMITS__WORKER_MEMORY": str(limit), "FIN_PYFUNC__LIMITS__MAX_BATCH_ROWS": "1000000"}
    with serving("-m", str(model_folder), folder=tmp_path, env=env) as server:
        (before,) = workers(server)

        async def grow() -> None:
            rows = [row(i % N_ROWS) for i in range(150_000)]
            for _ in range(20):
                if before not in workers(server):
                    break
                asked = asyncio.to_thread(server.predict_batch, rows, return_proba=True)
                assert (await asked).status_code == 200
            await until(lambda: before not in workers(server))

        outcome = under_load(server, grow)
        assert (outcome.closed, outcome.refused, outcome.wrong) == ([], [], [])
        server.wait_for_log("takes more than limits.worker_memory")
        numbers = wait_for(server.url, lambda n: total(n, "fin_pyfunc_worker_exits_total", reason="memory") >= 1)


def test_a_limit_below_what_a_worker_starts_with_is_said_and_not_heeded(model_folder: Path, tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__LIMITS__WORKER_MEMORY": "1000"}
    with serving("-m", str(model_folder), folder=tmp_path, env=env) as server:
        before = workers(server)
        server.wait_for_log("it is not heeded")
        time.sleep(2)
        assert workers(server) == before
        assert server.predict(row()).status_code == 200


def test_sigterm_ends_within_drain_seconds_whatever_is_still_under_way(shelf: Shelf, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__DRAIN_SECONDS": "1", "TMPDIR": str(tmp_path)}
    with serving("-m", shelf.uris["sleeps"], folder=tmp_path, env=env) as server:

        async def ask() -> None:
            loop = asyncio.get_running_loop()
            asked = loop.run_in_executor(None, server.predict, {**row(), "spread": 10})
            await asyncio.sleep(1)
            server.process.terminate()
            began = time.monotonic()
            await asyncio.to_thread(server.process.wait, 60)
            took = time.monotonic() - began
            with pytest.raises(requests.ConnectionError):
                await asked
            assert took < 8  # the row takes 10 s, and 1 s is what it gets

        asyncio.run(ask())
    deadline = time.monotonic() + 10  # the processes of models end when they hear that the server has
    while list(tmp_path.glob("fin_pyfunc-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_end_when_their_arbiter_is_killed_so_that_another_server_can_listen(
    model_folder: Path, tmp_path: Path
) -> None:
    with serving("-m", str(model_folder), "--workers", "2", folder=tmp_path) as server:
        running = workers(server)
        server.process.kill()
        server.process.wait(30)
        _, alive = psutil.wait_procs([psutil.Process(pid) for pid in running if psutil.pid_exists(pid)], timeout=60)
        assert not alive


def test_preloaded_models_are_warm_before_the_server_is_ready(shelf: Shelf, tmp_path: Path) -> None:
    uris = [shelf.uris["words"], shelf.uris["gaps"]]
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__PRELOAD": ",".join(uris)}
    with serving(folder=tmp_path, env=env) as server:
        assert requests.get(server.url + "/health", timeout=10).json()["cached_models"] == 2
        for uri in uris:
            assert f"model {uri} is ready" in server.log()
            assert server.predict(row(), uri).status_code == 200
        assert server.log().count("loaded models:/") == 2


def test_preloaded_models_stay_whatever_else_is_asked_for(shelf: Shelf, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__PRELOAD": shelf.uris["words"]}
    env["FIN_PYFUNC__CACHE__MAX_MODELS"] = "1"
    with serving(folder=tmp_path, env=env) as server:
        for name in ("gaps", "forest"):
            server.predict(row(), shelf.uris[name])
        assert server.log().count("evicted") == 1
        assert server.predict(row(), shelf.uris["words"]).status_code in (200, 422)
        assert server.log().count("loaded models:/") == 3


def test_a_preloaded_model_that_does_not_exist_ends_the_start_with_one_sentence(shelf: Shelf, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__PRELOAD": "models:/nobody/1"}
    with serving(folder=tmp_path, env=env, wait_for=None) as server:
        assert server.process.wait(120) != 0
        assert "the model models:/nobody/1 of the preload list cannot be loaded" in server.log()
        assert "Traceback" not in server.log()
