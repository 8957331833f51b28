"""The stack of compose.yaml: up and healthy in order, a model logged from the host, and nothing lost at a restart."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import requests

from tests.conftest import free_port
from tests.docker.conftest import BASE_IMAGE, NETWORK, docker, run_demo

pytestmark = [pytest.mark.docker, pytest.mark.timeout(1800)]

FEATURES = {"bidPrice": 1.0985, "askPrice": 1.09857, "spread": 7e-05, "return_1": 5e-05, "return_5": 0.0002}
FEATURES |= {"order_flow_imbalance": 0.8, "volatility_20": 5.5e-05, "momentum_20": 0.0005}


class Stack(NamedTuple):
    """The two ports, and what `docker compose` is told."""

    mlflow: str
    api: str
    env: dict[str, str]

    def compose(self, *arguments: str) -> str:
        return docker("compose", "--project-name", "fin-pyfunc-test", *arguments, seconds=1700, env=self.env)

    def predict(self) -> requests.Response:
        body = {"features": FEATURES, "model_uri": "models:/eurusd_rf@champion", "return_proba": True}
        return requests.post(f"{self.api}/predict", json=body, timeout=60)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    ports = free_port(), free_port()
    env = {"BASE_IMAGE": BASE_IMAGE, "BUILD_NETWORK": NETWORK, "MLFLOW_PORT": str(ports[0]), "API_PORT": str(ports[1])}
    stack = Stack(*(f"http://127.0.0.1:{port}" for port in ports), env)
    try:
        stack.compose("up", "--build", "--wait")
        yield stack
    finally:
        stack.compose("down", "--volumes", "--timeout", "40")


def test_a_model_logged_from_the_host_is_served_and_survives_a_restart(stack: Stack, tmp_path: Path) -> None:
    run_demo(stack.mlflow, tmp_path)
    before = stack.predict()
    assert before.status_code == 200, before.text
    assert re.fullmatch(r"models:/m-[0-9a-f]{32}", before.headers["X-Model-ID"])
    stack.compose("down", "--timeout", "40")
    stack.compose("up", "--wait")
    after = stack.predict()
    assert after.json() == before.json()
    assert after.headers["X-Model-ID"] == before.headers["X-Model-ID"]


def test_the_database_profile_is_a_valid_stack(stack: Stack) -> None:
    described = stack._replace(env={**stack.env, "POSTGRES_PASSWORD": "x"}).compose("--profile", "postgres", "config")
    assert "pg_isready" in described
