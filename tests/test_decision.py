"""From probabilities to an answer: pure arithmetic, in every form that a user reads."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.decision import Decisions, Label, Scores, Thresholds, label_names

probabilities = st.floats(0, 1)
levels = st.tuples(probabilities, probabilities).map(sorted)


def decisions(
    p: Any, classes: list[Label], index: list[int] | None = None, thresholds: Thresholds | None = None
) -> Decisions:
    array = None if p is None else np.array(p, dtype=np.float64)
    chosen = np.argmax(array, axis=1) if index is None and array is not None else np.array(index, dtype=np.intp)
    return Decisions(
        Scores(classes=classes, index=chosen, probabilities=array), thresholds or Thresholds(), backend="native"
    )


@pytest.mark.parametrize(
    ("probability", "word"),
    [(1.0, "high"), (0.8, "high"), (np.nextafter(0.8, 0), "medium"), (0.6, "medium"), (0.5999, "low"), (0.0, "low")],
)
def test_a_probability_on_a_threshold_belongs_above_it(probability: float, word: str) -> None:
    assert Thresholds().confidence(probability) == word


@given(levels, probabilities)
def test_confidence_follows_the_thresholds_of_the_model(level: list[float], p: float) -> None:
    medium, high = level
    word = Thresholds(high=high, medium=medium).confidence(p)
    assert (word == "high") == (p >= high)
    assert (word == "medium") == (medium <= p < high)
    assert (word == "low") == (p < medium)


@given(levels, probabilities, probabilities)
def test_confidence_never_falls_as_probability_rises(level: list[float], p: float, q: float) -> None:
    thresholds = Thresholds(high=level[1], medium=level[0])
    order = ["low", "medium", "high"]
    assert order.index(thresholds.confidence(min(p, q))) <= order.index(thresholds.confidence(max(p, q)))


@pytest.mark.parametrize(("high", "medium"), [(0.5, 0.6), (1.1, 0.6), (0.8, -0.1), (float("nan"), 0.6)])
def test_thresholds_that_make_no_sense_are_refused(high: float, medium: float) -> None:
    with pytest.raises(ValueError, match="0 <= medium <= high <= 1"):
        Thresholds(high=high, medium=medium)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({"high": high, "medium": medium}, Thresholds)


@given(
    st.integers(2, 5).flatmap(
        lambda k: st.lists(st.lists(probabilities, min_size=k, max_size=k), min_size=1, max_size=6)
    )
)
def test_every_form_says_the_same(p: list[list[float]]) -> None:
    classes: list[Label] = [f"class {i}" for i in range(len(p[0]))]
    answers = decisions(p, classes)
    frame = answers.frame()
    assert len(answers) == len(frame) == len(p)
    assert frame["prediction"].tolist() == answers.predictions == [classes[int(np.argmax(row))] for row in p]
    assert frame["probability"].tolist() == [max(row) for row in p]
    assert frame["confidence"].tolist() == answers.confidences
    assert answers.distributions == [dict(zip(map(str, classes), row, strict=True)) for row in p]
    assert frame[[f"probability_{name}" for name in classes]].to_numpy().tolist() == p
    one = answers.one()
    assert list(one) == ["prediction", "probability", "probabilities", "confidence"]
    assert one["prediction"] == answers.predictions[0]
    assert one["probability"] == max(p[0])
    assert one["probabilities"] == answers.distributions[0]
    assert one["confidence"] == answers.confidences[0]


@pytest.mark.parametrize(
    ("classes", "names", "dtype"),
    [
        ([-1, 0, 1], ["-1", "0", "1"], "int64"),
        (["buy", "hold", "sell"], ["buy", "hold", "sell"], "object"),
        ([False, True], ["false", "true"], "bool"),
        ([-0.5, 1.0], ["-0.5", "1.0"], "float64"),
        ([1, "a"], ["1", "a"], "object"),
        ([True, 2], ["true", "2"], "object"),
    ],
)
def test_a_label_is_answered_as_it_was_trained(classes: list[Label], names: list[str], dtype: str) -> None:
    assert label_names(classes) == names
    k = len(classes)
    answers = decisions(np.eye(k), classes)
    assert [(type(label), label) for label in answers.predictions] == [(type(label), label) for label in classes]
    frame = answers.frame()
    assert str(frame["prediction"].dtype) == dtype
    assert [(type(label), label) for label in frame["prediction"].tolist()] == [(type(c), c) for c in classes]
    assert list(frame.columns) == ["prediction", "probability", "confidence", *(f"probability_{n}" for n in names)]
    assert answers.distributions is not None
    assert list(answers.distributions[0]) == names


def test_the_answer_is_the_class_that_the_estimator_predicts_not_the_most_probable() -> None:
    answers = decisions([[0.3, 0.7], [0.5, 0.5]], ["down", "up"], index=[0, 1])
    assert answers.predictions == ["down", "up"]
    assert answers.one()["probability"] == 0.3
    assert answers.confidences == ["low", "low"]
    assert answers.frame()["probability"].tolist() == [0.3, 0.5]


def test_a_tie_goes_to_the_first_class() -> None:
    assert decisions([[0.25, 0.25, 0.25, 0.25], [0.1, 0.4, 0.4, 0.1]], [0, 1, 2, 3]).predictions == [0, 1]


def test_without_probabilities_confidence_is_unknown() -> None:
    answers = decisions(None, ["a", "b"], index=[1, 0])
    assert answers.one() == {"prediction": "b", "probability": None, "probabilities": None, "confidence": "unknown"}
    assert answers.distributions is None
    assert list(answers.frame().columns) == ["prediction", "confidence"]
    assert answers.frame()["confidence"].tolist() == ["unknown", "unknown"]


def test_without_being_asked_for_probabilities_confidence_is_still_known() -> None:
    answers = decisions([[0.1, 0.9]], ["a", "b"])
    assert answers.one(return_proba=False) == {
        "prediction": "b",
        "probability": None,
        "probabilities": None,
        "confidence": "high",
    }
    assert list(answers.frame(return_proba=False).columns) == ["prediction", "confidence"]
    assert answers.frame(return_proba=False)["confidence"].tolist() == ["high"]


def test_a_table_keeps_the_index_of_its_rows() -> None:
    index = pd.Index(["x", "x"], name="bar")
    assert decisions([[0.1, 0.9], [0.8, 0.2]], [0, 1]).frame(index=index).index.equals(index)


def test_no_rows_make_an_empty_table_with_the_same_columns() -> None:
    frame = decisions(np.empty((0, 2)), [0, 1], index=[]).frame()
    assert list(frame.columns) == ["prediction", "probability", "confidence", "probability_0", "probability_1"]
    assert len(frame) == 0
    assert frame["prediction"].dtype == np.int64
