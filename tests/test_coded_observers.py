"""Metrics, the record and a shadow see the same of a matrix of codes as of the DataFrame that it stands for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.decision import Decisions, Scores, Thresholds
from fin_pyfunc.model.encoders import without_codes
from fin_pyfunc.model.errors import FeatureError, ScoringError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.nulls import refused_nulls
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.requests import RequestMetrics
from fin_pyfunc.serving.metrics.values import Values
from fin_pyfunc.serving.motion.shadow.messages import Answered, Frames, Rows, ToShadow
from fin_pyfunc.serving.motion.shadow.seen import Seen, seen
from fin_pyfunc.serving.motion.shadow.telling import Telling
from fin_pyfunc.serving.prediction import Prediction
from fin_pyfunc.serving.record.features import as_rows, canonical
from tests.feature_rows import ROW, TRAINING, spec
from tests.test_codes import coded_spec, questions

CODED = coded_spec()
COMPLETE = TRAINING.assign(venue=["EBS", "a", "b"])
UNKNOWN = TRAINING.assign(venue=["EBS", "a", "elsewhere"])


def tables(frame: pd.DataFrame) -> tuple[Any, pd.DataFrame]:
    """What is scored with codes, and without."""
    coded, plain = CODED.check(frame), without_codes(CODED).check(frame)
    assert isinstance(plain, pd.DataFrame)
    return coded, plain


@given(questions())
def test_digests_and_rows_of_a_record_are_those_of_the_text(question: tuple[FeatureSpec, list[dict[str, Any]]]) -> None:
    spec, rows = question
    try:
        coded, plain = spec.table(rows), without_codes(spec).table(rows)
    except FeatureError:
        return
    assert canonical(coded, spec) == canonical(plain, without_codes(spec))
    assert as_rows(coded, spec, {"id": ["k"] * len(rows)}) == as_rows(
        plain, without_codes(spec), {"id": ["k"] * len(rows)}
    )


@pytest.mark.parametrize("frame", [COMPLETE, UNKNOWN], ids=["codes", "text"])
def test_digests_are_the_same_for_every_dtype(frame: pd.DataFrame) -> None:
    coded, plain = tables(frame)
    assert isinstance(coded, np.ndarray) == (frame is COMPLETE)
    assert canonical(coded, CODED) == canonical(plain, without_codes(CODED))
    assert as_rows(coded, CODED, None) == as_rows(plain, without_codes(CODED), None)


# metrics


def predictions(features: FeatureSpec, frames: list[pd.DataFrame], is_checked: bool = True) -> list[Any]:
    manifest = SimpleNamespace(ranges={"price": (1.1, 1.6), "hour": (2.0, 3.0)})
    resolved = SimpleNamespace(model_id="models:/m-1")
    loaded: Any = SimpleNamespace(resolved=resolved, model=SimpleNamespace(features=features, manifest=manifest))
    answered = []
    for frame in frames:
        n = len(frame)
        scores = Scores(classes=[0, 1], index=np.zeros(n, np.intp), probabilities=np.full((n, 2), 0.5))
        decisions = Decisions(scores, Thresholds(), "native")
        table = features.check(frame) if is_checked else frame
        prediction = Prediction(None, loaded, table, decisions, 0.0, 0.0)
        answered.append((0.0, 0.01, 200, "POST", "/predict", {"prediction": prediction}, None))
    return answered


def test_metrics_count_the_same_of_codes_as_of_text(tmp_path: Path) -> None:
    frames = [COMPLETE, UNKNOWN, COMPLETE.iloc[1:2], UNKNOWN.iloc[2:3], COMPLETE.iloc[:0]]
    counted = []
    for features in (CODED, without_codes(CODED)):
        values = Values(tmp_path)
        counting = RequestMetrics(values, ["/predict"])
        counting.answered(predictions(features, frames))
        counting.count()
        counted.append({metric: values._numbers[metric] for metric in (m.FEATURES_NULL, m.FEATURES_OUT_OF_RANGE)})
    assert counted[0] == counted[1]
    assert counted[0][m.FEATURES_NULL][("models:/m-1", "broker")] == 3
    assert counted[0][m.FEATURES_OUT_OF_RANGE][("models:/m-1", "price")] == 5


def test_rows_that_nobody_has_checked_are_counted_without_an_error(tmp_path: Path) -> None:
    """As of MLflow's own route, where the model took what our check refuses."""
    odd = pd.DataFrame({"venue": ["EBS", 3, None], "hour": ["x", "y", "z"]})
    counting = RequestMetrics(Values(tmp_path), ["/predict"])
    nothing = pd.DataFrame(index=range(1), columns=CODED.names, dtype=object)
    counting.answered(predictions(CODED, [odd, nothing], is_checked=False))
    counting.count()
    assert counting._values._numbers[m.REQUESTS] == {("/predict", "200", "models:/m-1"): 2}


