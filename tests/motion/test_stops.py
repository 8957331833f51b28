"""The kill switch on real servers: at once, in all workers, however a model is asked for, and across restarts."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from fin_pyfunc.serving.callers.keys import KeyFile
from fin_pyfunc.serving.callers.principal import Scope
from tests.motion.conftest import NAME, Registry
from tests.servers import COMMAND, serving
from tests.test_api import row
from tests.test_error_table import refused

REASON = "Its limits were breached: ask the desk."
SAID = f"This model has been stopped by its operator: {REASON}"


class Desk:
    """A server of two workers that asks for keys, and its operator."""

    def __init__(self, url: str, folder: Path, keys: dict[str, str], pid: int) -> None:
        self.url, self.folder, self.keys, self.pid = url, folder, keys, pid

    def post(self, path: str, body: dict[str, Any], key: str | None = "admin") -> requests.Response:
        headers = {} if key is None else {"Authorization": f"Bearer {self.keys[key]}"}
        return requests.post(self.url + path, json=body, headers=headers, timeout=60)

    def predict(self, uri: str | None = None, **features: Any) -> requests.Response:
        named = {} if uri is None else {"model_uri": uri}
        return self.post("/predict", {"features": {**row(), **features}, **named}, "predict")

    def stop(self, name: str, reason: str = REASON) -> dict[str, Any]:
        answered = self.post("/admin/models/stop", {"name": name, "reason": reason})
        assert answered.status_code == 200, answered.text
        body: dict[str, Any] = answered.json()
        return body

    def start(self, name: str) -> None:
        assert self.post("/admin/models/start", {"name": name}).status_code == 200

    def everywhere(self, uri: str | None = None) -> set[int]:
        """The statuses of many requests, each over a connection of its own, which any worker may take."""
        with ThreadPoolExecutor(8) as pool:
            return {answered.status_code for answered in pool.map(lambda _: self.predict(uri), range(32))}


def arguments(folder: Path) -> tuple[str, ...]:
    config = folder / "api.yaml"
    config.write_text(
        json.dumps(
            {
                "deployment": {
                    "api": {
                        "workers": 2,
                        "auth": {"mode": "keys", "keys_file": str(folder / "keys.json")},
                        "admin": {"state_file": str(folder / "state.json")},
                        "models": {"refresh_seconds": 0.5},
                    }
                }
            }
        )
    )
    return "-m", f"models:/{NAME}@champion", "--config", str(config)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stops")


@pytest.fixture(scope="module")
def keys(folder: Path) -> dict[str, str]:
    file = KeyFile(folder / "keys.json")
    return {scope.value: file.add(scope.value, [scope]) for scope in (Scope.PREDICT, Scope.MODELS, Scope.ADMIN)}


@pytest.fixture(scope="module")
def desk(registry: Registry, folder: Path, keys: dict[str, str]) -> Iterator[Desk]:
    env = {"MLFLOW_TRACKING_URI": registry.tracking_uri}
    with serving(*arguments(folder), folder=folder, env=env) as server:
        server.wait_for_log("is ready", times=2)
        yield Desk(server.url, folder, keys, server.process.pid)


@pytest.fixture(autouse=True)
def nothing_stopped(desk: Desk) -> Iterator[None]:
    yield
    for stop in desk.post("/admin/models/stop", {"name": "none", "reason": "none"}).json()["stopped"]:
        desk.start(stop["name"])


def cli(*args: str, key: str | None, folder: Path) -> subprocess.CompletedProcess[str]:
    env = {} if key is None else {"FIN_PYFUNC_API_KEY": key}
    return subprocess.run(
        [*COMMAND[:-1], "models", *args], cwd=folder, env=env, capture_output=True, text=True, timeout=60
    )


def test_a_registered_model_is_stopped_however_it_is_asked_for_and_others_are_not(
    desk: Desk, registry: Registry
) -> None:
    runs = f"runs:/{registry.runs[2]}/model"  # never asked for before: nobody here knows what it leads to
    said = desk.stop(NAME)
    assert said["kept"]
    (stopped,) = said["stopped"]
    assert (stopped["name"], stopped["reason"]) == (NAME, REASON)
    assert set(registry.ids.values()) <= set(stopped["model_ids"])
    ways = [None, f"models:/{NAME}@champion", f"models:/{NAME}/1", f"models:/{NAME}/2", f"models:/{NAME}/latest", runs]
    for uri in [*ways, registry.ids[1]]:
        answered = desk.predict(uri)
        assert refused(answered, 503)["detail"] == SAID
        assert "Retry-After" not in answered.headers
        assert desk.everywhere(uri) == {503}
    batch = {"features_list": [row()]}
    assert refused(desk.post("/predict/batch", batch, "predict"), 503)["detail"] == SAID
    assert refused(desk.post("/invocations", {"dataframe_records": [row()]}, "predict"), 503)["detail"] == SAID
    assert desk.predict(registry.sleeps, spread=0).status_code == 200
    desk.start(NAME)
    for uri in ways[:4]:
        assert desk.everywhere(uri) == {200}


def test_a_version_is_stopped_however_it_is_asked_for_and_the_others_answer(desk: Desk, registry: Registry) -> None:
    for name in (f"models:/{NAME}/1", registry.ids[1], registry.ids[1].removeprefix("models:/")):
        desk.stop(name)
        assert desk.everywhere() == desk.everywhere(f"models:/{NAME}/1") == {503}
        assert desk.everywhere(f"runs:/{registry.runs[1]}/model") == {503}
        assert desk.everywhere(f"models:/{NAME}/2") == {200}
        desk.start(name)
        assert desk.everywhere() == {200}


def test_what_an_alias_led_to_when_it_was_stopped_stays_stopped_and_so_does_what_it_leads_to_later(
    desk: Desk, registry: Registry
) -> None:
    desk.stop(f"models:/{NAME}@champion")
    registry.move("champion", 2)
    try:
        deadline = time.monotonic() + 60
        while desk.everywhere(f"models:/{NAME}/2") != {503}:
            assert time.monotonic() < deadline
        assert desk.everywhere(f"models:/{NAME}/1") == {503}
    finally:
        registry.move("champion", 1)
        desk.start(f"models:/{NAME}@champion")


def test_a_request_under_way_is_refused_when_its_model_is_stopped(desk: Desk, registry: Registry) -> None:
    assert desk.predict(registry.sleeps, spread=0).status_code == 200
    with ThreadPoolExecutor(2) as pool:
        under_way = [pool.submit(desk.predict, registry.sleeps, spread=2) for _ in range(2)]
        time.sleep(0.5)
        desk.stop(registry.sleeps)
        for each in under_way:
            assert refused(each.result(), 503)["detail"] == SAID


def test_the_command_line_tells_the_server_with_a_key_from_the_environment(desk: Desk) -> None:
    at = ("--server", desk.url)
    stopped = cli("stop", NAME, "--reason", REASON, *at, key=desk.keys["admin"], folder=desk.folder)
    assert (stopped.returncode, stopped.stdout, stopped.stderr) == (0, f"stopped {NAME}\n", "")
    assert desk.everywhere() == {503}
    started = cli("start", NAME, *at, key=desk.keys["admin"], folder=desk.folder)
    assert (started.returncode, started.stdout) == (0, f"started {NAME} again\n")
    assert desk.everywhere() == {200}
    typo = cli("stop", "eurusd_typo", "--reason", REASON, *at, key=desk.keys["admin"], folder=desk.folder)
    assert (typo.returncode, typo.stdout) == (0, "stopped eurusd_typo\n")
    assert "Is it spelled right?" in typo.stderr
    assert cli("start", "eurusd_typo", *at, key=desk.keys["admin"], folder=desk.folder).returncode == 0
    again = cli("start", NAME, *at, key=desk.keys["admin"], folder=desk.folder)
    assert again.returncode == 1
    assert again.stderr.startswith("Error: Nothing is stopped by this name")
    for key, word in ((None, "FIN_PYFUNC_API_KEY"), (desk.keys["predict"], "'admin'")):
        wrong = cli("stop", NAME, "--reason", REASON, *at, key=key, folder=desk.folder)
        assert wrong.returncode == 1
        assert word in wrong.stderr
        assert len(wrong.stderr.splitlines()) == 1
    nobody = cli("stop", NAME, "--reason", REASON, "--server", "http://127.0.0.1:9", key=None, folder=desk.folder)
    assert "did not answer" in nobody.stderr


def test_a_state_file_that_the_command_line_changes_is_noticed_by_all_workers(desk: Desk) -> None:
    stopped = cli("stop", NAME, "--reason", REASON, "--file", "state.json", key=None, folder=desk.folder)
    assert (stopped.returncode, stopped.stderr) == (0, "")
    until(desk, {503})
    assert desk.predict().json()["detail"] == SAID
    assert cli("start", NAME, "--file", "state.json", key=None, folder=desk.folder).returncode == 0
    until(desk, {200})


def test_a_state_file_that_is_gone_starts_nothing_and_is_made_again(desk: Desk) -> None:
    desk.stop(NAME)
    file = desk.folder / "state.json"
    file.unlink()
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert json.loads(file.read_text())["stops"][0]["name"] == NAME
    assert desk.everywhere() == {503}


def test_a_worker_that_takes_a_killed_ones_place_knows_what_is_stopped(desk: Desk) -> None:
    desk.stop(NAME)
    for worker in psutil.Process(desk.pid).children():
        worker.kill()
    deadline = time.monotonic() + 60
    while True:
        assert time.monotonic() < deadline
        try:
            assert refused(desk.predict(), 503)["detail"] in (SAID, "The server's default model is not ready: it is")
            break
        except requests.ConnectionError:
            time.sleep(0.05)
    assert desk.everywhere() == {503}
    assert desk.predict().json()["detail"] == SAID


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("stop", {"name": NAME}, "'name' and 'reason'"),
        ("stop", {"name": NAME, "reason": ""}, "'name' and 'reason'"),
        ("stop", {"name": NAME, "reason": "one line\nand another"}, "printable"),
        ("stop", {"name": NAME, "reason": "x" * 501}, "500"),
        ("stop", {"name": NAME, "reason": REASON, "until": "noon"}, "'name' and 'reason'"),
        ("start", {}, "'name'"),
    ],
)
def test_a_body_that_does_not_fit_is_refused_with_the_keys(
    desk: Desk, path: str, body: dict[str, Any], said: str
) -> None:
    assert said in refused(desk.post(f"/admin/models/{path}", body), 422)["detail"]


def test_only_a_key_with_the_scope_admin_may_do_any_of_it(desk: Desk) -> None:
    for path, body in (
        ("/admin/models/stop", {"name": NAME, "reason": REASON}),
        ("/admin/models/start", {"name": NAME}),
        ("/admin/shadow", {"model_uri": None}),
    ):
        refused(desk.post(path, body, None), 401)
        assert "'admin'" in refused(desk.post(path, body, "predict"), 403)["detail"]
        refused(requests.get(desk.url + path, headers={"X-API-Key": desk.keys["admin"]}, timeout=30), 405)
    refused(requests.get(desk.url + "/admin/models", timeout=30), 401)
    assert desk.everywhere() == {200}


def test_what_is_stopped_is_still_stopped_after_a_restart_and_a_damaged_file_lets_no_server_start(
    desk: Desk, registry: Registry, tmp_path: Path
) -> None:
    desk.stop(NAME)
    kept = (desk.folder / "state.json").read_text()
    (tmp_path / "keys.json").write_bytes((desk.folder / "keys.json").read_bytes())
    (tmp_path / "state.json").write_text(kept)
    env = {"MLFLOW_TRACKING_URI": registry.tracking_uri}
    with serving(*arguments(tmp_path), folder=tmp_path, env=env) as server:
        again = Desk(server.url, tmp_path, desk.keys, server.process.pid)
        assert again.everywhere() == again.everywhere(f"runs:/{registry.runs[2]}/model") == {503}
        assert again.predict().json()["detail"] == SAID
    (tmp_path / "state.json").write_text(kept[:-10])
    done = subprocess.run(
        [*COMMAND, *arguments(tmp_path)], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode != 0
    assert "state file" in done.stderr
    assert "is damaged" in done.stderr
    assert "Traceback" not in done.stderr


def until(desk: Desk, statuses: set[int]) -> None:
    deadline = time.monotonic() + 30
    while desk.everywhere() != statuses:
        assert time.monotonic() < deadline


def test_the_command_works_where_there_is_no_server_and_no_file_yet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fin_pyfunc_cli", "models"]
    options = ["--file", "new.json"]
    for arguments, code in (
        (["stop", "a_model", "--reason", REASON, *options], 0),
        (["stop", "a_model", "--reason", "another", *options], 0),
        (["start", "a_model", *options], 0),
        (["start", "a_model", *options], 1),
        (["stop", "a_model", "--reason", REASON, "--file", "nowhere/state.json"], 1),
    ):
        done = subprocess.run([*command, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
    assert json.loads((tmp_path / "new.json").read_text()) == {"stops": []}
