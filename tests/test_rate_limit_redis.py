"""Rates that all workers and hosts count together, in a real Redis, and what happens when it is not there."""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis
import requests

from fin_pyfunc.serving.rates import RedisCounter, StorageError, counter
from fin_pyfunc.serving.settings import Rate
from tests.conftest import free_port, stop_process
from tests.servers import Serving, serving

pytestmark = pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")


class Redis:
    """A redis-server, which can be stopped, frozen and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.port = folder, free_port()
        self.uri = f"redis://127.0.0.1:{self.port}/0"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--dir", self._folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        client = redis.Redis(port=self.port)
        deadline = time.monotonic() + 30
        while True:
            try:
                client.ping()
                return
            except redis.RedisError:
                assert time.monotonic() < deadline
                time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            stop_process(self.process)
            self.process = None


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Redis]:
    found = Redis(tmp_path)
    found.start()
    yield found
    found.stop()


@contextmanager
def limited(folder: Path, store: Redis, rate: str, *arguments: str, **more: str) -> Iterator[Serving]:
    folder.mkdir()
    env = {"FIN_PYFUNC__RATE__REQUESTS": rate, "FIN_PYFUNC__RATE__STORAGE": store.uri, **more}
    with serving(*arguments, folder=folder, env=env, wait_for="/health/live") as server:
        yield server


def ask(server: Serving, address: str = "192.0.2.1") -> requests.Response:
    return requests.post(
        server.url + "/predict", json={"features": {}}, headers={"X-Forwarded-For": address}, timeout=30
    )


def test_workers_and_hosts_count_together(tmp_path: Path, store: Redis) -> None:
    rate = "10/hour"
    with limited(tmp_path / "a", store, rate, "--workers", "2") as a, limited(tmp_path / "b", store, rate) as b:
        statuses = [ask((a, b)[i % 2]).status_code for i in range(20)]
        assert statuses == [422] * 10 + [429] * 10
        refused = ask(b)
        assert 1 <= int(refused.headers["Retry-After"]) <= 3600
        assert ask(b, "192.0.2.2").status_code == 422  # another caller


@pytest.mark.long
def test_while_redis_is_away_requests_pass_or_not_as_the_settings_say_and_none_hangs(
    tmp_path: Path, store: Redis
) -> None:
    closed = {"FIN_PYFUNC__RATE__WHEN_STORAGE_FAILS": "closed"}
    with limited(tmp_path / "a", store, "5/hour") as opened, limited(tmp_path / "b", store, "5/hour", **closed) as shut:
        assert [ask(opened).status_code for _ in range(6)] == [422] * 5 + [429]
        assert store.process is not None
        store.process.send_signal(signal.SIGSTOP)  # it takes connections and answers nothing
        assert [ask(opened).status_code for _ in range(10)] == [422] * 10
        for _ in range(10):
            refused = ask(shut)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"]
            assert "count" in refused.json()["detail"]
        store.stop()
        time.sleep(1.1)
        assert [ask(opened).status_code for _ in range(3)] == [422] * 3
        assert ask(shut).status_code == 503
        assert requests.get(shut.url + "/health/live", timeout=30).status_code == 200
        store.start()
        for server in (opened, shut):
            server.wait_for_log("Redis does not count requests")
            deadline = time.monotonic() + 30
            while ask(server).status_code != 429:  # it counts again
                assert time.monotonic() < deadline
                time.sleep(0.02)
            assert server.log().count("Redis does not count requests") == 1
            assert "Redis counts requests again" in server.log()
            assert str(store.port) not in server.log()


def test_each_request_that_could_not_be_counted_is_told_to_whoever_counts_troubles() -> None:
    told: list[str] = []
    counts = counter(Rate(requests="1/second", storage=f"redis://127.0.0.1:{free_port()}/0"))
    assert isinstance(counts, RedisCounter)
    counts.on_trouble = told.append

    async def three() -> None:
        for _ in range(3):
            with pytest.raises(StorageError):
                await counts.count("key", "desk")

    asyncio.run(three())
    assert told == ["ConnectionError", "not asked", "not asked"]


def test_an_address_is_believed_from_a_trusted_proxy_alone(tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__RATE__REQUESTS": "2/hour", "FIN_PYFUNC__RATE__TRUSTED_PROXIES": "10.0.0.1,192.0.2.0/24"}
    with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
        assert [ask(server, f"198.51.100.{i}").status_code for i in range(3)] == [422, 422, 429]
    env["FIN_PYFUNC__RATE__TRUSTED_PROXIES"] = "127.0.0.1,192.0.2.0/24"
    with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
        # what the caller wrote itself stands before what the proxies added
        forged = [ask(server, f"203.0.113.{i}, 198.51.100.7, 192.0.2.9").status_code for i in range(3)]
        assert forged == [422, 422, 429]
        assert ask(server, "198.51.100.8, 192.0.2.9").status_code == 422
    env["FIN_PYFUNC__RATE__TRUSTED_PROXIES"] = ""
    with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
        assert [ask(server, f"198.51.100.{i}").status_code for i in range(3)] == [422, 422, 429]
