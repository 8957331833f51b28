"""What a user is told to use instead of what keeps a model native."""

from __future__ import annotations

import json
import logging
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fin_pyfunc
from fin_pyfunc.compiling.advice import advise, slow_line, spoken, why_native
from fin_pyfunc.model.form import Form
from tests.authoring.estimators import of, sk
from tests.cli.commands import run
from tests.models import logistic, small_forest


@pytest.mark.parametrize(
    ("clause", "advice"),
    [
        ("FunctionTransformer calls a function of your own", "compute anything else before the model"),
        ("the step 'tfidf' (TfidfVectorizer) is not compiled", "free text is not compiled"),
        ("the step 'gaps' (KNNImputer) is not compiled", "SimpleImputer"),
        ("the classifier (SVC) is not compiled behind such steps", "LogisticRegression"),
        ("its ONNX form has SVMClassifier in float32, and SVC computes in float64", "LogisticRegression"),
        ("it computes in float32, as its features are, and a converted form would in float64", "float64 columns"),
        ("a feature is string, not a number", "OneHotEncoder"),
        ("a feature is datetime, not a number", "before the model"),
    ],
)
def test_each_reason_leads_to_a_way_out(clause: str, advice: str) -> None:
    assert advice in str(advise(clause))


def test_a_reason_that_is_not_known_stands_for_itself() -> None:
    assert advise("its scores are off by 0.1") is None
    assert why_native([], {"onnx": "its scores are off by 0.1"}) == "its scores are off by 0.1"


def test_the_step_is_named_before_what_other_forms_say() -> None:
    dropped = {
        "treelite": "Pipeline is no ensemble of trees",
        "program": "the step 'text' (TfidfVectorizer) is not compiled",
    }
    assert str(why_native([], dropped)).startswith("the step 'text' (TfidfVectorizer)")
    assert why_native([Form(backend="onnx", file="model.onnx")], dropped) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0171, "17 ms"), (15.4e-6, "15 µs"), (0.00042, "420 µs"), (0.1234, "123 ms"), (1.5, "1500 ms")],
)
def test_durations_read_well(seconds: float, words: str) -> None:
    assert spoken(seconds) == words


def test_log_model_says_once_what_keeps_a_model_native(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fitted = of(sk("svm.SVC", probability=True))()
    with caplog.at_level(logging.WARNING, "fin_pyfunc"):
        fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "slow")
    (line,) = [
        record.getMessage() for record in caplog.records if "the estimator itself answers" in record.getMessage()
    ]
    assert re.search(r"in [\d.]+ (µs|ms) a row where a compiled form takes .*: .*SVC.*; LogisticRegression", line)
    shown = run("inspect", tmp_path / "slow")
    manifest = json.loads(run("inspect", tmp_path / "slow", "--json").out)["backend"]
    assert line.partition(": ")[2] in shown.out
    assert slow_line(manifest["advice"], manifest["seconds"]) in shown.out


@pytest.mark.parametrize("make", [logistic, small_forest])
def test_log_model_says_nothing_of_a_compiled_model(
    make: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = make()  # type: ignore[operator]
    with caplog.at_level(logging.WARNING, "fin_pyfunc"):
        fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "fast")
    assert not any("the estimator itself answers" in record.getMessage() for record in caplog.records)
    assert re.search(
        r"a row took [\d.]+ (µs|ms) by \w+, .* by the estimator itself when", run("inspect", tmp_path / "fast").out
    )


def test_the_step_that_takes_text_is_named_rather_than_the_text(tmp_path: Path) -> None:
    frame = pd.DataFrame({"price": np.arange(90.0), "note": ["buy now", "sell it", "hold on"] * 30})
    words = ColumnTransformer([("words", TfidfVectorizer(), "note")], remainder="passthrough")
    fitted = make_pipeline(words, LogisticRegression()).fit(frame, frame["price"] > 40)
    fin_pyfunc.save_model(fitted, frame, tmp_path / "text")
    assert "the step 'words' (TfidfVectorizer) is not compiled; free text" in run("inspect", tmp_path / "text").out


def test_log_model_says_which_text_the_estimator_does_not_use(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    frame = pd.DataFrame({"price": np.arange(90.0), "client": ["a", "b", "c"] * 30})
    scaled = ColumnTransformer([("numbers", StandardScaler(), ["price"])])
    fitted = make_pipeline(scaled, LogisticRegression()).fit(frame, frame["price"] > 40)
    with caplog.at_level(logging.WARNING, "fin_pyfunc"):
        fin_pyfunc.save_model(fitted, frame, tmp_path / "wide")
    assert any("does not use 'client': leave that out of X" in record.getMessage() for record in caplog.records)
