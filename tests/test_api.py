"""The contract's routes on a real server: gunicorn, a SQLite store, one model of each kind."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import joblib
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import requests
import skops.io

from tests.models import OF_FORESTS, bars, bars_with_gaps
from tests.servers import Serving, serving
from tests.shelf import Shelf
from tests.tables import WRITERS, read_back


@pytest.fixture(scope="module")
def served(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("api")
    (folder / "roots").mkdir()
    skops.io.dump(shelf.estimators["sklearn"], folder / "roots" / "forest.skops")
    joblib.dump(shelf.estimators["sklearn"], folder / "roots" / "forest.joblib")
    pd.to_pickle(shelf.estimators["unsigned"], folder / "roots" / "logistic.pkl")
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__MODELS__FILE_ROOTS": str(folder / "roots"),
        "FIN_PYFUNC__MODELS__TRUST": "all",
        "FIN_PYFUNC__CORS__ALLOW_ORIGINS": "https://desk.example",
    }
    with serving("-m", "models:/eurusd_rf@champion", folder=folder, env=env) as server:
        server.roots = folder / "roots"  # type: ignore[attr-defined]
        yield server


def row(i: int = 0, frame: pd.DataFrame | None = None) -> dict[str, Any]:
    values = (bars() if frame is None else frame).iloc[i]
    return {name: None if pd.isna(value) else value for name, value in values.items()}


def test_predict_answers_the_four_keys_in_their_order(served: Serving, shelf: Shelf) -> None:
    answered = served.predict(row(), return_proba=True)
    assert answered.status_code == 200
    assert answered.headers["Content-Type"] == "application/json"
    body = answered.json()
    assert list(body) == ["prediction", "probability", "probabilities", "confidence"]
    expected = shelf.estimators["forest"].predict_proba(bars().head(1))[0]
    assert body["probabilities"] == pytest.approx(dict(zip(["-1", "0", "1"], expected, strict=True)), abs=1e-12)
    assert list(body["probabilities"]) == ["-1", "0", "1"]
    assert body["prediction"] == [-1, 0, 1][int(np.argmax(expected))]
    assert body["probability"] == body["probabilities"][str(body["prediction"])]


def test_probabilities_are_null_unless_asked_for_and_confidence_is_not(served: Serving) -> None:
    asked, unasked = served.predict(row(), return_proba=True).json(), served.predict(row()).json()
    assert unasked == {**asked, "probability": None, "probabilities": None}


@pytest.mark.parametrize("i", range(20))
def test_confidence_follows_the_probability_of_the_predicted_class(served: Serving, i: int) -> None:
    body = served.predict(row(i), return_proba=True).json()
    p = body["probability"]
    assert body["confidence"] == ("high" if p >= 0.8 else "medium" if p >= 0.6 else "low")


def test_thresholds_belong_to_the_logged_model(served: Serving, shelf: Shelf) -> None:
    rows = [row(i) for i in range(40)]
    body = served.predict_batch(rows, shelf.uris["words"], return_proba=True).json()
    chosen = [max(p.values()) for p in body["probabilities"]]
    assert body["confidences"] == ["high" if p >= 0.5 else "medium" if p >= 0.4 else "low" for p in chosen]


@pytest.mark.parametrize("sent_as", ["json", *WRITERS])
@pytest.mark.parametrize("wanted", list(WRITERS))
def test_a_table_answers_with_the_identifiers_that_were_sent(served: Serving, sent_as: str, wanted: str) -> None:
    frame = bars().head(7).assign(bar_id=range(2**53 + 1, 2**53 + 8), note="not an identifier")
    body = json.dumps({"features_list": frame.to_dict("records")}).encode()
    if sent_as in WRITERS:
        body = WRITERS[sent_as](pa.Table.from_pandas(frame, preserve_index=False))
    headers = {"Content-Type": sent_as if sent_as in WRITERS else "application/json", "Accept": wanted}
    answered = requests.post(served.url + "/predict/batch", data=body, headers=headers, timeout=60)
    assert answered.status_code == 200, answered.text
    read = read_back(wanted, answered.content)
    assert list(read.columns) == ["bar_id", "prediction", "confidence"]
    assert read["bar_id"].astype(int).tolist() == frame["bar_id"].tolist()


def test_string_labels_come_back_as_strings(served: Serving, shelf: Shelf) -> None:
    body = served.predict(row(), shelf.uris["words"], return_proba=True).json()
    assert body["prediction"] in ("down", "flat", "up")
    assert list(body["probabilities"]) == ["down", "flat", "up"]


def test_a_model_without_probabilities_answers_unknown(served: Serving, shelf: Shelf) -> None:
    body = served.predict(row(), shelf.uris["margin"], return_proba=True).json()
    assert body["prediction"] in (-1, 1)
    assert (body["probability"], body["probabilities"], body["confidence"]) == (None, None, "unknown")
    batch = served.predict_batch([row(), row(1)], shelf.uris["margin"], return_proba=True).json()
    assert batch["probabilities"] is None
    assert batch["confidences"] == ["unknown", "unknown"]


def test_lineage_goes_in_headers_and_leads_to_the_same_model(served: Serving) -> None:
    headers = served.predict(row()).headers
    assert headers["X-Model-URI"] == "models:/eurusd_rf@champion"
    assert re.fullmatch(r"models:/m-[0-9a-f]{32}", headers["X-Model-ID"])
    assert headers["x-model-backend"] == OF_FORESTS
    again = served.predict(row(), headers["X-Model-ID"])
    assert again.headers["X-Model-ID"] == headers["X-Model-ID"]
    assert again.json() == served.predict(row()).json()


@pytest.mark.parametrize(
    ("sent", "kept"), [("desk-7:42", True), ("a" * 129, False), ("two words", False), ("ä", False)]
)
def test_a_well_formed_request_id_is_kept_and_any_other_replaced(served: Serving, sent: str, kept: bool) -> None:
    headers = {"X-Request-ID": sent.encode()}
    answered = requests.post(served.url + "/predict", json={"features": row()}, headers=headers, timeout=10)
    assert (answered.headers["X-Request-ID"] == sent) == kept
    assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", answered.headers["X-Request-ID"])


def test_key_order_and_further_columns_do_not_matter(served: Serving) -> None:
    turned = dict(reversed(row().items()))
    assert served.predict({**turned, "comment": "a note", "bar_id": 12345}).json() == served.predict(row()).json()


def test_batch_answers_as_the_guide_shows(served: Serving, shelf: Shelf) -> None:
    rows = [row(i) for i in range(30)]
    plain = served.predict_batch(rows).json()
    expected = shelf.estimators["forest"].predict(bars().head(30)).tolist()
    assert plain == {"predictions": expected, "probabilities": None, "count": 30}
    full = served.predict_batch(rows, return_proba=True).json()
    assert list(full) == ["predictions", "probabilities", "count", "confidences"]
    alone = [served.predict(r, return_proba=True).json() for r in rows[:5]]
    assert [a["probabilities"] for a in alone] == full["probabilities"][:5]
    assert [a["confidence"] for a in alone] == full["confidences"][:5]


def test_nulls_are_taken_where_training_had_them(served: Serving, shelf: Shelf) -> None:
    frame = bars_with_gaps()
    rows = [row(i, frame) for i in range(30)]
    assert any(value is None for r in rows for value in r.values())
    body = served.predict_batch(rows, shelf.uris["gaps"], return_proba=True).json()
    expected = shelf.estimators["gaps"].predict_proba(frame.head(30))
    np.testing.assert_allclose([list(p.values()) for p in body["probabilities"]], expected, atol=1e-12)


@pytest.mark.parametrize("kind", ["sklearn", "unsigned", "artifact"])
def test_foreign_models_and_mlflow_2_layouts_answer_alike(served: Serving, shelf: Shelf, kind: str) -> None:
    answered = served.predict(row(), shelf.uris[kind], return_proba=True)
    expected = shelf.estimators[kind].predict_proba(bars().head(1))[0]
    assert list(answered.json()["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-12)
    layout = rf"runs:/{shelf.run_ids[kind]}/model" if kind == "artifact" else r"models:/m-[0-9a-f]{32}"
    assert re.fullmatch(layout, answered.headers["X-Model-ID"])


def test_any_other_pyfunc_answers_its_labels(served: Serving, shelf: Shelf) -> None:
    answered = served.predict(row(), shelf.uris["echo"], return_proba=True)
    assert answered.json()["prediction"] == ("up" if row()["return_1"] > 0 else "down")
    assert answered.json()["confidence"] == "unknown"
    assert answered.headers["X-Model-Backend"] == "pyfunc"


@pytest.mark.parametrize("name", ["forest.skops", "forest.joblib", "logistic.pkl"])
def test_bare_estimator_files_below_a_root_answer_alike(served: Serving, shelf: Shelf, name: str) -> None:
    answered = served.predict(row(), f"file://{served.roots / name}", return_proba=True)  # type: ignore[attr-defined]
    estimator = shelf.estimators["sklearn" if name.startswith("forest") else "unsigned"]
    expected = estimator.predict_proba(bars().head(1))[0]
    assert list(answered.json()["probabilities"].values()) == pytest.approx(expected.tolist(), abs=1e-12)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", answered.headers["X-Model-ID"])


@pytest.mark.parametrize("uri", ["models:/eurusd_rf/1", "models:/eurusd_rf/latest", "models:/eurusd_rf@champion"])
def test_every_registry_uri_leads_to_the_same_model(served: Serving, shelf: Shelf, uri: str) -> None:
    by_run = served.predict(row(), shelf.uris["forest"])
    answered = served.predict(row(), uri)
    assert answered.headers["X-Model-ID"] == by_run.headers["X-Model-ID"]
    assert answered.headers["X-Model-URI"] == uri
    assert answered.json() == by_run.json()


def test_hundreds_of_concurrent_callers_each_get_their_own_answer(served: Serving, shelf: Shelf) -> None:
    kinds = ["forest", "words", "sklearn", "gaps"]

    def ask(i: int) -> tuple[int, Any]:
        return i, served.predict(row(i % 200), shelf.uris[kinds[i % 4]], return_proba=True).json()["probabilities"]

    with ThreadPoolExecutor(16) as pool:
        for i, got in pool.map(ask, range(400)):
            estimator = shelf.estimators[kinds[i % 4]]
            expected = estimator.predict_proba(bars().iloc[[i % 200]])[0]
            assert list(got.values()) == pytest.approx(expected.tolist(), abs=1e-9)


def test_models_lists_every_run_with_a_model_newest_first(served: Serving, shelf: Shelf) -> None:
    body = requests.get(served.url + "/models", timeout=30).json()
    assert body["count"] == len(body["models"]) == len(shelf.run_ids)
    assert [m["run_id"] for m in body["models"]] == list(reversed(shelf.run_ids.values()))
    forest = next(m for m in body["models"] if m["run_id"] == shelf.run_ids["forest"])
    assert forest["model_uri"] == shelf.uris["forest"]
    assert forest["metrics"] == {"accuracy": 0.85}
    assert forest["params"]["n_estimators"] == 20
    assert forest["tags"] == {"asset": "EURUSD"}
    assert requests.get(served.url + "/models?limit=2", timeout=30).json()["count"] == 2


def test_health_says_what_it_knows(served: Serving) -> None:
    served.wait_for("/health")
    body = requests.get(served.url + "/health", timeout=10).json()
    assert list(body) == ["status", "mlflow_connected", "gpu_available", "cached_models"]
    assert body["cached_models"] >= 1
    assert requests.get(served.url + "/health/live", timeout=10).status_code == 200


def test_root_says_where_to_go(served: Serving) -> None:
    body = requests.get(served.url + "/", timeout=10).json()
    assert list(body) == ["message", "version", "docs", "health"]
    assert requests.get(served.url + body["docs"], timeout=10).status_code == 200


def test_mlflows_own_routes_stay(served: Serving, shelf: Shelf) -> None:
    import mlflow

    ping = requests.get(served.url + "/ping", timeout=10)
    assert (ping.status_code, ping.text) == (200, "\n")
    assert requests.head(served.url + "/ping", timeout=10).status_code == 200
    assert requests.get(served.url + "/version", timeout=10).text == mlflow.__version__
    frame = bars().head(3)
    expected = shelf.estimators["forest"].predict(frame).tolist()
    bodies = {
        "application/json": json.dumps({"dataframe_split": frame.to_dict("split", index=False)}),
        "text/csv": frame.to_csv(index=False),
        "application/vnd.apache.parquet": frame.to_parquet(),
    }
    for content_type, body in bodies.items():
        answered = requests.post(
            served.url + "/invocations", data=body, headers={"Content-Type": content_type}, timeout=30
        )
        assert [p["prediction"] for p in answered.json()["predictions"]] == expected, content_type
        assert answered.headers["X-Model-ID"].startswith("models:/m-")


def test_cors_allows_the_configured_origin_and_no_other(served: Serving) -> None:
    for origin, allowed in (("https://desk.example", "https://desk.example"), ("https://else.example", None)):
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        answered = requests.options(served.url + "/predict", headers=headers, timeout=10)
        assert answered.headers.get("Access-Control-Allow-Origin") == allowed


def test_the_server_does_not_say_what_it_is(served: Serving) -> None:
    assert "Server" not in requests.get(served.url + "/health", timeout=10).headers


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"features": {}}),
        ("/predict/batch", {"features_list": [{}]}),
        ("/invocations", {"dataframe_records": [{}]}),
    ],
)
def test_a_model_named_where_it_is_not_read_is_refused_rather_than_another_answering(
    served: Serving, path: str, body: dict[str, Any]
) -> None:
    answered = requests.post(f"{served.url}{path}?model_uri=models:/another/1", json=body, timeout=60)
    assert answered.status_code == 422
    assert "query string" in answered.json()["detail"]
