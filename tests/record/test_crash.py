"""Everything is killed at random moments: what a client was answered is in the record, and the record is whole."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

import fin_pyfunc
from fin_pyfunc.serving.record.reading import entries
from fin_pyfunc.serving.record.verify import verify
from tests.conftest import free_port
from tests.models import logistic
from tests.servers import COMMAND

CLIENTS = 6
#: Seconds under load before everything is killed, at most.
LOAD_SECONDS = 0.4
#: Lives between two looks at the record.
LOOK_EVERY = 10


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fitted = logistic()
    folder = tmp_path_factory.mktemp("crash") / "model"
    fin_pyfunc.save_model(fitted.estimator, fitted.train, folder)
    return folder


class Client(threading.Thread):
    """Asks in a loop until nobody answers any more; keeps what it was answered, by request id."""

    def __init__(self, port: int, ids: Any) -> None:
        super().__init__()
        self._port, self._ids = port, ids
        self.answered: dict[str, Any] = {}
        self.refused: list[tuple[int, bytes]] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            while True:
                i = next(self._ids)
                values = {"return_1": 1e-6 * (i % 97 - 48), "order_flow_imbalance": 0.01 * (i % 41 - 20)}
                body: dict[str, Any] = {"features": values, "return_proba": True}
                path = "/predict"
                if i % 10 == 0:
                    path, body = "/predict/batch", {"features_list": [values, values], "return_proba": True}
                headers = {"Content-Type": "application/json", "X-Request-ID": f"c{i}"}
                connection.request("POST", path, json.dumps(body), headers)
                answer = connection.getresponse()
                content = answer.read()
                if answer.status != 200:
                    if b"default model is not ready" not in content:  # one worker may be before another
                        self.refused.append((answer.status, content))
                    continue
                said = json.loads(content)
                self.answered[f"c{i}"] = said["probabilities"] if i % 10 == 0 else [said["probabilities"]]
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()


def one_life(folder: Path, model: Path, workers: int, ids: Any, chance: random.Random) -> dict[str, Any]:
    """Start a server, ask it, kill all its processes; what was answered."""
    port = free_port()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FIN_PYFUNC", "MLFLOW_"))}
    clean |= {
        "FIN_PYFUNC__RECORD__FOLDER": "record",
        "FIN_PYFUNC__RECORD__ROTATE_BYTES": "60000",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [*COMMAND, "--port", str(port), "--workers", str(workers), "-m", str(model)]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(command, cwd=folder, env=clean, stdout=log, stderr=log)
    try:
        _wait(process, port, folder)
        clients = [Client(port, ids) for _ in range(CLIENTS)]
        for client in clients:
            client.start()
        if chance.random() < 0.9:
            _wait_for_an_answer(clients)
        time.sleep(chance.uniform(0, LOAD_SECONDS))
    finally:
        _kill(process)
    for client in clients:
        client.join(60)
        assert client.refused == []
    return {name: said for client in clients for name, said in client.answered.items()}


def _wait(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        assert process.poll() is None, (folder / "server.log").read_text()[-2000:]
        assert time.monotonic() < deadline, (folder / "server.log").read_text()[-2000:]
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        try:
            connection.request("GET", "/health/ready")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.02)


def _wait_for_an_answer(clients: list[Client]) -> None:
    deadline = time.monotonic() + 60
    while not any(client.answered for client in clients):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The master first, so that it starts no worker in place of one that is gone."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for one in (process, *family):
        try:
            os.kill(one.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait(30)
    psutil.wait_procs(family, 30)


def lives(folder: Path, model: Path, rounds: int, seed: int) -> int:
    """So many lives of a server, one after the other in one record; how many answers there were in all."""
    folder.mkdir()
    chance, ids, answered = random.Random(seed), itertools.count(), {}
    for i in range(1, rounds + 1):
        # with one worker a server starts in a third of the time
        answered |= one_life(folder, model, 2 if i % 20 == 1 else 1, ids, chance)
        if i % LOOK_EVERY == 0 or i == rounds:
            _all_there(folder, answered)
            print(f"{i} lives: {len(answered)} answers, all of them in the record", file=sys.stderr, flush=True)  # noqa: T201
    _start_and_stop(folder, model)  # the next start cuts what the last life left half written
    reports = verify(folder / "record")
    assert [problem for report in reports for problem in report.problems] == []
    cuts = (folder / "server.log").read_text().count("they were cut")
    assert sum(len(report.cuts) for report in reports) == cuts  # what was cut is said by the record, too
    print(f"{cuts} torn tails were cut", file=sys.stderr, flush=True)  # noqa: T201
    return len(answered)


def _all_there(folder: Path, answered: dict[str, Any]) -> None:
    """Every answer is in the record as it was given, and nothing but a torn tail is wrong with it."""
    recorded = {
        entry.record.client_request_id: [answer.probabilities for answer in entry.record.answers or ()]
        for entry in entries(folder / "record")
    }
    assert {name for name in answered if name not in recorded} == set()
    assert all(recorded[name] == said for name, said in answered.items())
    wrong = [str(problem) for report in verify(folder / "record") for problem in report.problems]
    assert all("torn tail" in said for said in wrong), wrong


def _start_and_stop(folder: Path, model: Path) -> None:
    from tests.servers import serving

    env = {"FIN_PYFUNC__RECORD__FOLDER": "record"}
    with serving("-m", str(model), folder=folder, env=env) as server:
        for i in range(20):
            server.predict({"return_1": 1e-6 * i, "order_flow_imbalance": 0.5})
        said = server.log()
    with (folder / "server.log").open("a") as log:
        log.write(said)


def test_every_answer_that_a_client_got_before_everything_was_killed_is_in_the_record(
    model: Path, tmp_path: Path
) -> None:
    assert lives(tmp_path / "lives", model, 5, seed=1) > 0


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_two_hundred_times(model: Path, tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def lane(i: int) -> None:
        try:
            assert lives(tmp_path / f"lane-{i}", model, 100, seed=10 + i) > 0
        except BaseException as e:
            failed.append(e)

    lanes = [threading.Thread(target=lane, args=(i,)) for i in range(2)]  # one a core
    for each in lanes:
        each.start()
    for each in lanes:
        each.join()
    if failed:
        raise failed[0]
