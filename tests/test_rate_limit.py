"""How often one caller may ask, on real servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from limits import parse

from fin_pyfunc.serving import rates
from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from tests.servers import Serving, serving

LIMITED = [("POST", "/predict"), ("POST", "/predict/batch"), ("POST", "/invocations"), ("GET", "/models")]
FREE = ["/", "/health", "/health/live", "/health/ready", "/ping", "/version", "/openapi.json"]


def ask(server: Serving, method: str, path: str, **headers: str) -> requests.Response:
    return requests.request(method, server.url + path, headers=headers, json={"features": {}}, timeout=30)


@pytest.fixture(scope="module")
def by_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """Four requests an hour for each address; on loopback the server believes what a proxy says of the address."""
    folder = tmp_path_factory.mktemp("by-address")
    with serving(folder=folder, env={"FIN_PYFUNC__RATE__REQUESTS": "4/hour"}, wait_for="/health") as server:
        yield server


def test_a_caller_beyond_the_rate_is_429_with_the_seconds_to_wait(by_address: Serving) -> None:
    headers = {"X-Forwarded-For": "192.0.2.1"}
    allowed = [ask(by_address, method, path, **headers).status_code for method, path in LIMITED]
    assert 429 not in allowed
    for method, path in [*LIMITED, ("GET", "/models/info")]:
        refused = ask(by_address, method, path, **headers)
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["Retry-After"]) <= 3600
        assert refused.headers["X-Request-ID"]
        assert list(refused.json()) == ["detail"]
        assert "rate limit" in refused.json()["detail"]
        assert "192.0.2.1" not in refused.text


def test_other_addresses_and_other_routes_are_not_counted(by_address: Serving) -> None:
    headers = {"X-Forwarded-For": "192.0.2.2"}
    answered = [ask(by_address, "POST", "/predict", **headers).status_code for _ in range(5)]
    assert answered == [422] * 4 + [429]
    for path in FREE:
        assert ask(by_address, "GET", path, **headers).status_code == 200
    assert ask(by_address, "GET", "/models%0A", **headers).status_code == 404
    assert ask(by_address, "POST", "/predict", **{"X-Forwarded-For": "192.0.2.3"}).status_code == 422


def test_the_addresses_of_one_ipv6_network_are_one_caller(by_address: Serving) -> None:
    answered = [
        ask(by_address, "POST", "/predict", **{"X-Forwarded-For": f"2001:db8:0:1::{i:x}"}).status_code
        for i in range(1, 6)
    ]
    assert answered == [422] * 4 + [429]
    assert ask(by_address, "POST", "/predict", **{"X-Forwarded-For": "2001:db8:0:2::1"}).status_code == 422


def test_each_key_has_its_own_count_wherever_it_comes_from(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    first, second = (file.add(name, [Scope.PREDICT]) for name in ("first", "second"))
    env = {"FIN_PYFUNC__RATE__REQUESTS": "2/hour", "FIN_PYFUNC__AUTH__MODE": "keys"}
    env["FIN_PYFUNC__AUTH__KEYS_FILE"] = str(tmp_path / "keys.json")
    with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
        for _ in range(3):  # what is refused is not counted
            assert ask(server, "POST", "/predict", **{"X-API-Key": "wrong"}).status_code == 401
            assert ask(server, "GET", "/models", **{"X-API-Key": first}).status_code == 403
        answered = [
            ask(server, "POST", "/predict", **{"X-API-Key": first, "X-Forwarded-For": f"192.0.2.{i}"}).status_code
            for i in range(3)
        ]
        assert answered == [422, 422, 429]
        assert ask(server, "POST", "/predict", **{"X-API-Key": second}).status_code == 422
        for text in (first, second, "Traceback"):
            assert text not in server.log()


def test_a_caller_that_waits_as_told_is_let_in_again(tmp_path: Path) -> None:
    with serving(folder=tmp_path, env={"FIN_PYFUNC__RATE__REQUESTS": "1/2second"}, wait_for="/health/live") as server:
        while (answered := ask(server, "POST", "/predict")).status_code != 429:
            pass
        time.sleep(int(answered.headers["Retry-After"]))
        assert ask(server, "POST", "/predict").status_code == 422


@given(
    amount=st.integers(1, 5),
    asked=st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=60),
)
def test_a_caller_gets_its_rate_in_each_window_whatever_others_do(amount: int, asked: list[tuple[str, float]]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        now = 0.0
        patch.setattr(rates.time, "monotonic", lambda: now)
        patch.setattr(rates, "MIN_CLEAN", 2)
        counter = rates.MemoryCounter(parse(f"{amount}/10 second"))
        windows: dict[str, tuple[float, int]] = {}
        for caller, later in asked:
            now += later
            end, n = windows.get(caller, (now, 0))
            end, n = (now + 10, 1) if end <= now else (end, n + 1)
            windows[caller] = end, n
            assert counter.count_now("key", caller) == (0.0 if n <= amount else end - now)
        assert len(counter._windows) <= 3
