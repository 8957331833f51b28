"""What is logged answers exactly as the estimator does, whatever its family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import models
from tests.authoring.checks import as_rows, assert_same_answers, refused, saved
from tests.authoring.estimators import (
    Momentum,
    duck,
    encoded_text,
    hist,
    hist_of_categories,
    lightgbm,
    linear,
    of,
    piped,
    piped_through,
    random_forest,
    sk,
    stacking,
    support_vectors,
    voting,
    xgboost,
)
from tests.models import Fitted, bars, bars_with_gaps, fit, fit_array, labels, quotes, quotes_as_categories

FAMILIES: dict[str, Callable[[], Fitted]] = {
    "random forest": of(random_forest),
    "random forest, two classes": of(random_forest, 0, 1),
    "random forest on every core": of(lambda: random_forest(n_jobs=-1)),
    "random forest on a bare array": lambda: fit_array(random_forest(), labels(-1, 0, 1)),
    "random forest with gaps": of(random_forest, frame=bars_with_gaps),
    "random forest on float32": of(random_forest, frame=lambda: bars().astype("float32")),
    "extra trees, text labels": of(
        sk("ensemble.ExtraTreesClassifier", n_estimators=10, max_depth=4, random_state=0), "buy", "hold", "sell"
    ),
    "decision tree": of(sk("tree.DecisionTreeClassifier", max_depth=3, random_state=0)),
    "gradient boosting": of(sk("ensemble.GradientBoostingClassifier", n_estimators=8, random_state=0)),
    "gradient boosting, boolean labels": of(
        sk("ensemble.GradientBoostingClassifier", n_estimators=8, random_state=0), False, True
    ),
    "hist gradient boosting with gaps": of(hist, frame=bars_with_gaps),
    "hist gradient boosting of categories": of(hist_of_categories, frame=quotes_as_categories),
    "scaled logistic regression": of(piped(linear), 0, 1),
    "scaled logistic regression, float labels": of(piped(linear), -1.0, 0.0, 1.0),
    "logistic regression on a bare array": lambda: fit_array(linear(), labels("down", "up")),
    "encoded text": of(encoded_text, "down", "flat", "up", frame=quotes),
    "calibrated, sigmoid": of(sk("calibration.CalibratedClassifierCV", method="sigmoid", cv=2)),
    "calibrated forest, isotonic": of(
        lambda: sk("calibration.CalibratedClassifierCV", estimator=random_forest(), method="isotonic", cv=2)()
    ),
    "nearest neighbours": of(sk("neighbors.KNeighborsClassifier", n_neighbors=3)),
    "nearest neighbours, ball tree": of(sk("neighbors.KNeighborsClassifier", algorithm="ball_tree")),
    "naive Bayes": of(sk("naive_bayes.GaussianNB")),
    "discriminant analysis": of(sk("discriminant_analysis.LinearDiscriminantAnalysis")),
    "Gaussian process": of(sk("gaussian_process.GaussianProcessClassifier"), 0, 1),
    "best features": of(lambda: piped_through(sk("feature_selection.SelectKBest", k=2)(), linear())),
    "imputed": of(lambda: piped_through(sk("impute.SimpleImputer")(), linear()), frame=bars_with_gaps),
    "neural network": of(
        piped(sk("neural_network.MLPClassifier", hidden_layer_sizes=(4,), max_iter=20, random_state=0))
    ),
    "linear support vectors": of(piped(sk("svm.LinearSVC", random_state=0))),
    "ridge": of(sk("linear_model.RidgeClassifier")),
    "hard vote": of(
        lambda: sk("ensemble.VotingClassifier", estimators=[("a", linear()), ("b", random_forest())])(), "a", "b"
    ),
    "soft vote": of(voting),
    "stacking": of(stacking),
    "AdaBoost": of(sk("ensemble.AdaBoostClassifier", n_estimators=8, random_state=0)),
    "bagging": of(lambda: sk("ensemble.BaggingClassifier", estimator=linear(), n_estimators=3, random_state=0)()),
    "grid search": of(
        lambda: sk("model_selection.GridSearchCV", estimator=random_forest(), param_grid={"max_depth": [2, 3]}, cv=2)()
    ),
    "LightGBM": of(lightgbm, "buy", "hold", "sell"),
    "LightGBM, two classes": of(lightgbm, 0, 1),
    "LightGBM of categories": of(lightgbm, frame=quotes_as_categories),
    "LightGBM on a bare array": lambda: fit_array(lightgbm(), labels(-1, 0, 1)),
    "XGBoost": of(xgboost, 0, 1, 2),
    "XGBoost, two classes, with gaps": of(xgboost, 0, 1, frame=bars_with_gaps),
    "XGBoost of categories": of(lambda: xgboost(enable_categorical=True), 0, 1, 2, frame=quotes_as_categories),
    "XGBoost on a bare array": lambda: fit_array(xgboost(), labels(0, 1)),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.filterwarnings("ignore")
def test_a_family_answers_as_its_estimator_does(family: str, tmp_path: Path) -> None:
    fitted = FAMILIES[family]()
    model = saved(fitted, tmp_path)
    assert model.manifest is not None
    assert model.manifest.serialization == "skops"
    assert_same_answers(model, fitted)
    example = model.manifest.example
    assert model.predict_one(example.features)["prediction"] == example.prediction


@pytest.mark.filterwarnings("ignore")
def test_support_vectors_answer_with_predict_which_may_differ_from_the_most_probable(tmp_path: Path) -> None:
    # four points a class: Platt's sigmoid, fitted on folds, then disagrees with the decision function
    X = pd.DataFrame({"x": [0.0, 0.1, 0.9, 1.0, 0.4, 0.6, 0.45, 0.55, 0.52, 0.48] * 2})
    y = np.array([0, 1, 0, 1, 1, 0, 1, 0, 1, 1] * 2)
    estimator = support_vectors().fit(X, y)
    predicted, probable = estimator.predict(X), estimator.predict_proba(X).argmax(axis=1)
    assert (predicted != estimator.classes_[probable]).any(), "the sample no longer shows the difference"
    assert_same_answers(saved(Fitted(estimator, X, X), tmp_path), Fitted(estimator, X, X))


def test_classes_rename_the_codes_that_xgboost_was_trained_on(tmp_path: Path) -> None:
    fitted = fit(xgboost(), bars(), labels(0, 1, 2))
    model = saved(fitted, tmp_path, classes=[-1, 0, 1])
    assert_same_answers(model, fitted, classes=[-1, 0, 1])
    assert list(model.predict_one(as_rows(fitted.held_out)[0])["probabilities"]) == ["-1", "0", "1"]


def test_an_object_of_the_users_own_is_logged_with_cloudpickle(tmp_path: Path) -> None:
    fitted = duck()
    model = saved(fitted, tmp_path, serialization="cloudpickle", classes=["down", "up"])
    assert_same_answers(model, fitted)


def test_the_users_own_n_jobs_are_left_as_they_were(tmp_path: Path) -> None:
    fitted = fit(voting(), bars(), labels(0, 1))
    forest = fitted.estimator.estimators_[0]
    model = saved(fitted, tmp_path)
    assert forest.n_jobs == -1
    assert fitted.estimator.n_jobs is None
    assert fitted.estimator.estimators[0][1].n_jobs == -1
    loaded: Any = next(backend for backend in model.dispatch.backends if backend.name == "native")
    assert loaded.load().estimator.estimators_[0].n_jobs == 1  # a thread pool costs more than a few rows


def test_columns_may_come_in_any_order_and_the_sample_too(tmp_path: Path) -> None:
    fitted = models.small_forest()
    shuffled = fitted._replace(train=fitted.train[list(reversed(fitted.train.columns))].assign(bar_id=1))
    model = saved(shuffled, tmp_path, identifiers=["bar_id"])
    assert_same_answers(model, fitted)
    pd.testing.assert_frame_equal(
        model.predict(fitted.held_out[list(reversed(fitted.held_out.columns))]), model.predict(fitted.held_out)
    )


def test_a_probability_beyond_one_by_rounding_is_taken_and_one_far_beyond_is_not(tmp_path: Path) -> None:
    fitted = duck()

    class Rounded(Momentum):
        excess = 1e-12

        def predict_proba(self, X: Any) -> Any:
            return np.tile([0.0, 1.0 + self.excess], (len(X), 1))

        def predict(self, X: Any) -> Any:
            return np.array(["up"] * len(X))

    options: dict[str, Any] = {"serialization": "cloudpickle", "classes": ["down", "up"]}
    model = saved(fitted._replace(estimator=Rounded()), tmp_path, **options)
    assert model.predict_one(as_rows(fitted.train)[0])["probability"] == 1.0
    Rounded.excess = 0.1
    refused(Rounded(), fitted.train, "not a number between 0 and 1", tmp_path / "b", **options)
