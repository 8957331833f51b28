"""Who may call: a real server that asks for keys, and how one starts."""

from __future__ import annotations

import logging
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from fin_pyfunc.serving.callers.keys import CHECK_SECONDS, KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from fin_pyfunc.serving.middleware.auth import warn_if_exposed
from fin_pyfunc.serving.settings import Auth, Settings
from tests.servers import COMMAND, Serving, serving

OPEN = ["/", "/health", "/health/live", "/health/ready", "/ping", "/docs", "/redoc", "/openapi.json"]
CLOSED = [
    ("POST", "/predict"),
    ("POST", "/predict/batch"),
    ("POST", "/invocations"),
    ("GET", "/models"),
    ("GET", "/models/info"),
    ("GET", "/version"),
    ("GET", "/no/such/route"),
    ("OPTIONS", "/predict"),
    ("GET", "/healthy"),
    ("GET", "/models%0A"),
    ("GET", "/docs/../models"),
]


class Guarded:
    """A server that asks for keys, and everything that it has answered."""

    def __init__(self, server: Serving, file: KeyFile, path: Path) -> None:
        self.server, self.file, self.path = server, file, path
        self.tokens = {scope.value: file.add(scope.value, [scope]) for scope in (Scope.PREDICT, Scope.MODELS)}
        self.said: list[str] = []

    def ask(self, method: str, path: str, token: str | None = None, **headers: str) -> requests.Response:
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        # the path as it is: requests would tidy it up
        prepared = requests.Request(method, self.server.url, headers=headers, json={"features": {}}).prepare()
        prepared.url = self.server.url + path
        with requests.Session() as session:
            answered = session.send(prepared, timeout=30, allow_redirects=False)
        self.said.append(f"{answered.headers}{answered.text}")
        return answered

    def until(self, status: int, token: str) -> requests.Response:
        """Ask until the server has noticed a change of its key file."""
        deadline = time.monotonic() + 30
        while (answered := self.ask("POST", "/predict", token)).status_code != status:
            assert time.monotonic() < deadline, f"still {answered.status_code}"
            time.sleep(0.05)
        return answered


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    file = KeyFile(folder / "keys.json")
    file.add("first", [Scope.ADMIN])
    made = [file.list()[0].sha256]
    env = {"FIN_PYFUNC__AUTH__MODE": "keys", "FIN_PYFUNC__AUTH__KEYS_FILE": str(folder / "keys.json")}
    with serving(folder=folder, env=env, wait_for="/health") as server:
        guarded = Guarded(server, file, folder / "keys.json")
        made += [key.sha256 for key in file.list()]
        guarded.until(422, guarded.tokens["predict"])
        yield guarded
        told = "".join([server.log(), *guarded.said])
        assert "WARNING" not in told  # it listens on loopback
        for secret in [*made, *guarded.tokens.values(), *(token[17:] for token in guarded.tokens.values())]:
            assert secret not in told


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_a_route_without_a_credential_is_401(guarded: Guarded, method: str, path: str) -> None:
    answered = guarded.ask(method, path)
    assert answered.status_code == 401
    assert answered.headers["WWW-Authenticate"] == "Bearer"
    assert answered.headers["Content-Type"] == "application/json"
    assert answered.headers["X-Request-ID"]
    assert list(answered.json()) == ["detail"]
    assert "X-API-Key" in answered.json()["detail"]


def test_a_wrong_credential_is_401(guarded: Guarded) -> None:
    token = guarded.tokens["predict"]
    wrong = ["", "x", token[:-1] + "!", token[:17], token[:4] + "0" * 12 + token[16:], token + "x", "é", token.upper()]
    for value in wrong:
        for headers in ({"Authorization": f"Bearer {value}".encode()}, {"X-API-Key": value.encode()}):
            answered = guarded.ask("POST", "/predict", **headers)  # type: ignore[arg-type]  # bytes are sent as they are
            assert answered.status_code == 401
            assert answered.headers["WWW-Authenticate"] == "Bearer"
            assert "not one that this server knows" in answered.json()["detail"]
    assert guarded.ask("POST", "/predict", Authorization="Basic dTpw").status_code == 401


def test_a_key_is_taken_from_either_header(guarded: Guarded) -> None:
    token = guarded.tokens["predict"]
    for headers in (
        {"Authorization": f"Bearer {token}"},
        {"Authorization": f"bearer  {token} "},
        {"X-API-Key": token},
        {"X-API-Key": token, "Authorization": "Basic dTpw"},
    ):
        answered = guarded.ask("POST", "/predict", **headers)
        assert answered.status_code == 422
        assert "model_uri" in answered.json()["detail"]


@pytest.mark.parametrize(
    ("path", "scope", "other"),
    [
        ("/predict", "predict", "models"),
        ("/predict/batch", "predict", "models"),
        ("/invocations", "predict", "models"),
        ("/models", "models", "predict"),
    ],
)
def test_a_key_without_the_routes_scope_is_403(guarded: Guarded, path: str, scope: str, other: str) -> None:
    method = "GET" if path == "/models" else "POST"
    refused = guarded.ask(method, path, guarded.tokens[other])
    assert refused.status_code == 403
    assert f"the scope '{scope}'" in refused.json()["detail"]
    assert guarded.ask(method, path, guarded.tokens[scope]).status_code not in (401, 403)


