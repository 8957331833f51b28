"""Columns of times and values that an encoder refuses, in models of our own."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server import invocations
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

import fin_pyfunc
from fin_pyfunc.model.errors import FeatureError

cloudpickle.register_pickle_by_value(sys.modules[__name__])
N = 120
VALUES = np.random.default_rng(0).normal(size=N)


def hours(frame: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"hour": frame["t"].dt.hour, "x": frame["x"]})


def test_a_time_keeps_its_zone_and_an_unknown_category_its_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    times = pd.date_range(
        "2026-03-28", periods=N, freq="97min", tz="Europe/Berlin", unit="ns"
    )  # over a change of clocks
    X = pd.DataFrame({"t": times, "x": VALUES, "venue": np.where(VALUES > 0, "EBS", "LMAX")})
    columns = make_column_transformer((FunctionTransformer(hours), ["t", "x"]), (OneHotEncoder(), ["venue"]))
    estimator = make_pipeline(columns, LogisticRegression()).fit(X, (VALUES + X["t"].dt.hour / 12 > 1).astype(int))
    fin_pyfunc.save_model(estimator, X, tmp_path / "m", serialization="cloudpickle")
    assert "requests with a value of 'venue' that the estimator's encoder was not fitted on are refused" in caplog.text
    model: Any = fin_pyfunc.load_model(str(tmp_path / "m"))
    expected = estimator.predict_proba(X)[:, 1]
    np.testing.assert_allclose(model.predict(X)["probability_1"], expected, rtol=0, atol=1e-9)
    in_utc = X.assign(t=X["t"].dt.tz_convert("UTC"))
    np.testing.assert_allclose(model.predict(in_utc)["probability_1"], expected, rtol=0, atol=1e-9)
    rows = [{**row, "t": row["t"].isoformat()} for row in X.to_dict("records")]
    for i in (0, 40, 119):
        for text in (rows[i]["t"], X["t"][i].tz_convert("UTC").isoformat().replace("+00:00", "Z")):
            answer = model.predict_one({**rows[i], "t": text})
            assert answer["probabilities"]["1"] == pytest.approx(expected[i], abs=1e-9)
    refused = {
        "must have a time zone, such as Z": {"t": "2026-03-28T10:00:00"},
        "as text, not a number": {"t": 1774692000},
        "'t' is null": {"t": None},
        "'venue' must be one of the 2 values that the model's encoder knows": {"venue": "NYSE"},
    }
    for said, change in refused.items():
        with pytest.raises(FeatureError, match=said) as e:
            model.predict_one({**rows[0], **change})
        assert "NYSE" not in str(e.value)
    pyfunc = mlflow.pyfunc.load_model(str(tmp_path / "m"))
    body = json.dumps({"dataframe_records": rows[:3]})
    answered = invocations(body, "application/json", pyfunc, pyfunc.metadata.get_input_schema())
    got = [row["probability_1"] for row in json.loads(answered.response)["predictions"]]
    np.testing.assert_allclose(got, expected[:3], rtol=0, atol=1e-9)
