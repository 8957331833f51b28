"""Both clients against the real server: rows, DataFrames, health, models, and each way a call may fail."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests

from fin_pyfunc.client import (
    AsyncClient,
    Client,
    ConnectError,
    FeatureInfo,
    ForbiddenError,
    Health,
    ModelEntry,
    ModelInfo,
    NotFoundError,
    Prediction,
    PredictionFailedError,
    RejectedError,
)
from tests.conftest import free_port
from tests.models import bars
from tests.servers import Serving, serving
from tests.shelf import EXPERIMENT, Shelf

#: By what holds them, some rows of `bars`.
FORMS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "frame": lambda frame: frame,
    "columns in another order": lambda frame: frame[frame.columns[::-1]],
    "dicts": lambda frame: frame.to_dict("records"),
    "a generator": lambda frame: (row for row in frame.to_dict("records")),
    "series": lambda frame: [row for _, row in frame.iterrows()],
    "namedtuples": lambda frame: list(frame.itertuples(index=False)),
    "numpy": lambda frame: frame.to_numpy(),
    "lists": lambda frame: frame.to_numpy().tolist(),
    "structured": lambda frame: frame.to_records(index=False),
    "arrow": pa.Table.from_pandas,
    "columns": lambda frame: frame.to_dict("list") if len(frame) > 1 else frame.to_dict("records"),
    "series of columns": lambda frame: dict(frame.items()) if len(frame) > 1 else frame,
}
ROWS: dict[str, Callable[[pd.Series[Any]], Any]] = {
    "series": lambda row: row,
    "list": lambda row: row.tolist(),
    "tuple": lambda row: tuple(row),
    "numpy": lambda row: row.to_numpy(),
    "decimals": lambda row: {name: Decimal(repr(value)) for name, value in row.items()},
    "arrays of one": lambda row: {name: np.array([value]) for name, value in row.items()},
}
LINEAGE = {"request_id", "model_id", "backend"}


@pytest.fixture(scope="module")
def served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri}
    with serving("-m", "models:/eurusd_rf@champion", folder=tmp_path_factory.mktemp("client"), env=env) as server:
        yield server


class Both:
    """One method of either client, called in the same way."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self._kind, self._url, self._options = kind, url, options

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if self._kind == "requests":
                with Client(self._url, **self._options) as client:
                    return getattr(client, name)(*arguments, **keywords)

            async def on_loop() -> Any:
                async with AsyncClient(self._url, **self._options) as client:
                    return await getattr(client, name)(*arguments, **keywords)

            return asyncio.run(on_loop())

        return call


@pytest.fixture(params=["requests", "httpx"])
def client(request: pytest.FixtureRequest, served: Serving) -> Both:
    return Both(request.param, served.url)


def test_a_row_is_answered_as_the_estimator_does_and_says_where_from(client: Both, shelf: Shelf) -> None:
    answered = client.predict(bars().iloc[0].to_dict())
    expected = shelf.estimators["forest"].predict_proba(bars().head(1))[0]
    assert answered.probabilities == pytest.approx(dict(zip(["-1", "0", "1"], expected, strict=True)), abs=1e-12)
    assert answered.prediction == [-1, 0, 1][int(np.argmax(expected))]
    assert answered.model_id.startswith("models:/m-")
    assert len(answered.request_id) == 32
    assert answered.backend


def test_numbers_of_numpy_are_numbers_and_nan_is_missing(client: Both) -> None:
    row = {name: np.float64(value) for name, value in bars().iloc[0].items()}
    assert client.predict(row, return_proba=False).probabilities is None
    name = next(iter(row))
    with pytest.raises(RejectedError, match="null") as refused:
        client.predict({**row, name: np.nan})
    assert refused.value.errors[0]["feature"] == name


