"""The class is the one `predict` gives, also where the backend works it out from probabilities: rows full of ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
from sklearn.naive_bayes import ComplementNB, GaussianNB, MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from xgboost import XGBClassifier

from fin_pyfunc.model.backends.native import NativeBackend, single_threaded
from fin_pyfunc.model.features import infer

NAMES = ["a", "b", "c"]


def neighbours(algorithm: str, weights: str) -> KNeighborsClassifier:
    return KNeighborsClassifier(4, algorithm=algorithm, weights=weights)


ESTIMATORS: dict[str, Any] = {
    "forest": RandomForestClassifier(4, max_depth=2, random_state=0),
    "extra trees": ExtraTreesClassifier(4, max_depth=2, random_state=0),
    "tree": DecisionTreeClassifier(max_depth=2, random_state=0),
    "extra tree": ExtraTreeClassifier(max_depth=2, random_state=0),
    "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2),
    **{f"{a}, {w}": neighbours(a, w) for a in ("brute", "kd_tree", "ball_tree") for w in ("uniform", "distance")},
    "scaled, brute": make_pipeline(StandardScaler(), neighbours("brute", "uniform")),
    "scaled, kd_tree": make_pipeline(StandardScaler(), neighbours("kd_tree", "uniform")),
    "ada boost": AdaBoostClassifier(n_estimators=3, random_state=0),
    "bagging": BaggingClassifier(LogisticRegression(), n_estimators=2, random_state=0),
    "gradient boosting": GradientBoostingClassifier(n_estimators=2, max_depth=1),
    "hist gradient boosting": HistGradientBoostingClassifier(max_iter=2, min_samples_leaf=2),
    "linear discriminant": LinearDiscriminantAnalysis(),
    "logistic": LogisticRegression(),
    "one against the rest": SGDClassifier(loss="log_loss", max_iter=5, tol=None, random_state=0),
    "clipped": SGDClassifier(loss="modified_huber", max_iter=5, tol=None, random_state=0),
    "naive Bayes": GaussianNB(),
    "complement": ComplementNB(),
    "multinomial": MultinomialNB(),
    "network": MLPClassifier((2,), max_iter=2, random_state=0),
    "voting": VotingClassifier([("a", LogisticRegression()), ("b", GaussianNB())], voting="soft"),
    "stacking": StackingClassifier([("a", GaussianNB())], cv=2),
    "search": GridSearchCV(LogisticRegression(), {"C": [1.0]}, cv=2),
    "search of a pipeline": GridSearchCV(
        make_pipeline(StandardScaler(), GaussianNB()), {"gaussiannb__var_smoothing": [1e-9]}, cv=2
    ),
    "XGBoost": XGBClassifier(n_estimators=2, max_depth=1),
    "LightGBM": LGBMClassifier(n_estimators=2, min_child_samples=2, verbose=-1),
}


def grid(n_rows: int, seed: int) -> pd.DataFrame:
    """Few values, so that distances and votes are often equal."""
    return pd.DataFrame(np.random.default_rng(seed).integers(0, 3, (n_rows, 3)).astype(float), columns=NAMES)


@pytest.mark.parametrize("has_names", [True, False], ids=["named", "arrays"])
@pytest.mark.parametrize("name", ESTIMATORS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_class_is_that_of_predict(name: str, has_names: bool, seed: int) -> None:
    X = grid(40, seed)
    y = np.resize([0, 1, 2] if name == "XGBoost" else [-1, 0, 1], len(X))
    estimator = clone(ESTIMATORS[name]).fit(X if has_names else X.to_numpy(), y)
    backend = NativeBackend(estimator, infer(X))
    asked = grid(30, seed + 1)
    scores = backend.score(asked.to_numpy())
    expected = estimator.predict(asked if has_names else asked.to_numpy())
    assert [scores.classes[i] for i in scores.index] == expected.tolist()


@pytest.mark.parametrize("name", ["logistic", "gradient boosting", "naive Bayes", "XGBoost"])
def test_two_classes_whose_scores_are_equal_or_nearly_are_decided_by_predict(name: str) -> None:
    X = pd.DataFrame(np.repeat([[0.0, 1.0, 2.0], [1.0, 0.0, 1.0]], 20, axis=0), columns=NAMES)
    estimator = clone(ESTIMATORS[name]).fit(X, np.resize([0, 1], len(X)))  # nothing to tell them by
    scores = NativeBackend(estimator, infer(X)).score(X.to_numpy())
    assert scores.probabilities is not None
    assert np.ptp(scores.probabilities) < 1e-2
    assert [scores.classes[i] for i in scores.index] == estimator.predict(X).tolist()


def test_predict_is_not_asked_where_the_class_is_clear() -> None:
    X = grid(200, 0)
    estimator = LogisticRegression().fit(X, (X["a"] > 1).astype(int))
    backend = NativeBackend(estimator, infer(X))
    estimator.predict = lambda X: pytest.fail("it was asked for what is known already")
    assert len(backend.score(X.to_numpy()).index) == 200


THRESHOLDS: dict[str, Any] = {
    "fixed": FixedThresholdClassifier(DecisionTreeClassifier(max_depth=2), threshold=0.25),
    "auto": FixedThresholdClassifier(DecisionTreeClassifier(max_depth=2)),
    "of the first class": FixedThresholdClassifier(GaussianNB(), threshold=0.7, pos_label="a"),
    "in float32": FixedThresholdClassifier(XGBClassifier(n_estimators=2), threshold=0.5),
    "in a pipeline": make_pipeline(StandardScaler(), FixedThresholdClassifier(LogisticRegression(), threshold=0.1)),
    "tuned": TunedThresholdClassifierCV(DecisionTreeClassifier(max_depth=2, random_state=0), cv=2),
    "searched": GridSearchCV(FixedThresholdClassifier(GaussianNB()), {"threshold": [0.2, 0.4]}, cv=2),
    "of decision values": FixedThresholdClassifier(LogisticRegression(), response_method="decision_function"),
}


@pytest.mark.parametrize("name", THRESHOLDS)
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_class_by_a_threshold_of_its_own_is_that_of_predict(name: str, seed: int) -> None:
    X = grid(40, seed)
    labels = np.array(["a", "b"]) if name == "of the first class" else np.array([0, 1])
    estimator = clone(THRESHOLDS[name]).fit(
        X, labels[np.random.default_rng(seed).permutation(np.resize([0, 1], len(X)))]
    )
    asked = grid(30, seed + 1)
    backend = NativeBackend(estimator, infer(X))
    scores, expected = backend.score(asked.to_numpy()), estimator.predict(asked).tolist()
    assert [scores.classes[i] for i in scores.index] == expected
    if name != "of decision values":
        estimator.predict = lambda X: pytest.fail("it was asked for what is known already")
        assert [backend.score(asked.to_numpy()).classes[i] for i in scores.index] == expected


@pytest.mark.parametrize("options", [{"eval_metric": ["logloss", "auc"]}, {"monotone_constraints": {"a": 1}}])
def test_an_xgboost_estimator_keeps_its_parameters(options: dict[str, Any]) -> None:
    X = grid(60, 0)
    estimator = XGBClassifier(n_estimators=2, n_jobs=2, **options).fit(X, (X["a"] > 1).astype(int))
    own = estimator.predict_proba(X)
    with single_threaded(estimator):
        assert estimator.n_jobs == 1
        np.testing.assert_array_equal(estimator.predict_proba(X), own)
    assert estimator.n_jobs == 2
    np.testing.assert_array_equal(estimator.predict_proba(X), own)
    np.testing.assert_array_equal(NativeBackend(estimator, infer(X)).score(X.to_numpy()).probabilities, own)
    np.testing.assert_array_equal(estimator.predict_proba(X), own)


def test_nearest_neighbours_are_looked_for_once() -> None:
    X = grid(40, 0)
    estimator = neighbours("brute", "uniform").fit(X, np.resize([-1, 0, 1], len(X)))
    backend = NativeBackend(estimator, infer(X))
    estimator.predict = lambda X: pytest.fail("it was asked for what is known already")
    assert len(backend.score(X.to_numpy()).index) == 40
