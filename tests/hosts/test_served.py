"""Models that may run code, served by real servers: each in its own process, and what becomes of the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import psutil
import pytest
import requests
from mlflow import MlflowClient
from mlflow.models import infer_signature
from sklearn.svm import SVC

import fin_pyfunc
from fin_pyfunc.serving.record.reading import entries
from tests.conftest import tracking_to
from tests.servers import Serving, serving

cloudpickle.register_pickle_by_value(sys.modules[__name__])
X = pd.DataFrame(np.random.default_rng(0).normal(size=(120, 3)), columns=["bid", "ask", "spread"])
Y = np.where(X["bid"] > 0, 1, -1)
ROW = {"bid": 0.5, "ask": -0.25, "spread": 1.0}
MODULE = """
class Rule:
    classes_ = [-1, 0, 1]
    def predict(self, X):
        return [{answer}] * len(X)
"""


class Steps(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Does what its first feature says."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:
        step = float(model_input["bid"].iloc[0])
        if step == 7:
            os.kill(os.getpid(), 9)
        if step == 8:
            time.sleep(600)
        if step == 9:
            bytearray(8 << 30)
        return [1] * len(model_input)


def log_rule(folder: Path, answer: int, ours: bool) -> str:
    """A model whose module `desk_rules` is that of another one, too."""
    folder.mkdir()
    (folder / "desk_rules.py").write_text(MODULE.format(answer=answer))
    program = f"""
import sys; sys.path.insert(0, {str(folder)!r})
import mlflow, pandas as pd, cloudpickle
import desk_rules, fin_pyfunc
X = pd.DataFrame({X.head(20).to_dict("list")!r})
mlflow.set_tracking_uri({mlflow.get_tracking_uri()!r})
mlflow.set_experiment(experiment_id={os.environ["EXPERIMENT"]!r})
signature = mlflow.models.infer_signature(X)
code = [{str(folder / "desk_rules.py")!r}]
if {ours!r}:
    info = fin_pyfunc.log_model(desk_rules.Rule(), X, serialization="cloudpickle", code_paths=code)
else:
    info = mlflow.sklearn.log_model(desk_rules.Rule(), name="model", code_paths=code, signature=signature,
        serialization_format="cloudpickle", pip_requirements=["scikit-learn"])
print(info.model_uri)
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.split()[-1]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    root = tmp_path_factory.mktemp("hosted")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    client = MlflowClient(uri)
    experiment = client.create_experiment("e", artifact_location=(root / "artifacts").as_uri())
    os.environ["EXPERIMENT"] = experiment
    found: dict[str, Any] = {"root": root, "uri": uri, "client": client}
    with tracking_to(uri):
        mlflow.set_experiment(experiment_id=experiment)
        needs = {"pip_requirements": ["scikit-learn"]}
        info = mlflow.pyfunc.log_model(
            name="steps", python_model=Steps(), signature=infer_signature(X), registered_model_name="desk", **needs
        )
        found["steps"] = info.model_uri
        pickled = {"serialization_format": "cloudpickle", "signature": infer_signature(X), **needs}
        svc = SVC(probability=True, random_state=0).fit(X, Y)
        found["svc"], found["svc_estimator"] = mlflow.sklearn.log_model(svc, name="svc", **pickled).model_uri, svc
        found["data"] = fin_pyfunc.log_model(svc, X, name="data").model_uri
        for ours in (False, True):
            for answer in (-1, 1):
                name = f"rule-{'ours' if ours else 'theirs'}-{answer}"
                found[name] = log_rule(root / name, answer, ours)
        client.create_registered_model("rules")
        for answer in (-1, 1):
            client.create_model_version("rules", found[f"rule-theirs-{answer}"], None)
        client.set_registered_model_alias("rules", "live", "1")
    yield found
    del os.environ["EXPERIMENT"]


@pytest.fixture(scope="module")
def server(store: dict[str, Any]) -> Iterator[Serving]:
    with serving("-m", store["steps"], folder=store["root"], env=setting(store, models__refresh_seconds=1)) as started:
        yield started


def setting(store: dict[str, Any], **settings: Any) -> dict[str, str]:
    """Environment variables for a server with this store."""
    named = {f"FIN_PYFUNC__{name.upper()}": str(value) for name, value in settings.items()}
    return {"MLFLOW_TRACKING_URI": store["uri"], **named}


def predict(server: Serving, uri: str | None, row: dict[str, float] | None = None) -> Any:
    return server.predict(row or ROW, uri) if uri is not None else server.predict(row or ROW)


def answer_of(server: Serving, uri: str, row: dict[str, float] | None = None) -> Any:
    response = predict(server, uri, row)
    assert response.status_code == 200, response.text
    return response.json()["prediction"]


@pytest.mark.parametrize("order", [(-1, 1), (1, -1)])
@pytest.mark.parametrize("kind", ["theirs", "ours"])
def test_models_with_a_module_of_one_name_answer_each_with_their_own(
    server: Serving, store: dict[str, Any], kind: str, order: tuple[int, int]
) -> None:
    for answer in (*order, *order):
        assert answer_of(server, store[f"rule-{kind}-{answer}"]) == answer


