"""A server through what goes wrong around it: stores that are down, models that are damaged, aliases that move."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import requests
from mlflow import MlflowClient
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from fin_pyfunc.serving.server import Server
from fin_pyfunc.serving.settings.loading import load as load_settings
from tests.conftest import MlflowProxy, MlflowServer, free_port, tracking_to
from tests.models import bars, labels
from tests.servers import COMMAND, serving
from tests.shelf import Shelf
from tests.test_api import row
from tests.test_error_table import refused

NAME, EXPERIMENT = "eurusd_lr", "server_life"


@pytest.fixture(scope="module")
def remote(mlflow_server: MlflowServer) -> str:
    """A real MLflow server with two versions of one model, the first of them champion."""
    with tracking_to(mlflow_server.uri):
        experiment = mlflow.create_experiment(EXPERIMENT)
        for names in ((-1, 0, 1), (1, 0, -1)):
            estimator = LogisticRegression().fit(bars(), labels(*names))
            with mlflow.start_run(experiment_id=experiment):
                fin_pyfunc.log_model(estimator, bars(), registered_model_name=NAME)
        MlflowClient().set_registered_model_alias(NAME, "champion", "1")
    return mlflow_server.uri


def saved(folder: Path, **options: Any) -> Path:
    fin_pyfunc.save_model(LogisticRegression().fit(bars(), labels(-1, 0, 1)), bars(), folder, **options)
    return folder


def test_models_come_from_a_real_mlflow_server_over_http(remote: str, tmp_path: Path) -> None:
    with serving("-m", f"models:/{NAME}@champion", "--mlflow-tracking-uri", remote, folder=tmp_path) as server:
        answered = server.predict(row(), return_proba=True)
        assert answered.status_code == 200
        assert requests.get(f"{server.url}/models?experiment_name={EXPERIMENT}", timeout=30).json()["count"] == 2
        assert server.predict(row(), f"models:/{NAME}/2").json()["prediction"] == -answered.json()["prediction"]


def test_a_store_that_is_down_at_start_is_waited_for(remote: str, tmp_path: Path) -> None:
    port = free_port()
    arguments = ("-m", f"models:/{NAME}@champion", "--mlflow-tracking-uri", f"http://127.0.0.1:{port}")
    with serving(*arguments, folder=tmp_path, wait_for="/health/live") as server:
        body = server.wait_for("/health", 503).json()
        assert (body["status"], body["mlflow_connected"]) == ("unhealthy", False)
        server.wait_for_log("MLflow does not answer; it is asked every 10 s")
        for path in ("/health/ready", "/ping", "/models"):
            refused(requests.get(server.url + path, timeout=30), 503)
        answered = server.predict(row())
        refused(answered, 503)
        assert answered.headers["Retry-After"]
        proxy = MlflowProxy(remote, port)
        try:
            server.wait_for("/health/ready")
            assert server.predict(row()).status_code == 200
        finally:
            proxy.stop()


def test_a_store_that_goes_down_later_stops_nothing_that_is_in_memory(remote: str, tmp_path: Path) -> None:
    proxy = MlflowProxy(remote)
    env = {"FIN_PYFUNC__MODELS__REFRESH_SECONDS": "0.2", "FIN_PYFUNC__MLFLOW__PROBE_SECONDS": "0.2"}
    arguments = ("-m", f"models:/{NAME}@champion", "--mlflow-tracking-uri", proxy.uri)
    with serving(*arguments, folder=tmp_path, env=env) as server:
        before = server.predict(row(), return_proba=True)
        server.wait_for_log("MLflow answers")
        proxy.stop()
        server.wait_for_log("does not answer any more")
        time.sleep(0.3)  # past the alias's refresh
        after = server.predict(row(), return_proba=True)
        assert after.json() == before.json()
        assert after.headers["X-Model-ID"] == before.headers["X-Model-ID"]
        body = requests.get(server.url + "/health", timeout=10)
        assert (body.status_code, body.json()["status"]) == (200, "degraded")
        refused(server.predict(row(), f"models:/{NAME}/2"), 503)
        back = MlflowProxy(remote, int(proxy.uri.rpartition(":")[2]))
        try:
            server.wait_for_log("MLflow answers", times=2)
            assert server.predict(row(), f"models:/{NAME}/2").status_code == 200
        finally:
            back.stop()


def test_an_alias_that_moves_is_followed(remote: str, tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__MODELS__REFRESH_SECONDS": "0.2"}
    arguments = ("-m", f"models:/{NAME}@moving", "--mlflow-tracking-uri", remote)
    client = MlflowClient(remote)
    client.set_registered_model_alias(NAME, "moving", "1")
    with serving(*arguments, folder=tmp_path, env=env) as server:
        first = server.predict(row())
        client.set_registered_model_alias(NAME, "moving", "2")
        deadline = time.monotonic() + 30  # the other version is loaded beside the first, which goes on
        while (second := server.predict(row())).headers["X-Model-ID"] == first.headers["X-Model-ID"]:
            assert time.monotonic() < deadline
        assert second.json()["prediction"] == -first.json()["prediction"]


def test_the_cache_keeps_the_most_recent_models_and_the_default(shelf: Shelf, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__CACHE__MAX_MODELS": "2"}
    with serving("-m", "models:/eurusd_rf@champion", folder=tmp_path, env=env) as server:
        for kind in ("words", "margin", "gaps", "words"):
            assert server.predict(row(), shelf.uris[kind]).status_code == 200
        assert requests.get(server.url + "/health", timeout=10).json()["cached_models"] == 3
        assert server.log().count("evicted") == 2
        assert server.log().count(f"for {shelf.uris['words']} in") == 2
        assert server.log().count("for models:/eurusd_rf@champion in") == 1


def test_the_model_let_go_is_the_one_least_recently_asked(shelf: Shelf, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__CACHE__MAX_MODELS": "2"}
    with serving(folder=tmp_path, env=env) as server:
        for kind in ("words", "margin", "words", "gaps", "words"):
            assert server.predict(row(), shelf.uris[kind]).status_code == 200
        loads = {kind: server.log().count(f"for {shelf.uris[kind]} in") for kind in ("words", "margin", "gaps")}
        assert loads == {"words": 1, "margin": 1, "gaps": 1}


def test_without_a_cache_only_the_default_model_stays(shelf: Shelf, tmp_path: Path) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__CACHE__ENABLED": "false"}
    with serving("-m", "models:/eurusd_rf@champion", folder=tmp_path, env=env) as server:
        for _ in range(2):
            assert server.predict(row()).status_code == 200
            assert server.predict(row(), shelf.uris["words"]).status_code == 200
        assert server.log().count(f"for {shelf.uris['words']} in") == 2
        assert server.log().count("for models:/eurusd_rf@champion in") == 1
        assert requests.get(server.url + "/health", timeout=10).json()["cached_models"] == 1


def test_a_model_is_loaded_once_however_many_ask_for_it(shelf: Shelf, tmp_path: Path) -> None:
    with serving(folder=tmp_path, env={"MLFLOW_TRACKING_URI": shelf.tracking_uri}) as server:
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda _: server.predict(row(), shelf.uris["forest"]), range(32)))
        assert {a.status_code for a in answers} == {200}
        assert server.log().count("loaded models:/") == 1
        refused(server.predict(row()), 422)  # no default model: each request names its own
        refused(requests.post(server.url + "/invocations", json={}, timeout=10), 422)


def test_a_damaged_model_and_one_of_a_newer_format_are_refused_and_the_others_served(
    shelf: Shelf, tmp_path: Path
) -> None:
    roots = tmp_path / "roots"
    roots.mkdir()
    damaged, newer, torn = saved(roots / "damaged"), saved(roots / "newer"), saved(roots / "torn")
    estimator = damaged / "artifacts" / "fin_pyfunc" / "estimator.skops"
    content = bytearray(estimator.read_bytes())
    content[len(content) // 2] ^= 1
    estimator.write_bytes(content)
    manifest = newer / "artifacts" / "fin_pyfunc" / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "format": 99}))
    mlmodel = newer / "MLmodel"
    mlmodel.write_text(
        re.sub(r"  manifest_sha256: .*\n", "", re.sub("  fin_pyfunc:\n    format: 1\n  ", "", mlmodel.read_text()))
    )
    shutil.rmtree(torn / "artifacts" / "fin_pyfunc")
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__MODELS__FILE_ROOTS": str(roots)}
    with serving(folder=tmp_path, env=env) as server:
        said = {
            name: refused(server.predict(row(), f"file://{roots / name}"), 500)["detail"]
            for name in ("damaged", "newer", "torn")
        }
        assert "estimator.skops" in said["damaged"]
        assert "damaged" in said["damaged"]
        assert "format 99" in said["newer"]
        assert server.predict(row(), shelf.uris["forest"]).status_code == 200


def test_a_local_path_may_be_the_default_model(tmp_path: Path) -> None:
    saved(tmp_path / "model")
    with serving("-m", "./model", folder=tmp_path) as server:
        answered = server.predict(row())
        assert answered.status_code == 200
        assert answered.headers["X-Model-URI"] == answered.headers["X-Model-ID"]  # the path stays on the server
        refused(server.predict(row(), "./model"), 422)  # the operator's words are not a client's


@pytest.mark.parametrize(
    ("uri", "said"),
    [("models:/unknown@champion", "registered"), ("./nowhere", "path"), ("models:/eurusd_rf@nobody", "alias")],
)
def test_a_default_model_that_does_not_exist_ends_the_start_with_one_sentence(
    shelf: Shelf, tmp_path: Path, uri: str, said: str
) -> None:
    env = {**os.environ, "MLFLOW_TRACKING_URI": shelf.tracking_uri}
    done = subprocess.run(
        [*COMMAND, "-m", uri, "--port", str(free_port())],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "cannot be loaded" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_sigterm_ends_the_server_and_leaves_no_folder_behind(remote: str, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    arguments = ("-m", f"models:/{NAME}/1", "--mlflow-tracking-uri", remote, "--workers", "2")
    with serving(*arguments, folder=tmp_path, env={"TMPDIR": str(tmp_path / "tmp")}) as server:
        server.wait_for_log("is ready", times=2)  # each worker loads its own
        assert server.predict(row()).status_code == 200
        server.process.terminate()
        assert server.process.wait(30) == 0
    assert not list((tmp_path / "tmp").glob("fin_pyfunc-*"))


@pytest.mark.parametrize("is_done", [False, True])
def test_a_server_that_compiles_leaves_neither_a_process_nor_a_folder_behind(is_done: bool, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    forest = RandomForestClassifier(200 if not is_done else 5, random_state=0).fit(bars(), labels(-1, 0, 1))
    mlflow.sklearn.save_model(forest, tmp_path / "model", serialization_format="cloudpickle")
    env = {"TMPDIR": str(tmp_path / "tmp"), "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true"}

    def at_work() -> list[int]:
        """The fork server, the model's host and the job that compiles: they work below this server's folder."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.cwd().startswith(f"{tmp_path / 'tmp'}/"):
                    found.append(process.pid)
        return found

    with serving("-m", str(tmp_path / "model"), folder=tmp_path, env=env) as server:
        if is_done:
            server.wait_for_log("compiled RandomForestClassifier")
        else:
            deadline = time.monotonic() + 30
            while len(at_work()) < 3:
                assert time.monotonic() < deadline, server.log()
        server.process.terminate()
        assert server.process.wait(30) == 0
    deadline = time.monotonic() + 10  # the fork server ends when it hears that the others have
    while at_work() or list((tmp_path / "tmp").glob("fin_pyfunc-*")):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert "could not be compiled" not in server.log()


