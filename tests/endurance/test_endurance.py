"""A minute of load through everything that is done to a server: no request is lost but those a killed worker held."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
from mlflow import MlflowClient
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from tests.conftest import MlflowProxy, MlflowServer, tracking_to
from tests.endurance.load import Load, Outcome
from tests.models import bars, labels
from tests.operations.exposition import total, wait_for
from tests.servers import Serving, serving
from tests.test_api import row

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

NAME = "endurance_lr"
N_ROWS, CONNECTIONS, RATE = 50, 16, 400.0
#: Seconds between two things that are done; with the last of them a minute of load is over.
PAUSE = 7.0


class Ordeal:
    """A server under load, and what is done to it; each method is one thing."""

    def __init__(self, server: Serving, proxy: MlflowProxy, target: str, config: Path) -> None:
        self.server, self._proxy, self._target, self._config = server, proxy, target, config

    def workers(self) -> set[int]:
        children = psutil.Process(self.server.process.pid).children()
        return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}

    async def until(self, holds: Callable[[], Any]) -> None:
        async with asyncio.timeout(180):
            while not await asyncio.to_thread(holds):
                await asyncio.sleep(0.1)

    async def both_are_ready(self) -> None:
        await asyncio.to_thread(wait_for, self.server.url, lambda n: total(n, "fin_pyfunc_workers_ready") == 2, 180)

    async def reload(self) -> None:
        before = self.workers()
        self._config.write_text(self._config.read_text().replace("max_models: 5", "max_models: 6"))
        self.server.process.send_signal(signal.SIGHUP)
        await self.until(lambda: not before & self.workers())
        await self.both_are_ready()

    async def stop_mlflow(self) -> None:
        await asyncio.to_thread(self._proxy.stop)
        await asyncio.to_thread(self.server.wait_for_log, "does not answer any more")

    async def start_mlflow(self) -> None:
        self._proxy = MlflowProxy(self._target, int(self._proxy.uri.rpartition(":")[2]))
        await asyncio.to_thread(wait_for, self.server.url, lambda n: total(n, "fin_pyfunc_mlflow_up") == 1)

    async def swap_the_alias(self) -> None:
        with tracking_to(self._target):
            MlflowClient().set_registered_model_alias(NAME, "champion", "2")
        await asyncio.to_thread(
            wait_for, self.server.url, lambda n: total(n, "fin_pyfunc_alias_swaps_total", result="swapped") == 2
        )

    async def switch_a_shadow_on(self) -> None:
        body = {"model_uri": f"models:/{NAME}/1", "share": 1.0}
        answered = await asyncio.to_thread(self.server.admin, "/admin/shadow", body)
        assert answered.status_code == 200, answered.text
        await asyncio.to_thread(wait_for, self.server.url, lambda n: total(n, "fin_pyfunc_shadow_rows_total") > 0)

    async def kill_a_worker(self) -> None:
        victim = min(self.workers())
        os.kill(victim, signal.SIGKILL)
        await self.until(lambda: victim not in self.workers())
        await self.both_are_ready()

    def close(self) -> None:
        self._proxy.stop()


@pytest.fixture
def ordeal(mlflow_server: MlflowServer, tmp_path: Path) -> Iterator[Ordeal]:
    with tracking_to(mlflow_server.uri):
        experiment = mlflow.create_experiment(NAME)
        for names in ((-1, 0, 1), (1, 0, -1)):
            with mlflow.start_run(experiment_id=experiment):
                estimator = LogisticRegression().fit(bars(), labels(*names))
                fin_pyfunc.log_model(estimator, bars(), registered_model_name=NAME)
        MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    proxy = MlflowProxy(mlflow_server.uri)
    config = tmp_path / "api.yaml"
    config.write_text(
        f"deployment:\n  api:\n    workers: 2\n    model_uri: models:/{NAME}@champion\n    cache: {{max_models: 5}}\n"
        f"    models: {{refresh_seconds: 1}}\n    mlflow: {{tracking_uri: '{proxy.uri}', probe_seconds: 0.5}}\n"
    )
    with serving("--config", str(config), folder=tmp_path) as server:
        wait_for(server.url, lambda n: total(n, "fin_pyfunc_workers_ready") == 2)
        ordeal = Ordeal(server, proxy, mlflow_server.uri, config)
        yield ordeal
        ordeal.close()


def expected(server: Serving, rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What each version answers to each row."""
    found = {}
    for version in (1, 2):
        answers = [server.predict(each, f"models:/{NAME}/{version}", return_proba=True) for each in rows]
        found[answers[0].headers["X-Model-ID"]] = [answer.json() for answer in answers]
    return found


def test_a_minute_of_load_through_everything_that_is_done_to_a_server(ordeal: Ordeal) -> None:
    server, rows = ordeal.server, [row(i) for i in range(N_ROWS)]
    load = Load(int(server.url.rpartition(":")[2]), rows, expected(server, rows), CONNECTIONS, RATE)
    # what is done, in this order; whatever else a server must live through is one more line
    steps: list[Callable[[], Awaitable[None]]] = [
        ordeal.reload,
        ordeal.stop_mlflow,
        ordeal.start_mlflow,
        ordeal.swap_the_alias,
        ordeal.switch_a_shadow_on,
        ordeal.kill_a_worker,
        ordeal.reload,
    ]
    at: list[tuple[float, float]] = []

    async def run() -> Outcome:
        running = asyncio.create_task(load.run())
        for step in steps:
            await asyncio.sleep(max(1.0, PAUSE * (len(at) + 1) - load.now))
            began = load.now
            await step()
            at.append((began, load.now))
        await asyncio.sleep(max(1.0, 60.0 - load.now))
        load.end_expected()
        server.process.terminate()
        await asyncio.to_thread(server.process.wait, 60)
        load.stop()
        return await running

    outcome = asyncio.run(run())
    killed = at[steps.index(ordeal.kill_a_worker)]
    assert outcome.wrong == []
    assert outcome.refused == []
    # each connection of the killed worker is lost once, and no other one ever
    assert all(killed[0] <= moment <= killed[1] + 1 for moment in outcome.closed), (at, outcome.closed)
    assert len(outcome.closed) <= CONNECTIONS
    assert len(outcome.answered) == 2  # the version before the swap, and the one after
    assert outcome.total > 60 * RATE / 3  # it was asked all the time, on however busy a machine
    assert server.process.returncode == 0
