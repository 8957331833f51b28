"""Who may call: key files, `fin-pyfunc keys`, and a real server that asks for keys."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.keys import CHECK_SECONDS, Key, KeyFile, KeyFileError, Scope
from fin_pyfunc.serving.middleware.auth import warn_if_exposed
from fin_pyfunc.serving.settings import Auth, Settings
from tests.servers import COMMAND, Serving, serving

NAMES = st.text(alphabet="abcXYZ09 ._@-", min_size=1, max_size=20).filter(lambda s: s[0].isalnum())
SCOPES = st.sets(st.sampled_from(Scope), min_size=1)
OPEN = ["/", "/health", "/health/live", "/health/ready", "/ping", "/docs", "/redoc", "/openapi.json"]
CLOSED = [
    ("POST", "/predict"),
    ("POST", "/predict/batch"),
    ("POST", "/invocations"),
    ("GET", "/models"),
    ("GET", "/version"),
    ("GET", "/no/such/route"),
    ("OPTIONS", "/predict"),
    ("GET", "/healthy"),
    ("GET", "/models%0A"),
    ("GET", "/docs/../models"),
]


# --- key files --------------------------------------------------------------------------------------------------------


def key_file(folder: Path) -> KeyFile:
    return KeyFile(folder / "keys.json")


def reader(folder: Path) -> KeyFile:
    """The file as a server that starts now sees it."""
    file = key_file(folder)
    file.load()
    return file


def test_a_token_is_made_of_its_keys_id_and_a_secret_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    token = key_file(tmp_path).add("desk", [Scope.PREDICT])
    (key,) = key_file(tmp_path).list()
    prefix, key_id, secret = token.split("_", 2)
    assert (prefix, key_id) == ("fpk", key.id)
    assert len(secret) == 43  # 32 bytes
    kept = (tmp_path / "keys.json").read_text()
    assert secret not in kept
    assert list(json.loads(kept)["keys"][0]) == ["name", "id", "sha256", "scopes", "created"]


def test_a_key_file_is_its_owners_alone_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        key_file(tmp_path).add("a", [Scope.PREDICT])
        (tmp_path / "keys.json").chmod(0o644)
        key_file(tmp_path).add("b", [Scope.PREDICT])
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_a_linked_key_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    KeyFile(tmp_path / "real" / "k.json").add("a", [Scope.PREDICT])
    (tmp_path / "keys.json").symlink_to("real/k.json")
    key_file(tmp_path).add("b", [Scope.PREDICT])
    assert (tmp_path / "keys.json").is_symlink()
    assert [key.name for key in KeyFile(tmp_path / "real" / "k.json").list()] == ["a", "b"]


@settings(max_examples=25, deadline=None)
@given(made=st.dictionaries(NAMES, SCOPES, max_size=5), data=st.data())
def test_a_token_is_known_from_when_it_is_made_until_its_key_is_revoked(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, set[Scope]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    tokens = {name: key_file(folder).add(name, scopes) for name, scopes in made.items()}
    gone = set(data.draw(st.lists(st.sampled_from(sorted(made)), unique=True))) if made else set()
    for name in gone:
        by = name if data.draw(st.booleans()) else next(k.id for k in key_file(folder).list() if k.name == name)
        assert key_file(folder).revoke(by).name == name
    if not made:
        return
    known = reader(folder)
    for name, token in tokens.items():
        key = known.verify(token)
        assert (key is None) == (name in gone)
        assert key is None or (key.name, set(key.scopes)) == (name, made[name])
    assert [key.name for key in key_file(folder).list()] == [name for name in made if name not in gone]


@pytest.fixture(scope="module")
def one_key(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyFile, str]:
    folder = tmp_path_factory.mktemp("one-key")
    token = key_file(folder).add("desk", [Scope.PREDICT])
    return reader(folder), token


@given(data=st.data())
def test_a_token_with_any_other_character_is_not_known(one_key: tuple[KeyFile, str], data: st.DataObject) -> None:
    known, token = one_key
    assert known.verify(token) is not None
    place = data.draw(st.integers(0, len(token)))
    length = data.draw(st.integers(0, 2))
    changed = token[:place] + data.draw(st.text(max_size=2)) + token[place + length :]
    assert changed == token or known.verify(changed) is None


@given(text=st.text(max_size=80))
def test_no_text_but_a_token_is_known(one_key: tuple[KeyFile, str], text: str) -> None:
    assert one_key[0].verify(text) is None


@given(content=st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_other_file_is_damaged_and_the_sentence_that_says_so_shows_none_of_it(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any-keys.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KeyFileError) as caught:
        KeyFile(file).load()
    assert isinstance(caught.value, FinPyfuncError)
    assert str(caught.value).startswith(f"The key file {file} is damaged")
    assert "\n" not in str(caught.value)


RECORD = {
    "name": "desk",
    "id": "0123456789ab",
    "sha256": "0" * 64,
    "scopes": ["predict"],
    "created": "2026-01-01T00:00:00Z",
}


def test_a_record_that_is_as_it_should_be_is_read(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [RECORD]}))
    (key,) = key_file(tmp_path).list()
    assert isinstance(key, Key)
    assert key.scopes == (Scope.PREDICT,)


@pytest.mark.parametrize(
    ("records", "where"),
    [
        ([RECORD | {"id": "x"}], "at $.keys[0].id:"),
        ([RECORD | {"id": "0123456789ab\n"}], "at $.keys[0].id:"),
        ([RECORD | {"sha256": "secret-looking"}], "at $.keys[0].sha256:"),
        ([RECORD | {"scopes": ["predict", "everything"]}], "at $.keys[0].scopes[1]:"),
        ([RECORD | {"scopes": []}], "at $.keys[0].scopes:"),
        ([RECORD | {"created": "yesterday"}], "at $.keys[0].created:"),
        ([RECORD | {"models": ["models:/eurusd_*"]}], "at $.keys[0]:"),
        ([RECORD, RECORD], "damaged:"),
        ([RECORD, RECORD | {"name": "other"}], "damaged:"),
        ([RECORD, RECORD | {"name": RECORD["id"], "id": "ffffffffffff"}], "damaged:"),
    ],
)
def test_a_wrong_record_damages_the_file_and_its_place_is_named(
    tmp_path: Path, records: list[dict[str, object]], where: str
) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": records}))
    with pytest.raises(KeyFileError) as caught:
        key_file(tmp_path).load()
    assert where in str(caught.value)
    assert "secret-looking" not in str(caught.value)


def test_a_pipe_or_a_folder_is_no_key_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing.json"):
        with pytest.raises(KeyFileError):
            KeyFile(path).load()


def test_what_cannot_be_added_or_revoked_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    file.add("desk", [Scope.PREDICT])
    before = (tmp_path / "keys.json").read_bytes()
    for name, scopes in (("desk", ["predict"]), (file.list()[0].id, ["predict"]), ("", ["predict"]), ("a", [])):
        with pytest.raises(KeyFileError):
            file.add(name, [Scope(scope) for scope in scopes])
    with pytest.raises(KeyFileError):
        file.add("a\nb", [Scope.PREDICT])
    with pytest.raises(KeyFileError):
        file.revoke("nobody")
    with pytest.raises(KeyFileError):
        KeyFile(tmp_path / "no" / "folder" / "keys.json").add("a", [Scope.PREDICT])
    assert (tmp_path / "keys.json").read_bytes() == before


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda i: key_file(tmp_path).add(f"desk-{i}", [Scope.PREDICT]), range(24)))
    known = reader(tmp_path)
    assert all(known.verify(token) for token in tokens)


# --- the command ------------------------------------------------------------------------------------------------------


def keys_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fin_pyfunc_cli", "keys", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_makes_lists_and_revokes_keys(tmp_path: Path) -> None:
    added = keys_command(tmp_path, "add", "desk-1", "--scope", "predict", "--scope", "models")
    token = added.stdout.strip()
    assert (added.returncode, added.stdout) == (0, f"{token}\n")
    key = reader(tmp_path).verify(token)
    assert key is not None
    assert key.scopes == (Scope.MODELS, Scope.PREDICT)

    listed = keys_command(tmp_path, "list", "--file", "keys.json").stdout
    assert listed.split("\t")[:3] == [key.id, "desk-1", "models,predict"]
    assert key.sha256 not in listed

    assert keys_command(tmp_path, "revoke", "desk-1").stdout == f"revoked desk-1 ({key.id})\n"
    again = keys_command(tmp_path, "revoke", "desk-1")
    assert again.returncode == 1
    assert again.stderr.startswith("Error: There is no key of this id or name")
    assert again.stderr.count("\n") == 1


# --- a server ---------------------------------------------------------------------------------------------------------


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
    file = key_file(folder)
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
            assert ("security" in operation) == (path not in OPEN)


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
    with serving("--host", "0.0.0.0", "--workers", "2", folder=tmp_path, wait_for="/health/live") as server:
        assert server.log().count("ANYONE WHO REACHES 0.0.0.0") == 1
