"""Every row of the contract's error table, sent for real: one sentence, the right status, nothing leaked."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
import requests

from tests.servers import Serving, serving
from tests.shelf import Shelf
from tests.test_api import row

JSON = {"Content-Type": "application/json"}
SECRET = "cannot-leak-this"


@pytest.fixture(scope="module")
def served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("errors")
    (folder / "roots").mkdir()
    (folder / "roots" / "model.pkl").write_bytes(b"not even a pickle")
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__MODELS__FILE_ROOTS": str(folder / "roots"),
        "FIN_PYFUNC__LIMITS__MAX_BATCH_ROWS": "20",
        "FIN_PYFUNC__LIMITS__MAX_BODY_BYTES": "100000",
        "FIN_PYFUNC__LIMITS__REQUEST_SECONDS": "5",
        "FIN_PYFUNC__LIMITS__MAX_WAITING": "4",
        "FIN_PYFUNC__LIMITS__SCORE_THREADS": "8",
    }
    with serving("-m", "models:/eurusd_rf@champion", folder=folder, env=env) as server:
        server.folder = folder  # type: ignore[attr-defined]
        for foreign in ("unsigned", "fails"):  # whose libraries may take longer to import than a request may take
            for _ in range(10):
                if server.predict(row(), shelf.uris[foreign]).status_code != 504:
                    break
        yield server


def refused(answered: requests.Response | httpx.Response, status: int) -> dict[str, Any]:
    """Check what holds for every error, and hand out its body."""
    assert answered.status_code == status, answered.text
    assert answered.headers["Content-Type"] == "application/json"
    assert answered.headers["X-Request-ID"]
    body: dict[str, Any] = answered.json()
    assert set(body) <= {"detail", "errors"}
    assert body["detail"].rstrip().endswith(".")
    for leak in ("Traceback", 'File "', "site-packages", "/tmp/", SECRET, ".py"):
        assert leak not in answered.text
    return body


def post(served: Serving, path: str, body: bytes | str, headers: dict[str, str] = JSON) -> requests.Response:
    return requests.post(served.url + path, data=body, headers=headers, timeout=60)


@pytest.mark.parametrize(
    "uri",
    [
        "models:/unknown/1",
        "models:/eurusd_rf/99",
        "models:/eurusd_rf@unknown",
        "models:/unknown/latest",
        "models:/m-" + "0" * 32,
        "runs:/" + "0" * 32 + "/model",
    ],
)
def test_404_for_a_model_version_alias_or_run_that_does_not_exist(served: Serving, uri: str) -> None:
    refused(served.predict(row(), uri), 404)


def test_404_for_a_run_without_such_a_model_an_experiment_and_a_route(served: Serving, shelf: Shelf) -> None:
    refused(served.predict(row(), shelf.uris["forest"] + "2"), 404)
    refused(requests.get(served.url + "/models?experiment_name=unknown", timeout=30), 404)
    for method in ("GET", "POST", "DELETE"):
        refused(requests.request(method, served.url + "/nowhere", timeout=10), 404)


def test_403_for_a_file_outside_every_root_and_for_a_pickle(served: Serving) -> None:
    refused(served.predict(row(), "file:///etc/model.skops"), 403)
    root = served.folder / "roots"  # type: ignore[attr-defined]
    refused(served.predict(row(), f"file://{root}/model.pkl"), 403)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/predict"),
        ("PUT", "/predict/batch"),
        ("GET", "/invocations"),
        ("POST", "/health"),
        ("DELETE", "/models"),
    ],
)
def test_405_for_the_wrong_method_says_the_right_one(served: Serving, method: str, path: str) -> None:
    answered = requests.request(method, served.url + path, timeout=10)
    refused(answered, 405)
    assert answered.headers["Allow"]


@pytest.mark.parametrize(
    "headers", [{"Content-Type": "text/plain"}, {"Content-Type": "application/x-www-form-urlencoded"}, {}]
)
@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/invocations"])
def test_415_for_a_wrong_or_missing_content_type(served: Serving, path: str, headers: dict[str, str]) -> None:
    refused(post(served, path, b'{"features": {}}', headers), 415)


@pytest.mark.parametrize("path", ["/predict", "/predict/batch", "/invocations"])
def test_413_for_a_body_that_is_too_large_declared_or_not(served: Serving, path: str) -> None:
    refused(post(served, path, b" " * 200_000), 413)
    chunks = (b" " * 10_000 for _ in range(20))
    refused(requests.post(served.url + path, data=chunks, headers=JSON, timeout=30), 413)


def test_413_for_a_batch_with_too_many_rows(served: Serving) -> None:
    body = refused(served.predict_batch([row()] * 21), 413)
    assert "20" in body["detail"]
    assert served.predict_batch([row()] * 20).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"features": 1}',
        '{"features": {}, "x": "' + SECRET + '"}',
        '{"features": {}, "return_proba": 1}',
        '{"features": {}, "return_proba": "' + SECRET + '"}',
        '{"features": {}, "model_uri": 3}',
        '{"features": {1: 2}}',
        '{"features": {"a": tru}}',
        "\xff",
        "[" * 50_000,
    ],
)
def test_422_for_malformed_json_and_missing_unknown_or_mistyped_keys(served: Serving, body: str) -> None:
    refused(post(served, "/predict", body.encode("latin-1")), 422)


@pytest.mark.parametrize("body", ['{"features_list": []}', '{"features_list": {}}', '{"features_list": [1]}', "{}"])
def test_422_for_a_malformed_batch(served: Serving, body: str) -> None:
    refused(post(served, "/predict/batch", body), 422)


@pytest.mark.parametrize(
    "uri",
    [
        "models:/a/../b",
        "s3://bucket/model",
        "models:/a#b",
        "runs:/" + SECRET,
        "",
        "http://127.0.0.1/x",
        "file:///a/../b",
    ],
)
def test_422_for_a_uri_of_no_known_form(served: Serving, uri: str) -> None:
    refused(served.predict(row(), uri), 422)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("null", "null"),
        ('"' + SECRET + '"', "must be a number, not text"),
        ("true", "must be a number, not a boolean"),
        ("[1]", "must be a number, text, boolean or null, not a list"),
        ("{}", "must be a number, text, boolean or null, not an object"),
        ("NaN", "NaN"),
        ("Infinity", "infinite or too large for float64"),
        ("1e999", "infinite or too large for float64"),
        ("9" * 400, "infinite or too large for float32"),
    ],
)
def test_422_names_the_feature_and_what_is_wrong_with_it(served: Serving, value: str, problem: str) -> None:
    good = json.dumps({**row(), "spread": "@"})
    sent = '{"features": ' + good.replace('"@"', value) + "}"
    body = refused(post(served, "/predict", sent), 422)
    assert body["errors"] == [{"row": 0, "feature": "spread", "problem": problem}]


def test_422_for_a_missing_feature_and_for_an_unknown_one_where_extra_is_forbidden(
    served: Serving, shelf: Shelf
) -> None:
    lacking = {name: value for name, value in row().items() if name != "spread"}
    body = refused(served.predict(lacking), 422)
    assert body["errors"] == [{"row": 0, "feature": "spread", "problem": "missing"}]
    strict = shelf.uris["strict"]
    assert served.predict({**row(), "bar_id": 1}, strict).status_code == 200
    body = refused(served.predict({**row(), "tip": SECRET}, strict), 422)
    assert body["errors"] == [{"row": 0, "feature": "tip", "problem": "unknown to this model"}]


def test_one_bad_row_refuses_the_batch_and_every_bad_row_is_named(served: Serving) -> None:
    rows = [row(i) for i in range(10)]
    rows[3] = {**rows[3], "spread": None}
    rows[7] = {**rows[7], "spread": "wide", "return_1": None}
    body = refused(served.predict_batch(rows), 422)
    assert [(e["row"], e["feature"]) for e in body["errors"]] == [
        (3, "spread"),
        (7, "spread"),
        (7, "return_1"),
    ]  # in training order
    assert "rows 3, 7" in body["detail"]


def test_at_most_a_hundred_problems_are_listed_and_all_are_counted(served: Serving) -> None:
    body = refused(served.predict_batch([{} for _ in range(20)]), 422)
    n_features = len(row())
    assert len(body["errors"]) == min(100, 20 * n_features)
    assert str(20 * n_features) in body["detail"]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=1.5", "limit=-1", "unknown=1", "limit=" + "9" * 40]
)
def test_422_for_a_bad_query(served: Serving, query: str) -> None:
    refused(requests.get(f"{served.url}/models?{query}", timeout=30), 422)


def test_500_when_the_estimator_itself_raises_and_the_log_has_the_trace(served: Serving, shelf: Shelf) -> None:
    answered = served.predict({**row(), "spread": 987654.25}, shelf.uris["fails"])
    body = refused(answered, 500)
    assert body["detail"].startswith("Prediction failed: ")
    assert "987654.25" not in answered.text
    assert "secret/place" not in answered.text
    served.wait_for_log(answered.headers["X-Request-ID"])
    served.wait_for_log("builtins.ValueError (its message is logged at the level debug)")
    assert "987654.25" not in served.log()  # which that message quotes
    assert served.predict(row(), shelf.uris["fails"]).status_code == 200


def test_500_when_an_unsigned_model_does_not_like_its_input(served: Serving, shelf: Shelf) -> None:
    body = refused(served.predict(dict.fromkeys(row(), SECRET), shelf.uris["unsigned"]), 500)
    assert body["detail"].startswith("Prediction failed: ")


def test_504_when_the_time_limit_passes_and_503_when_too_many_wait(served: Serving, shelf: Shelf) -> None:
    slow = {**row(), "spread": 6.5}
    assert served.predict({**row(), "spread": 0.0}, shelf.uris["sleeps"]).status_code == 200
    refused(served.predict(slow, shelf.uris["sleeps"]), 504)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: served.predict(slow, shelf.uris["sleeps"]), range(8)))
    statuses = sorted(a.status_code for a in answers)
    assert set(statuses) <= {503, 504}  # 503 too for those whose model's process was ended because it took too long
    for answered in answers:
        refused(answered, answered.status_code)
        if answered.status_code == 503:
            assert int(answered.headers["Retry-After"]) >= 1
    assert served.predict(row()).status_code == 200


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("application/json", "{"),
        ("application/json", '{"x": 1}'),
        ("application/json", json.dumps({"dataframe_records": [{"spread": SECRET}]})),
        ("application/json", json.dumps({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}})),
        ("application/json", json.dumps({"dataframe_records": [{**dict.fromkeys(("bidPrice", "askPrice"), SECRET)}]})),
        ("text/csv", "spread\n" + SECRET),
        ("text/csv", "\xff\n1\n"),
        ("application/vnd.apache.parquet", "PAR1"),
    ],
)  # fmt: skip
def test_mlflows_own_route_refuses_with_one_sentence_too(served: Serving, content_type: str, body: str) -> None:
    refused(post(served, "/invocations", body.encode("latin-1"), {"Content-Type": content_type}), 422)


def test_mlflows_own_route_names_the_features_it_refuses(served: Serving) -> None:
    records = [row(), {**row(1), "spread": None}]
    body = refused(post(served, "/invocations", json.dumps({"dataframe_records": records})), 422)
    assert [(e["row"], e["feature"]) for e in body["errors"]] == [(1, "spread")]


def test_an_unfinished_request_harms_nobody(served: Serving) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for sent in (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{",
        b"\x00\x01",
        b"GET",
    ):
        with socket.create_connection((host, int(port)), timeout=10) as connection:
            connection.sendall(sent)
    assert served.predict(row()).status_code == 200