def test_file_stores_and_the_guides_configuration_work(tmp_path: Path) -> None:
    config = tmp_path / "api.yaml"
    config.write_text(
        'deployment:\n  api:\n    enabled: true\n    host: "127.0.0.1"\n    port: 8000\n    mlflow:\n'
        '      tracking_uri: "${MLFLOW_TRACKING_URI:file:./mlruns}"\n      experiment_name: "financial_ml"\n'
    )
    (tmp_path / "mlruns").mkdir()  # reading makes no store
    with serving("--config", str(config), folder=tmp_path) as server:
        assert server.wait_for("/health").json()["mlflow_connected"] is True
        refused(requests.get(server.url + "/models", timeout=30), 404)


def test_a_wrong_setting_stops_the_start_with_its_full_name(tmp_path: Path) -> None:
    config = tmp_path / "api.yaml"
    config.write_text("deployment:\n  api:\n    cache:\n      max_modles: 3\n")
    done = subprocess.run([*COMMAND, "--config", str(config)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    assert done.stderr.startswith("Error: ")
    assert "deployment.api.cache.max_modles" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize("route", ["/predict", "/invocations"])
def test_a_draining_server_finishes_what_it_accepted_and_refuses_the_rest(
    shelf: Shelf, tmp_path: Path, route: str
) -> None:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri}
    with serving("-m", shelf.uris["sleeps"], folder=tmp_path, env=env) as server:

        def ask(seconds: float) -> requests.Response:
            features = {**row(), "spread": seconds}
            body = {"features": features} if route == "/predict" else {"dataframe_records": [features]}
            return requests.post(server.url + route, json=body, timeout=60)

        expected = ask(0).json()
        with ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(ask, 5)
            time.sleep(1)
            server.process.terminate()
            refused(server.wait_for("/health/ready", 503, seconds=5), 503)
            refused(ask(0), 503)
            assert under_way.result().status_code == 200
            assert under_way.result().json() == expected
        assert server.process.wait(30) == 0


def test_an_alias_that_moves_to_a_damaged_model_leaves_the_one_before_in_place(remote: str, tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__MODELS__REFRESH_SECONDS": "0.2"}
    client = MlflowClient(remote)
    client.set_registered_model_alias(NAME, "tested", "1")
    with (
        tracking_to(remote),
        mlflow.start_run(experiment_id=client.get_experiment_by_name(EXPERIMENT).experiment_id) as run,
    ):
        damaged = saved(tmp_path / "damaged")
        (damaged / "artifacts" / "fin_pyfunc" / "estimator.skops").write_bytes(b"damaged")
        mlflow.log_artifacts(str(damaged), "model")
        bad = client.create_model_version(NAME, f"{run.info.artifact_uri}/model", run.info.run_id)
    with serving("-m", f"models:/{NAME}@tested", "--mlflow-tracking-uri", remote, folder=tmp_path, env=env) as server:
        before = server.predict(row())
        client.set_registered_model_alias(NAME, "tested", bad.version)
        time.sleep(0.5)
        for _ in range(3):
            after = server.predict(row())
            assert after.json() == before.json()
            assert after.headers["X-Model-ID"] == before.headers["X-Model-ID"]
        assert server.log().count("goes on as") == 1
        refused(server.predict(row(), f"models:/{NAME}/{bad.version}"), 500)


def test_a_port_that_is_taken_is_one_sentence_at_once(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run([*COMMAND, "--port", str(port)], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "--port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_server_with_keys_prints_a_request_that_names_one(shelf: Shelf, tmp_path: Path) -> None:
    made = subprocess.run(
        [*COMMAND[:-1], "keys", "add", "desk", "--scope", "predict", "--file", "keys.json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__AUTH__MODE": "keys",
        "FIN_PYFUNC__AUTH__KEYS_FILE": "keys.json",
    }
    with serving("-m", "models:/eurusd_rf@champion", folder=tmp_path, env=env) as server:
        server.wait_for_log("curl -s")
        (curl,) = (line for line in server.log().splitlines() if line.startswith("curl "))
        environ = {**os.environ, "KEY": made.stdout.strip()}
        answered = subprocess.run(["bash", "-c", curl], env=environ, capture_output=True, text=True, check=True)
        assert list(json.loads(answered.stdout)) == ["prediction", "probability", "probabilities", "confidence"]
        assert made.stdout.strip() not in server.log()


def test_a_worker_that_is_told_to_stop_just_as_its_model_comes_stops(tmp_path: Path) -> None:
    async def stop_as_it_comes() -> bool:
        server = Server(load_settings(environ={}, overrides={"model_uri": str(saved(tmp_path / "m"))}))
        probing = asyncio.create_task(server.health.run())
        await asyncio.sleep(0)
        server.default.settled.set()
        probing.cancel()
        await asyncio.wait([probing], timeout=10)
        return probing.cancelled()

    assert asyncio.run(stop_as_it_comes())


def test_once_a_server_says_that_it_is_ready_every_worker_that_answers_is(tmp_path: Path) -> None:
    with serving("-m", str(saved(tmp_path / "m")), "--workers", "4", folder=tmp_path, wait_for=None) as server:
        server.wait_for_log("ready; try:")
        body = json.dumps({"features": row()})
        asked = 0
        while server.log().count("is ready (") < 4 or asked < 50:
            answer = requests.post(  # each over a connection of its own, to whichever worker takes it
                f"{server.url}/predict", body, headers={"Content-Type": "application/json"}, timeout=30
            )
            assert answer.status_code == 200, answer.text
            asked += 1


def test_a_server_says_that_it_is_not_ready_for_as_long_as_no_worker_is(tmp_path: Path) -> None:
    with serving(
        *("-m", "models:/nobody/1", "--mlflow-tracking-uri", f"http://127.0.0.1:{free_port()}", "--workers", "3"),
        folder=tmp_path,
        wait_for="/health/live",
    ) as server:
        assert server.wait_for("/health/ready", 503).headers["Retry-After"]
        assert server.predict(row()).status_code == 503