@pytest.mark.parametrize("arrow", [True, False])
def test_a_frame_comes_back_in_its_order_with_its_index_by_arrow_and_by_json(
    client: Both, shelf: Shelf, arrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fin_pyfunc.client.wire.has_arrow", lambda: arrow)
    frame = bars().head(57).set_axis([f"bar {i}" for i in range(57)])
    answered = client.predict_batch(frame, chunk_rows=20)
    expected = shelf.estimators["forest"].predict_proba(frame)
    assert list(answered.index) == list(frame.index)
    names = ["prediction", "probability", "confidence", "probability_-1", "probability_0", "probability_1"]
    assert list(answered.columns) == names
    np.testing.assert_allclose(answered[names[3:]], expected, atol=1e-12)
    np.testing.assert_array_equal(answered["prediction"], np.array([-1, 0, 1])[expected.argmax(axis=1)])
    np.testing.assert_allclose(answered["probability"], expected.max(axis=1), atol=1e-12)
    assert len(answered.attrs["request_ids"]) == 3
    assert [uri.startswith("models:/m-") for uri in answered.attrs["model_ids"]] == [True]
    without = client.predict_batch(frame, return_proba=False)
    pd.testing.assert_frame_equal(without, answered[["prediction", "confidence"]])


def test_a_bad_row_is_named_in_the_whole_frame_and_what_was_answered_is_kept(client: Both) -> None:
    frame = bars().head(50).copy()
    frame.iloc[33, 0] = np.nan
    with pytest.raises(RejectedError) as refused:
        client.predict_batch(frame, chunk_rows=20)
    assert refused.value.status == 422
    assert [(e["row"], e["feature"]) for e in refused.value.errors] == [(33, frame.columns[0])]
    assert refused.value.answered is not None
    assert len(refused.value.answered) == 20


def test_another_model_may_be_asked_for(client: Both, shelf: Shelf) -> None:
    assert client.predict(bars().iloc[0].to_dict(), model_uri=shelf.uris["words"]).prediction in ("down", "flat", "up")
    labels = client.predict_batch(bars().head(5), model_uri=shelf.uris["words"])["prediction"]
    assert set(labels) <= {"down", "flat", "up"}


def test_models_and_health(client: Both, shelf: Shelf) -> None:
    assert client.health().status == "healthy"
    listed = client.models(EXPERIMENT, limit=2)
    assert len(listed) == 2
    assert listed[0].run_id in shelf.run_ids.values()


@pytest.mark.parametrize("of", FORMS.values(), ids=list(FORMS))
def test_rows_are_taken_in_whatever_holds_them(
    served: Serving, client: Both, of: Callable[[pd.DataFrame], Any]
) -> None:
    frame = bars().head(3)
    expected = Both("requests", served.url).predict_batch(frame)
    answered = client.predict_batch(of(frame))
    pd.testing.assert_frame_equal(answered, expected)
    one = client.predict(of(frame.head(1)))
    assert (one.prediction, one.probability) == tuple(expected[["prediction", "probability"]].iloc[0])


@pytest.mark.parametrize("of", ROWS.values(), ids=list(ROWS))
def test_a_row_is_taken_in_whatever_holds_it(client: Both, of: Callable[[pd.Series[Any]], Any]) -> None:
    row = bars().iloc[0]
    assert client.predict(of(row)).prediction == client.predict(row.to_dict()).prediction


@pytest.mark.parametrize(
    ("method", "data", "sentence"),
    [
        ("predict", "spread", "Rows are a DataFrame"),
        ("predict", 1.5, "Rows are a DataFrame"),
        ("predict", None, "Rows are a DataFrame"),
        ("predict", [], "predict takes one row, and these are 0"),
        ("predict", [1.1, 1.2], "Row 0 has 2 values and no names, and the model takes 5 features: bidPrice, askPrice"),
        ("predict", bars().head(2), "predict takes one row, and these are 2: call predict_batch"),
        ("predict", [{"spread": 1.0}, {"spread": 2.0}], "predict takes one row, and these are 2"),
        ("predict", {"spread": math.inf}, "Feature 'spread' is infinite"),
        ("predict", {"spread": [1, 2]}, "Feature 'spread' is a list"),
        ("predict", {"spread": np.array([1.0, 2.0])}, "Feature 'spread' is a ndarray"),
        ("predict_batch", [1.1, 1.2], "These are values of one row, or of one column"),
        ("predict_batch", np.zeros(5), "These are values of one row, or of one column"),
        ("predict_batch", np.zeros((2, 4)), "Row 0 has 4 values and no names"),
        ("predict_batch", [{"spread": 1.0}, [1.0]], "The rows are not all of one kind"),
        ("predict_batch", {"spread": [1.0], "return_1": [1.0, 2.0]}, "The columns are not of one length"),
        ("predict_batch", pd.DataFrame([[1, 2]], columns=["spread", "spread"]), "'spread' is there more than once"),
        ("predict_batch", [], "A batch takes at least one row"),
        ("predict_batch", bars().head(0), "A batch takes at least one row"),
        ("predict_batch", ["a", "b"], "These are values of one row"),
    ],
)
def test_what_are_no_rows_is_said_in_a_sentence(client: Both, method: str, data: Any, sentence: str) -> None:
    with pytest.raises((TypeError, ValueError), match=re.escape(sentence)) as refused:
        getattr(client, method)(data)
    assert str(refused.value).endswith((".", "null."))


def test_values_that_arrow_has_no_type_for_are_refused_by_the_server_with_their_name(client: Both) -> None:
    frame = bars().head(2).astype(object)
    frame.iloc[1, 2] = "wide"
    with pytest.raises(RejectedError, match="feature 'spread' must be a number, not text") as refused:
        client.predict_batch(frame)
    assert [each["row"] for each in refused.value.errors] == [1]


def test_a_null_of_any_library_is_missing(client: Both) -> None:
    for null in (None, np.nan, np.float32("nan"), pd.NA, pd.NaT, Decimal("nan")):
        with pytest.raises(RejectedError, match="null"):
            client.predict({**bars().iloc[0].to_dict(), "spread": null})


def test_info_describes_a_model(client: Both, shelf: Shelf) -> None:
    info = client.info()
    assert info.names == list(bars().columns)
    assert info.features[2].training_max == bars()["spread"].max()
    assert (info.classes, info.thresholds) == ([-1, 0, 1], {"high": 0.8, "medium": 0.6})
    assert client.info(shelf.uris["words"]).classes == ["down", "flat", "up"]
    assert client.info(shelf.uris["echo"]).names is None
    with pytest.raises(ValueError, match="says nothing of its features"):
        client.predict(np.zeros(5), model_uri=shelf.uris["echo"])


def test_errors_hold_the_servers_own_sentence_and_the_id_that_finds_it(client: Both, shelf: Shelf) -> None:
    with pytest.raises(NotFoundError, match="No registered model has the name") as missing:
        client.predict(bars().iloc[0].to_dict(), model_uri="models:/nothing@champion")
    assert missing.value.status == 404
    assert len(missing.value.request_id) == 32
    with pytest.raises(NotFoundError):
        client.models("no such experiment")
    with pytest.raises(PredictionFailedError, match="Prediction failed"):
        client.predict({**bars().iloc[0].to_dict(), "spread": 101.0}, model_uri=shelf.uris["fails"])


@pytest.mark.parametrize("kind", ["requests", "httpx"])
def test_a_key_opens_and_is_told_to_nobody(
    kind: str, shelf: Shelf, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    keys = tmp_path / "keys"
    command = [sys.executable, "-m", "fin_pyfunc_cli", "keys", "add", "desk", "--scope", "predict", "--file", str(keys)]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    key = made.stdout.split()[-1] if made.stdout.split() else ""
    env = {"MLFLOW_TRACKING_URI": shelf.tracking_uri, "FIN_PYFUNC__AUTH__MODE": "keys"}
    env["FIN_PYFUNC__AUTH__KEYS_FILE"] = str(keys)
    caplog.set_level(logging.DEBUG)
    with serving("-m", "models:/eurusd_rf@champion", folder=tmp_path, env=env) as server:
        row = bars().iloc[0].to_dict()
        assert Both(kind, server.url, api_key=key).predict(row).prediction in (-1, 0, 1)
        with pytest.raises(ForbiddenError) as refused:
            Both(kind, server.url, api_key="wrong-key-0123456789").predict(row)
        assert "wrong-key" not in str(refused.value) + repr(refused.value)
    assert refused.value.status == 401
    assert key not in caplog.text
    assert key not in repr(Client(server.url, key)) + repr(vars(Client(server.url, key)))


@pytest.mark.parametrize("kind", ["requests", "httpx"])
def test_no_server_is_one_sentence(kind: str) -> None:
    with pytest.raises(ConnectError, match="No server answers at http") as refused:
        Both(kind, f"http://127.0.0.1:{free_port()}").health()
    assert refused.value.is_safe


def test_the_answers_have_the_fields_and_types_that_the_server_publishes(served: Serving) -> None:
    schemas = requests.get(f"{served.url}/openapi.json", timeout=30).json()["components"]["schemas"]
    kinds = {Prediction: "PredictResponse"} | {
        kind: kind.__name__ for kind in (Health, ModelEntry, ModelInfo, FeatureInfo)
    }
    for kind, name in kinds.items():
        published, headers = schemas[name]["properties"], LINEAGE if kind is Prediction else set()
        assert {field.name for field in fields(kind)} - headers == set(published)
        for field, hint in get_type_hints(kind).items():
            if field not in headers:
                assert json_types(published[field], schemas) == python_types(hint), (name, field)


def json_types(schema: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    """The JSON types that a schema allows."""
    if "$ref" in schema:
        return json_types(schemas[schema["$ref"].rpartition("/")[2]], schemas)
    if "anyOf" in schema:
        return set().union(*(json_types(part, schemas) for part in schema["anyOf"]))
    return {schema["type"]} if isinstance(schema["type"], str) else set(schema["type"])


def python_types(hint: Any) -> set[str]:
    """The same of an annotation."""
    known = {bool: "boolean", int: "integer", float: "number", str: "string", type(None): "null"}
    if hint in known:
        return {known[hint]}
    if getattr(hint, "__origin__", None) is dict or is_dataclass(hint):
        return {"object"}
    if getattr(hint, "__origin__", None) is list:
        return {"array"}
    return set().union(*(python_types(part) for part in get_args(hint)))


def test_both_clients_have_the_same_methods() -> None:
    def signatures(kind: type) -> dict[str, str]:
        methods = inspect.getmembers(kind, inspect.isfunction)
        return {name: str(inspect.signature(f)) for name, f in methods if not name.startswith("_")}

    own, twin = signatures(Client), signatures(AsyncClient)
    assert own.pop("close") == twin.pop("aclose")
    assert own == twin
    assert inspect.signature(Client) == inspect.signature(AsyncClient)


def test_the_client_brings_in_neither_server_nor_mlflow() -> None:
    code = (
        "import sys, fin_pyfunc.client\n"
        "heavy = {'mlflow', 'sklearn', 'pandas', 'pyarrow', 'httpx', 'gunicorn', 'fin_pyfunc.serving', "
        "'fin_pyfunc.model'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://desk", "http://user:secret@desk:8000", "http://desk?x=1"])
def test_a_url_that_is_none_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(ValueError, match="The server's URL") as refused:
        Client(url)
    assert "secret" not in str(refused.value)
