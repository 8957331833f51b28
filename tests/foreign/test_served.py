"""A server of models that others logged: every route, single rows, batches, and rows of several clients."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import cloudpickle
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
from mlflow.models import infer_signature
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

import fin_pyfunc
from tests.conftest import tracking_to
from tests.foreign.test_typed_rows import TIMES, Y, hours
from tests.servers import Serving, serving

cloudpickle.register_pickle_by_value(sys.modules[__name__])
ARROW = "application/vnd.apache.arrow.stream"
LIBRARY = {"pip_requirements": ["scikit-learn"]}
PICKLED = {"serialization_format": "cloudpickle", **LIBRARY}
NUMBERS = pd.DataFrame(np.random.default_rng(5).normal(size=(len(Y), 2)))
TEXTS = TIMES[["x"]].assign(venue=np.where(Y, "EBS", "LMAX"))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    root = tmp_path_factory.mktemp("others")
    uri = f"sqlite:///{root / 'mlflow.db'}"
    times = make_pipeline(FunctionTransformer(hours), LogisticRegression()).fit(TIMES, Y)
    encoder = make_column_transformer((OneHotEncoder(), ["venue"]), remainder="passthrough")
    words = make_pipeline(encoder, LogisticRegression()).fit(TEXTS, Y)
    numbers = LogisticRegression().fit(NUMBERS, Y)
    found: dict[str, Any] = {"uri": uri, "root": root, "times": times, "words": words, "numbers": numbers}
    with tracking_to(uri):
        experiment = mlflow.create_experiment("e", artifact_location=(root / "artifacts").as_uri())
        mlflow.set_experiment(experiment_id=experiment)
        log = mlflow.sklearn.log_model
        for name, info in {
            "times_uri": log(times, name="times", signature=infer_signature(TIMES), **PICKLED),
            "own_times_uri": fin_pyfunc.log_model(times, TIMES, name="own_times", serialization="cloudpickle"),
            "words_uri": log(words, name="words", **PICKLED),
            "array_uri": log(LogisticRegression().fit(NUMBERS.to_numpy(), Y), name="array", **PICKLED),
            "numbers_uri": log(numbers, name="numbers", signature=infer_signature(NUMBERS), **PICKLED),
        }.items():
            found[name] = info.model_uri
    return found


@pytest.fixture(scope="module")
def served(models: dict[str, Any]) -> Iterator[Serving]:
    env = {"MLFLOW_TRACKING_URI": models["uri"], "FIN_PYFUNC_MODELS__MAX_LOADED": "10"}
    with serving("-m", models["numbers_uri"], folder=models["root"], env=env) as server:
        yield server


def batch(served: Serving, uri: str, content_type: str, frame: pd.DataFrame) -> requests.Response:
    if content_type == ARROW:
        sink = io.BytesIO()
        table = pa.Table.from_pandas(frame, preserve_index=False)
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        body = sink.getvalue()
    else:
        body = frame.to_csv(index=False).encode()
    params = {"model_uri": uri, "return_proba": "true"}
    return requests.post(
        f"{served.url}/predict/batch", data=body, params=params, headers={"Content-Type": content_type}, timeout=60
    )


@pytest.mark.parametrize("content_type", [ARROW, "text/csv"])
@pytest.mark.parametrize("name", ["times", "own_times", "words", "numbers", "array"])
def test_tables_are_answered_as_by_the_estimator(
    served: Serving, models: dict[str, Any], name: str, content_type: str
) -> None:
    frame = {"words": TEXTS, "numbers": NUMBERS, "array": NUMBERS}.get(name, TIMES).head(7)
    estimator = models[{"own_times": "times", "array": "numbers"}.get(name, name)]
    sent = frame.set_axis([str(column) for column in frame.columns], axis=1)
    answered = batch(served, models[f"{name}_uri"], content_type, sent)
    assert answered.status_code == 200, answered.text
    got = [row["1"] for row in answered.json()["probabilities"]]
    np.testing.assert_allclose(got, estimator.predict_proba(frame)[:, 1], rtol=0, atol=1e-9)


def test_rows_of_a_model_without_names(served: Serving, models: dict[str, Any]) -> None:
    row, uri = NUMBERS.iloc[0].tolist(), models["array_uri"]
    listed = requests.post(f"{served.url}/predict", json={"features": row, "model_uri": uri}, timeout=60)
    assert listed.status_code == 200, listed.text
    for features in ({"imb": 1.0, "hour": 3}, {"hour": 3, "imb": 1.0}, {"foo": 1, "bar": 2}):
        answered = served.predict(features, uri)
        assert answered.status_code == 422
        assert "send each row as a list of its 2 values in training order" in answered.json()["detail"]
        assert [error["problem"] for error in answered.json()["errors"]] == ["unknown to this model"] * 2
    null = requests.post(f"{served.url}/predict", json={"features": [None, 1], "model_uri": uri}, timeout=60)
    assert null.status_code == 422
    assert null.json()["errors"] == [{"row": 0, "feature": "0", "problem": "null, which the model does not take"}]
    rows = {"features_list": NUMBERS.head(3).to_numpy().tolist(), "model_uri": uri}
    assert requests.post(f"{served.url}/predict/batch", json=rows, timeout=60).json()["count"] == 3
    bad = {"features_list": [row, {"imb": 1.0, "hour": 3}], "model_uri": uri}
    assert "in row 1:" in requests.post(f"{served.url}/predict/batch", json=bad, timeout=60).json()["detail"]


def test_a_bad_row_changes_none_of_the_rows_that_other_clients_send(served: Serving, models: dict[str, Any]) -> None:
    uri = models["words_uri"]
    rows = json.loads(TEXTS.head(20).to_json(orient="records"))
    alone = [served.predict(row, uri, return_proba=True).json() for row in rows]
    bad: list[dict[str, Any]] = [{"x": 1.0, "venue": "NYSE"}, {"x": 1.0, "venue": None}, {"x": None, "venue": "EBS"}]
    mixed = [row for i, row in enumerate(rows) for row in (row, bad[i % len(bad)])]
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda row: served.predict(row, uri, return_proba=True), mixed))
    assert [answer.json() for answer in answers[::2]] == alone
    assert {answer.status_code for answer in answers[1::2]} == {422}
    named = [answer.json()["errors"][0]["feature"] for answer in answers[1:7:2]]
    assert named == ["venue", "venue", "x"]
    assert "NYSE" not in answers[1].text


def invoke(served: Serving, content_type: str, body: Any) -> requests.Response:
    data = body if isinstance(body, str) else json.dumps(body)
    return requests.post(
        f"{served.url}/invocations", data=data, headers={"Content-Type": content_type}, timeout=60
    )  # fmt: skip


def test_numbers_for_names_are_text_in_invocations(served: Serving, models: dict[str, Any]) -> None:
    frame = NUMBERS.head(4)
    expected = {"predictions": models["numbers"].predict(frame).tolist()}
    records = [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]
    split = {"columns": ["0", "1"], "data": frame.to_numpy().tolist()}
    for body in ({"dataframe_records": records}, {"dataframe_split": split}):
        assert invoke(served, "application/json", body).json() == expected
    assert invoke(served, "text/csv", frame.to_csv(index=False)).json() == expected
    assert served.predict(records[0]).status_code == 200


def test_times_in_invocations(models: dict[str, Any]) -> None:
    env = {"MLFLOW_TRACKING_URI": models["uri"]}
    row = {"t": "2026-01-05T09:30:00", "x": 0.5}
    with serving("-m", models["own_times_uri"], folder=models["root"], env=env) as server:
        answered = [
            invoke(server, "application/json", {"dataframe_records": [row]}),
            invoke(server, "text/csv", "t,x\n2026-01-05T09:30:00,0.5\n"),
        ]
        assert [a.status_code for a in answered] == [200, 200], [a.text for a in answered]
        assert answered[0].json() == answered[1].json()
        epoch = invoke(server, "application/json", {"dataframe_records": [{**row, "t": 1767605400}]})
        assert epoch.status_code == 422
        assert "as text, not a number" in epoch.json()["detail"]


def test_a_server_does_not_start_with_a_regressor(models: dict[str, Any]) -> None:
    from sklearn.linear_model import LinearRegression

    folder = models["root"] / "regressor"
    mlflow.sklearn.save_model(LinearRegression().fit(NUMBERS, Y), folder, **PICKLED)
    with serving("-m", str(folder), folder=models["root"], wait_for=None) as server:
        server.process.wait(60)
        assert server.process.returncode != 0
        assert "LinearRegression is not a classifier" in server.log()