def test_an_alias_moved_between_models_with_a_module_of_one_name_is_answered_by_the_new_one(
    server: Serving, store: dict[str, Any]
) -> None:
    assert answer_of(server, "models:/rules@live") == -1
    store["client"].set_registered_model_alias("rules", "live", "2")
    deadline = time.monotonic() + 30
    while answer_of(server, "models:/rules@live") != 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_without_isolation_the_second_module_of_a_name_is_refused_rather_than_answered_wrongly(
    store: dict[str, Any],
) -> None:
    with serving(folder=store["root"], env=setting(store, models__isolation="none")) as server:
        assert "models.isolation is 'none'" in server.log()
        assert answer_of(server, store["rule-theirs--1"]) == -1
        for kind in ("theirs", "ours"):
            refused = predict(server, store[f"rule-{kind}-1"])
            assert refused.status_code == 500
            assert "module 'desk_rules'" in refused.json()["detail"]
        assert answer_of(server, store["rule-theirs--1"]) == -1


def test_a_hosted_estimator_answers_as_itself_to_the_last_bit(server: Serving, store: dict[str, Any]) -> None:
    expected = store["svc_estimator"].predict_proba(X.tail(20))
    for i, row in enumerate(X.tail(20).to_dict("records")):
        body = {"model_uri": store["svc"], "features": row, "return_proba": True}
        answered = requests.post(f"{server.url}/predict", json=body, timeout=60).json()
        assert list(answered["probabilities"].values()) == expected[i].tolist()


def test_mlflows_route_is_answered_in_the_models_process(server: Serving) -> None:
    body = {"dataframe_split": X.head(3).to_dict("split")}
    answered = requests.post(f"{server.url}/invocations", json=body, timeout=60)
    assert (answered.status_code, answered.json()) == (200, {"predictions": [1, 1, 1]})
    refused = requests.post(f"{server.url}/invocations", json={"dataframe_records": [{"bid": 1.0}]}, timeout=60)
    assert refused.status_code == 422
    assert "'ask'" in refused.json()["detail"]


@pytest.mark.parametrize(("step", "why"), [(7, "crashed"), (8, "hung"), (9, "memory")])
def test_a_model_that_kills_its_process_costs_its_own_requests_and_is_back_soon(
    store: dict[str, Any], step: int, why: str
) -> None:
    env = setting(store, limits__request_seconds=2, models__host_memory_bytes=2 << 30)
    with serving("-m", store["data"], folder=store["root"], env=env) as server:
        started = time.monotonic()
        while predict(server, store["steps"]).status_code != 200:  # the first process of a server takes its time
            assert time.monotonic() < started + 30
        before = answer_of(server, store["data"])
        lost = predict(server, store["steps"], ROW | {"bid": float(step)})
        assert lost.status_code in (503, 504)
        if lost.status_code == 503:
            assert int(lost.headers["Retry-After"]) >= 1
        ended = time.monotonic()
        while predict(server, store["steps"]).status_code != 200:
            assert time.monotonic() < ended + 20
            time.sleep(0.05)
        assert answer_of(server, store["data"]) == before
        assert psutil.Process(server.process.pid).children(), "the worker was replaced"
        assert (
            f'fin_pyfunc_host_restarts_total{{reason="{why}"}} 1.0'
            in requests.get(f"{server.url}/metrics", timeout=60).text
        )


def test_a_model_whose_process_ends_three_times_in_a_minute_is_taken_out(store: dict[str, Any]) -> None:
    with serving("-m", store["steps"], folder=store["root"], env=setting(store)) as server:
        for _ in range(3):
            deadline = time.monotonic() + 20
            while predict(server, None).status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            assert predict(server, None, ROW | {"bid": 7.0}).status_code == 503
        time.sleep(1)
        refused = predict(server, None)
        assert refused.status_code == 503
        assert int(refused.headers["Retry-After"]) > 5
        assert requests.get(f"{server.url}/health", timeout=60).status_code == 503
        (entry,) = server.admin("/admin/models").json()["models"]
        assert entry["outage"]


def test_everything_ends_with_the_server_however_it_ends(store: dict[str, Any]) -> None:
    with serving("-m", store["steps"], "--workers", "2", folder=store["root"], env=setting(store)) as server:
        assert answer_of(server, store["svc"])
        arbiter = psutil.Process(server.process.pid)
        processes = [arbiter, *arbiter.children(recursive=True)]
        for process in processes:
            if "fork_server" not in " ".join(process.cmdline()):
                process.kill()
        psutil.wait_procs(processes, timeout=10)
        deadline = time.monotonic() + 10
        while [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]:
            assert time.monotonic() < deadline
            time.sleep(0.1)


def test_the_record_of_mlflows_route_has_what_was_sent_whatever_the_models_process_says(
    store: dict[str, Any], tmp_path: Path
) -> None:
    env = setting(store, record__folder=tmp_path / "record", record__sync="always")
    with serving("-m", store["steps"], folder=store["root"], env=env) as server:
        body = {"dataframe_split": X.head(2).to_dict("split")}
        assert requests.post(f"{server.url}/invocations", json=body, timeout=60).json() == {"predictions": [1, 1]}
    [record] = [entry.record for entry in entries(tmp_path / "record")]
    assert [json.loads(bytes(row)) for row in record.features or []] == X.head(2).to_dict("records")
    assert [answer.prediction for answer in record.answers or []] == [1, 1]