# a shadow


def told(shadow: FeatureSpec | None, answering: FeatureSpec, frame: pd.DataFrame, sent: bytes | None = None) -> Seen:
    """What the process of a shadow with these features sees of an answer."""
    loaded: Any = SimpleNamespace(model=SimpleNamespace(features=answering), resolved=SimpleNamespace(model_id="m"))
    scores = Scores(classes=[0, 1], index=np.zeros(len(frame), np.intp), probabilities=None)
    decisions = Decisions(scores, Thresholds(), "native")
    raw = None if sent is None else msgspec.Raw(sent)
    prediction = Prediction(None, loaded, answering.check(frame), decisions, 0.0, 0.0, raw)
    by, rows = Frames[ToShadow](ToShadow).feed(Telling(shadow).of([("r", prediction)]))
    assert isinstance(by, Answered)
    assert isinstance(rows, Rows)
    return seen(by, rows)


OTHER = coded_spec(venue=["b", "a", "EBS"])


def test_a_shadow_of_other_codes_gets_no_matrix_of_ours() -> None:
    assert CODED.reads_as(coded_spec())
    assert not OTHER.reads_as(CODED)
    assert not without_codes(CODED).reads_as(CODED)
    assert not CODED.reads_as(without_codes(CODED))


@pytest.mark.parametrize("frame", [COMPLETE, UNKNOWN], ids=["codes", "text"])
@pytest.mark.parametrize("shadow", [CODED, OTHER, without_codes(CODED)], ids=["the same", "other codes", "no codes"])
@pytest.mark.parametrize("answering", [CODED, without_codes(CODED)], ids=["by codes", "by text"])
def test_a_shadow_sees_the_rows_as_its_own_model_reads_them(
    shadow: FeatureSpec, answering: FeatureSpec, frame: pd.DataFrame
) -> None:
    model: Any = SimpleNamespace(features=shadow, table=shadow.table)
    table = told(shadow, answering, frame).table(model)
    pd.testing.assert_frame_equal(shadow.restore(table), shadow.restore(shadow.check(frame)))


def test_a_shadow_that_knows_no_features_gets_text() -> None:
    table = told(None, CODED, COMPLETE, b"[]").table(SimpleNamespace(features=None))  # type: ignore[arg-type]
    pd.testing.assert_frame_equal(table, tables(COMPLETE)[1])


# nulls of a foreign model


@given(st.sets(st.sampled_from(["gap", "broker", "session"]), min_size=1), st.booleans())
def test_the_null_that_a_model_fails_on_is_found_among_codes_and_text(refused: set[str], is_unknown: bool) -> None:
    good = CODED.table([{**ROW, "gap": 0.5, "broker": "a", "session": 2}])
    row = {**ROW, "gap": 0.5, "broker": "a", "session": 2} | dict.fromkeys(refused)
    table = CODED.table([{**row, "venue": "elsewhere"} if is_unknown else row])

    def score(asked: Any) -> None:
        frame = CODED.restore(asked)
        if frame[sorted(refused)].isna().any(axis=None):
            raise ScoringError("a null")

    error = refused_nulls(table, CODED, score, good)
    assert error is not None
    assert {problem.feature for problem in error.problems} == refused


def test_what_has_no_codes_is_as_it_was() -> None:
    frame = spec().check(TRAINING)
    assert spec().decode(frame) is frame
    numbers = spec("price", "gap").check(TRAINING)
    assert spec("price", "gap").decode(numbers) is numbers
