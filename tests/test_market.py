"""Real GBP/USD minutes end to end: trained, logged to an `mlflow server`, served, and held to the estimator itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import pytest
import requests
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fin_pyfunc
from tests.conftest import MlflowServer, tracking_to
from tests.market import Market, held_out, market
from tests.servers import Serving, serving

ESTIMATORS: dict[str, Any] = {
    "forest": lambda: RandomForestClassifier(200, max_depth=8, random_state=0),
    "scaled_logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression()),
}
ROWS, SINGLE_ROWS, BATCH_ROWS = 1000, 100, 250
TOLERANCE = 1e-9


class Served(NamedTuple):
    server: Serving
    classes: list[int]
    #: what the estimator itself says of the held-out rows, and those rows as a client sends them
    predictions: list[int]
    probabilities: np.ndarray[Any, Any]
    rows: list[dict[str, Any]]


@pytest.fixture(scope="session")
def real() -> Market:
    """Asked for first, so that nothing is started where there is no data."""
    return market()


@pytest.fixture(scope="module", params=ESTIMATORS)
def served(
    request: pytest.FixtureRequest, real: Market, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    train, y, *_ = real
    estimator = ESTIMATORS[request.param]().fit(train, y)
    with tracking_to(mlflow_server.uri):
        info = fin_pyfunc.log_model(estimator, train.tail(500))
    frame = held_out(ROWS)
    env = {"MLFLOW_TRACKING_URI": mlflow_server.uri}
    with serving("-m", info.model_uri, folder=tmp_path_factory.mktemp("market"), env=env) as server:
        yield Served(
            server,
            estimator.classes_.tolist(),
            estimator.predict(frame).tolist(),
            estimator.predict_proba(frame),
            cast("list[dict[str, Any]]", frame.to_dict("records")),
        )


def assert_close(served: Served, answered: list[dict[str, float]], which: slice | np.ndarray[Any, Any]) -> None:
    names = [str(label) for label in served.classes]
    assert all(list(row) == names for row in answered)
    got = np.array([list(row.values()) for row in answered])
    np.testing.assert_allclose(got, served.probabilities[which], rtol=0, atol=TOLERANCE)


def test_the_held_out_rows_are_as_odd_as_the_market() -> None:
    frame = held_out(ROWS)
    assert len(frame) == ROWS
    assert (frame["spread"] <= 0).any()
    assert (frame["minutes_since_last"] > 24 * 60).any(), "no row after a weekend"
    assert frame.index.min() > market().train.index.max()


def test_single_rows_are_answered_as_by_the_estimator(served: Served) -> None:
    odd = [i for i, row in enumerate(served.rows) if row["spread"] <= 0 or row["is_after_gap"]][: SINGLE_ROWS // 2]
    even = np.linspace(0, ROWS - 1, SINGLE_ROWS - len(odd)).astype(int)
    which = np.unique(np.concatenate([odd, even]).astype(int))
    bodies = []
    for i in which:
        answered = served.server.predict(served.rows[i], return_proba=True)
        assert answered.status_code == 200, answered.text
        bodies.append(answered.json())
    assert [body["prediction"] for body in bodies] == [served.predictions[i] for i in which]
    assert [body["probability"] for body in bodies] == [b["probabilities"][str(b["prediction"])] for b in bodies]
    assert_close(served, [body["probabilities"] for body in bodies], which)


def test_batches_are_answered_as_by_the_estimator(served: Served) -> None:
    for start in range(0, ROWS, BATCH_ROWS):
        which = slice(start, start + BATCH_ROWS)
        answered = served.server.predict_batch(served.rows[which], return_proba=True)
        assert answered.status_code == 200, answered.text
        assert answered.json()["predictions"] == served.predictions[which]
        assert_close(served, answered.json()["probabilities"], which)


def test_mlflows_own_route_answers_as_the_estimator(served: Served) -> None:
    answered = requests.post(served.server.url + "/invocations", json={"dataframe_records": served.rows}, timeout=120)
    assert answered.status_code == 200, answered.text
    table = pd.DataFrame(answered.json()["predictions"])
    assert table["prediction"].tolist() == served.predictions
    names = [f"probability_{label}" for label in served.classes]
    np.testing.assert_allclose(table[names].to_numpy(), served.probabilities, rtol=0, atol=TOLERANCE)