@pytest.mark.parametrize("path", ["/version", "/no/such/route", "/models%0A"])
def test_any_key_may_see_the_rest(guarded: Guarded, path: str) -> None:
    assert guarded.ask("GET", path, guarded.tokens["predict"]).status_code == (200 if path == "/version" else 404)


@pytest.mark.parametrize("path", OPEN)
def test_health_and_documentation_are_open(guarded: Guarded, path: str) -> None:
    assert guarded.ask("GET", path).status_code == 200
    assert guarded.ask("GET", path, "wrong").status_code == 200


def test_what_the_documentation_loads_is_open(guarded: Guarded) -> None:
    assert guarded.ask("GET", "/docs/static/swagger-ui.css").status_code == 200
    assert guarded.ask("HEAD", "/ping").status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/live", "/health/ready"])
def test_health_tells_more_than_its_status_to_a_known_caller_only(guarded: Guarded, path: str) -> None:
    for token in (None, "wrong"):
        assert list(guarded.ask("GET", path, token).json()) == ["status"]
    known = guarded.ask("GET", path, guarded.tokens["models"]).json()
    assert list(known) == ["status", "mlflow_connected", "gpu_available", "cached_models"]


def test_a_key_is_made_and_revoked_while_the_server_runs(guarded: Guarded) -> None:
    guarded.tokens["new"] = token = guarded.file.add("new", [Scope.PREDICT])
    guarded.until(422, token)
    guarded.file.revoke("new")
    assert "not one that this server knows" in guarded.until(401, token).json()["detail"]
    assert guarded.ask("POST", "/predict", guarded.tokens["predict"]).status_code == 422


def test_while_the_key_file_is_damaged_or_gone_the_last_good_one_holds_and_the_log_says_so_once(
    guarded: Guarded,
) -> None:
    path = guarded.path
    good = path.read_bytes()
    try:
        for change, said in ((lambda: path.write_text("{"), "is damaged"), (path.unlink, "does not exist")):
            change()
            deadline = time.monotonic() + 30
            while said not in guarded.server.log():
                assert guarded.ask("POST", "/predict", guarded.tokens["predict"]).status_code == 422
                assert time.monotonic() < deadline
                time.sleep(0.05)
            time.sleep(2 * CHECK_SECONDS)  # it has looked again
            assert guarded.ask("POST", "/predict", guarded.tokens["predict"]).status_code == 422
            assert guarded.ask("POST", "/predict").status_code == 401
            assert guarded.server.log().count(said) == 1
    finally:
        path.write_bytes(good)
    guarded.tokens["later"] = token = guarded.file.add("later", [Scope.PREDICT])
    guarded.until(422, token)


def test_the_document_describes_both_ways_to_send_a_key(guarded: Guarded) -> None:
    spec = guarded.ask("GET", "/openapi.json").json()
    assert {(s["type"], s.get("name")) for s in spec["components"]["securitySchemes"].values()} == {
        ("http", None),
        ("apiKey", "X-API-Key"),
    }
    for path, item in spec["paths"].items():
        for operation in item.values():
            assert bool(operation["security"]) == (path not in OPEN)


# --- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("content", "said"), [(None, "does not exist"), ("[]", "is damaged")])
def test_a_start_with_a_bad_key_file_fails_with_one_sentence(tmp_path: Path, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / "keys.json").write_text(content)
    env = os.environ | {"FIN_PYFUNC__AUTH__MODE": "keys", "FIN_PYFUNC__AUTH__KEYS_FILE": "keys.json"}
    ended = subprocess.run(
        [*COMMAND, "--port", "0"], cwd=tmp_path, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 1
    (error,) = [line for line in ended.stderr.splitlines() if "Error" in line]
    assert error.startswith("Error: The key file keys.json")
    assert said in error
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    ("host", "mode", "warned"),
    [
        ("0.0.0.0", "off", True),
        ("::", "off", True),
        ("10.1.2.3", "off", True),
        ("example.com", "off", True),
        ("127.0.0.1", "off", False),
        ("127.8.8.8", "off", False),
        ("::1", "off", False),
        ("localhost", "off", False),
        ("0.0.0.0", "external", False),
        ("0.0.0.0", "keys", False),
    ],
)
def test_only_an_open_door_to_other_machines_is_warned_of(
    caplog: pytest.LogCaptureFixture, host: str, mode: str, warned: bool
) -> None:
    with caplog.at_level(logging.WARNING):
        warn_if_exposed(Settings(host=host, auth=Auth(mode=mode, keys_file="keys.json")))  # type: ignore[arg-type]
    assert [record.levelname for record in caplog.records] == ["WARNING"] * warned


def test_a_server_beyond_loopback_without_authentication_says_so_once(tmp_path: Path) -> None:
    # an address that no machine has (RFC 5737): the server says it and then cannot listen there
    ended = subprocess.run(
        [*COMMAND, "--host", "192.0.2.1", "--workers", "2"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert ended.stderr.count("ANYONE WHO REACHES 192.0.2.1") == 1
    assert "192.0.2.1:8000 cannot be listened on" in ended.stderr
