"""What a request to `/predict/batch` says of itself, and every content type on a real server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import requests

from fin_pyfunc.serving import content_types
from fin_pyfunc.serving.content_types import ARROW, CSV, JSON, PARQUET, TABLE_TYPES
from fin_pyfunc.serving.errors import RequestError
from tests.models import bars, bars_with_gaps
from tests.servers import Serving, serving
from tests.shelf import Shelf
from tests.tables import (
    WRITERS,
    read_back,
    table_of,
)

# what a request says of itself


def scope(query: str = "", **headers: str) -> dict[str, Any]:
    lines = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": lines, "query_string": query.encode()}


@pytest.mark.parametrize(
    ("sent", "kind"),
    [
        ("text/csv", CSV),
        ("Text/CSV; charset=utf-8", CSV),
        (f" {ARROW} ;x=1", ARROW),
        ("", ""),
        ("nonsense", "nonsense"),
    ],
)
def test_the_content_type_is_read_without_its_parameters(sent: str, kind: str) -> None:
    assert content_types.media_type(scope(content_type=sent)) == kind


def test_no_content_type_is_an_empty_one() -> None:
    assert content_types.media_type(scope()) == ""
    assert str(content_types.unsupported()).count("application/") == 3


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", JSON),
        ("*/*", JSON),
        ("application/*", JSON),
        ("application/json", JSON),
        ("text/*", CSV),
        ("text/csv, application/json", JSON),
        ("text/csv, application/json;q=0.9", CSV),
        ("TEXT/CSV; header=present; Q=1.0", CSV),
        (f"{ARROW}, */*", ARROW),
        (f"*/*;q=0.5, {PARQUET};q=0.5", PARQUET),
        (f"{ARROW};q=0.2, {PARQUET};q=0.9", PARQUET),
        (f"{ARROW};q=0, application/*", JSON),
        ("text/html, */*;q=0.1", JSON),
        ("application/json;q=0, */*", ARROW),
    ],
)
def test_the_answer_is_of_the_type_that_is_wanted_most(accept: str, kind: str) -> None:
    assert content_types.accepted(scope(accept=accept) if accept else scope()) == kind


@pytest.mark.parametrize(
    "accept", ["text/html", "image/*", "application/json;q=0", "*/*;q=0", "text/csv;q=much", "json"]
)
def test_nothing_that_can_be_answered_is_a_406_that_names_what_can(accept: str) -> None:
    with pytest.raises(RequestError, match=rf"'Accept'.*{ARROW}") as caught:
        content_types.accepted(scope(accept=accept))
    assert caught.value.status == 406


@pytest.mark.parametrize(
    ("query", "read"),
    [
        ("", (None, False)),
        ("return_proba=true", (None, True)),
        ("return_proba=False&model_uri=models%3A%2Feurusd_rf%40champion", ("models:/eurusd_rf@champion", False)),
        ("model_uri=models:/a/1&return_proba=True", ("models:/a/1", True)),
        ("model_uri=", ("", False)),
    ],
)
def test_the_query_names_the_model_and_asks_for_probabilities(query: str, read: tuple[str | None, bool]) -> None:
    assert content_types.query(scope(query)) == read


@pytest.mark.parametrize(
    "query",
    [
        "limit=1",
        "return_proba=1",
        "return_proba=",
        "return_proba=true&return_proba=true",
        "model_uri=a&model_uri=b",
        "x",
    ],
)
def test_any_other_query_is_refused(query: str) -> None:
    with pytest.raises(RequestError) as caught:
        content_types.query(scope(query))
    assert caught.value.status == 422


# a real server


@pytest.fixture(scope="module")
def served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__LIMITS__MAX_BATCH_ROWS": "100"}
    with serving("-m", "models:/eurusd_rf@champion", folder=tmp_path_factory.mktemp("tables"), env=env) as server:
        yield server


def ask(
    served: Serving, content_type: str, body: bytes, accept: str | None = None, **query: object
) -> requests.Response:
    headers = {"Content-Type": content_type} | ({} if accept is None else {"Accept": accept})
    return requests.post(served.url + "/predict/batch", data=body, headers=headers, params=query, timeout=60)  # type: ignore[arg-type] # objects become text


@pytest.mark.parametrize("accept", [JSON, *TABLE_TYPES])
@pytest.mark.parametrize("content_type", [JSON, *TABLE_TYPES])
@pytest.mark.parametrize("return_proba", [False, True])
def test_every_content_type_is_answered_in_every_other(
    served: Serving, content_type: str, accept: str, return_proba: bool
) -> None:
    frame = bars().head(30)
    rows = frame.to_dict("records")
    expected = served.predict_batch(rows, return_proba=return_proba).json()
    if content_type == JSON:
        body = json.dumps({"features_list": rows, "return_proba": return_proba}).encode()
        answered = ask(served, JSON, body, accept)
    else:
        answered = ask(served, content_type, WRITERS[content_type](table_of(frame)), accept, return_proba=return_proba)
    assert answered.status_code == 200, answered.text
    assert answered.headers["Content-Type"] == accept
    assert answered.headers["X-Model-URI"] == "models:/eurusd_rf@champion"
    if accept == JSON:
        assert answered.json() == expected
        return
    read = read_back(accept, answered.content)
    assert read["prediction"].tolist() == expected["predictions"]
    if return_proba:
        assert read["confidence"].tolist() == expected["confidences"]
        names = [f"probability_{label}" for label in (-1, 0, 1)]
        assert read[names].to_numpy().tolist() == [list(p.values()) for p in expected["probabilities"]]
        np.testing.assert_array_equal(read["probability"], read[names].max(axis=1))


@pytest.mark.parametrize("kind", ["words", "gaps", "sklearn", "unsigned"])
@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_tables_reach_any_model_that_the_query_names(
    served: Serving, shelf: Shelf, content_type: str, kind: str
) -> None:
    frame = (bars_with_gaps() if kind == "gaps" else bars()).head(20)
    answered = ask(served, content_type, WRITERS[content_type](table_of(frame)), model_uri=shelf.uris[kind])
    assert answered.status_code == 200, answered.text
    assert answered.json()["predictions"] == shelf.estimators[kind].predict(frame).tolist()
    assert answered.headers["X-Model-URI"] == shelf.uris[kind]


@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_bad_rows_of_a_table_are_named_as_in_json(served: Serving, content_type: str) -> None:
    frame = bars().head(10).copy()
    frame.loc[[3, 7], "spread"] = np.nan
    answered = ask(served, content_type, WRITERS[content_type](table_of(frame)), accept=ARROW)
    assert answered.status_code == 422
    assert answered.headers["Content-Type"] == JSON  # an error always is
    assert [(e["row"], e["feature"]) for e in answered.json()["errors"]] == [(3, "spread"), (7, "spread")]


@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_refusals_of_a_table_are_one_sentence(served: Serving, content_type: str) -> None:
    body = WRITERS[content_type](table_of(bars()))
    for status, answered in [
        (413, ask(served, content_type, body)),
        (422, ask(served, content_type, body[: len(body) // 2 - 1] if content_type != CSV else b"\xff\n1\n")),
        (422, ask(served, content_type, b"")),
        (422, ask(served, content_type, body, limit=1)),
        (422, ask(served, content_type, body, return_proba="maybe")),
        (422, ask(served, content_type, body, model_uri="s3://bucket/model")),
        (404, ask(served, content_type, body, model_uri="models:/unknown/1")),
        (406, ask(served, content_type, body, accept="text/html")),
        (415, ask(served, "application/vnd.ms-excel", body)),
    ]:
        assert answered.status_code == status, answered.text
        assert answered.headers["Content-Type"] == JSON
        assert answered.json()["detail"].endswith(".")
        assert "/tmp/" not in answered.text
    assert served.predict_batch([dict(bars().iloc[0])]).status_code == 200
