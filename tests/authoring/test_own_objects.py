"""Objects of the user's own without `classes_`, and estimators whose methods were set on the instance."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fin_pyfunc.authoring.checks import checked_estimator
from tests.authoring.checks import refused, saved
from tests.authoring.estimators import hist, linear, random_forest
from tests.models import Fitted, bars, labels

OPTIONS: dict[str, Any] = {"serialization": "cloudpickle", "backend": "native"}


def up(X: Any) -> Any:
    return np.asarray(X)[:, 3] > 0


class Plain:
    def predict(self, X: Any) -> Any:
        return np.where(up(X), "up", "down")


class OfBaseEstimator(BaseEstimator):
    def predict(self, X: Any) -> Any:
        return np.where(up(X), "up", "down")


class WithFit(BaseEstimator):
    def fit(self, X: Any, y: Any) -> WithFit:
        self.model = 1
        return self

    def predict(self, X: Any) -> Any:
        return np.where(up(X), "up", "down")


class OfClassifierMixin(ClassifierMixin, WithFit):
    pass


class ASeries:
    def predict(self, X: pd.DataFrame) -> Any:
        return pd.Series(np.where(up(X), 1.0, -1.0), index=X.index)


class AList:
    def predict(self, X: pd.DataFrame) -> Any:
        return ["up" if value > 0 else "down" for value in X["return_1"]]


class SetOnTheInstance(Plain):
    def __init__(self) -> None:
        self.predict = lambda X: np.where(up(X), "down", "up")


class Codes:
    def predict(self, X: Any) -> Any:
        return up(X).astype(int)


class CodesOfColumns(Codes):
    def predict_proba(self, X: Any) -> Any:
        p = np.where(up(X), 0.9, 0.1)
        return np.column_stack([1 - p, p])


DUCKS: dict[str, tuple[Callable[[], Any], list[Any], list[Any]]] = {
    "plain": (Plain, ["down", "up"], ["down", "up"]),
    "a BaseEstimator": (OfBaseEstimator, ["down", "up"], ["down", "up"]),
    "a BaseEstimator that is fitted": (lambda: WithFit().fit(0, 0), ["down", "up"], ["down", "up"]),
    "a ClassifierMixin": (lambda: OfClassifierMixin().fit(0, 0), ["up", "down"], ["down", "up"]),
    "answers of a Series": (ASeries, [-1, 1], [-1.0, 1.0]),
    "answers in a list": (AList, ["down", "up"], ["down", "up"]),
    "a predict of the instance's": (SetOnTheInstance, ["down", "up"], ["up", "down"]),
    "labels that are codes": (Codes, [0, 1], [0, 1]),
    "codes of text": (Codes, ["down", "up"], ["down", "up"]),
    "codes of text and probabilities": (CodesOfColumns, ["down", "up"], ["down", "up"]),
    "codes of other integers": (CodesOfColumns, [-1, 7], [-1, 7]),
}  # fmt: skip


@pytest.mark.parametrize("case", DUCKS)
def test_an_object_without_classes_answers_the_classes_given(case: str, tmp_path: Path) -> None:
    make, classes, (low, high) = DUCKS[case]
    model = saved(Fitted(make(), bars(), bars()), tmp_path, classes=classes, **OPTIONS)
    expected = [high if is_up else low for is_up in up(bars())]
    assert model.predict(bars())["prediction"].tolist() == expected
    assert model.predict_one(bars().iloc[0].to_dict())["prediction"] == expected[0]


class Regressor(RegressorMixin, OfBaseEstimator):
    pass


REFUSED: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "positions that read as labels": (
        CodesOfColumns, {"classes": [1, 0]},
        r"predicts positions of columns, and 1, 0 read as other labels: give it classes_ = \[0, 1\]",
    ),
    "no classes": (OfBaseEstimator, {}, r"is not a classifier: .* what it predicts, with classes=\[…\]"),
    "a regressor": (Regressor, {"classes": ["down", "up"]}, "is not a classifier"),
    "an unfitted forest": (random_forest, {"classes": ["down", "up"]}, "is not fitted: call fit"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_an_object_that_is_no_classifier_by_its_classes_is_refused(case: str, tmp_path: Path) -> None:
    make, options, says = REFUSED[case]
    refused(make(), bars(), says, tmp_path, **OPTIONS, **options)


def fitted(estimator: Any) -> Any:
    return estimator.fit(bars(), labels(0, 1))


def with_method(estimator: Any, name: str, method: Any) -> Any:
    setattr(estimator, name, method)
    return estimator


def zeros(X: Any) -> Any:
    return np.zeros(len(X), dtype=int)


def piped_own() -> Any:
    pipeline = fitted(make_pipeline(StandardScaler(), random_forest()))
    with_method(pipeline[-1], "predict", zeros)
    return pipeline


OWN: dict[str, tuple[Callable[[], Any], str]] = {
    "predict": (lambda: with_method(fitted(random_forest()), "predict", zeros), "RandomForestClassifier has a predict"),
    "a bound method": (
        lambda: with_method(fitted(random_forest()), "predict", MethodType(lambda _, X: zeros(X), 1)),
        "RandomForestClassifier has a predict",
    ),
    "predict_proba": (
        lambda: with_method(fitted(linear()), "predict_proba", lambda X: np.full((len(X), 2), 0.5)),
        "LogisticRegression has a predict_proba",
    ),
    "in a pipeline": (piped_own, "RandomForestClassifier has a predict"),
    "transform": (
        lambda: make_pipeline(with_method(StandardScaler().fit(bars()), "transform", lambda X: X), fitted(linear())),
        "StandardScaler has a transform",
    ),
}


@pytest.mark.parametrize("serialization", ["skops", "cloudpickle"])
@pytest.mark.parametrize("case", OWN)
def test_a_method_that_was_set_on_an_instance_is_refused(case: str, serialization: str, tmp_path: Path) -> None:
    make, says = OWN[case]
    says += " that was set on the instance, .*: derive a class with this .*serialization='cloudpickle'"
    refused(make(), bars(), says, tmp_path, serialization=serialization)


class Zeros(random_forest().__class__):  # type: ignore[misc] # a class that is looked up
    """The way out of a predict that was set on the instance."""

    def predict(self, X: Any) -> Any:
        return zeros(X)


def test_a_derived_class_answers_with_its_own_predict(tmp_path: Path) -> None:
    model = saved(Fitted(fitted(Zeros(5, random_state=0)), bars(), bars()), tmp_path, serialization="cloudpickle")
    assert set(model.predict(bars())["prediction"]) == {0}


def test_what_scikit_learn_itself_leaves_on_an_instance_is_no_method_of_its_own() -> None:
    estimator = fitted(hist().set_params(early_stopping=True, scoring="roc_auc"))
    assert "_raw_predict" in vars(estimator), "scikit-learn no longer leaves it there"
    checked_estimator(estimator)
