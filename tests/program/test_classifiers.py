"""Classifiers as programs: alone, and made of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.linear_model import LogisticRegression, Perceptron, RidgeClassifier, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier
from sklearn.svm import SVC, LinearSVC, NuSVC
from sklearn.tree import DecisionTreeClassifier
from xgboost import XGBClassifier

from fin_pyfunc.compiling.program.build import program_of
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.program.program import Program, read, written

Array = np.ndarray[Any, Any]
N, WIDTH = 160, 5
LABELS: dict[str, list[Any]] = {
    "two": ["down", "up"], "three": [-1, 0, 1], "nine": list("abcdefghi"), "codes": [0, 1, 2],
}  # fmt: skip
#: How far a score may be off, where that is not the last bits: NuSVC's are sums of large numbers.
NEAR = {"NuSVC": 1e-10}
Makes = Callable[[], Any]


def linear(**options: Any) -> Any:
    return LogisticRegression(max_iter=50, **options)


def scaled(last: Any) -> Any:
    return make_pipeline(StandardScaler(), last)


def forest() -> Any:
    return RandomForestClassifier(n_estimators=6, max_depth=4, random_state=0)


def tree() -> Any:
    return DecisionTreeClassifier(max_depth=3, random_state=0)


def hist() -> Any:
    return HistGradientBoostingClassifier(max_iter=3, max_leaf_nodes=5, min_samples_leaf=5)


def lightgbm() -> Any:
    return LGBMClassifier(n_estimators=4, num_leaves=5, min_child_samples=5, verbose=-1)


def svc() -> Any:
    return scaled(LinearSVC(max_iter=200))


def bagged() -> Any:
    return BaggingClassifier(svc(), n_estimators=2, random_state=0)


def members() -> list[tuple[str, Any]]:
    return [("linear", scaled(linear())), ("trees", hist()), ("bayes", GaussianNB())]


def soft() -> Any:
    return VotingClassifier(members()[:2], voting="soft")


def stacking(**options: Any) -> Any:
    return StackingClassifier(options.pop("of", members()), cv=2, **options)


ALONE: dict[str, tuple[Makes, tuple[str, ...]]] = {
    "logistic regression": (linear, ("two", "three", "nine")),
    "SGD": (lambda: scaled(SGDClassifier(loss="log_loss", random_state=0)), ("two", "three", "nine")),
    "SGD(modified_huber)": (lambda: scaled(SGDClassifier(loss="modified_huber", random_state=0)), ("two", "nine")),
    "linear discriminants": (LinearDiscriminantAnalysis, ("two", "three", "nine")),
    "quadratic discriminants": (lambda: QuadraticDiscriminantAnalysis(reg_param=0.1), ("two", "three", "nine")),
    "naive Bayes": (GaussianNB, ("two", "three", "nine")),
    "network": (lambda: MLPClassifier((6, 4), max_iter=20, random_state=0), ("two", "three", "nine")),
    "network(tanh)": (lambda: MLPClassifier((6,), activation="tanh", max_iter=20, random_state=0), ("two", "three")),
    "network(logistic)": (lambda: MLPClassifier((6,), activation="logistic", max_iter=20), ("two", "three")),
    "network(identity)": (lambda: MLPClassifier((6,), activation="identity", max_iter=20), ("two", "three")),
    "dummy": (DummyClassifier, ("two", "nine")),
    "dummy(most frequent)": (lambda: DummyClassifier(strategy="most_frequent"), ("two", "nine")),
    "dummy(constant)": (lambda: DummyClassifier(strategy="constant", constant="up"), ("two",)),
    "LinearSVC": (svc, ("two", "three", "nine")),
    "SVC": (SVC, ("two", "three", "nine")),
    "SVC breaking ties": (lambda: scaled(SVC(break_ties=True, gamma=0.3)), ("three", "nine")),
    "SVC(poly)": (lambda: scaled(SVC(kernel="poly", coef0=0.5)), ("two", "three")),
    "SVC(sigmoid)": (lambda: scaled(SVC(kernel="sigmoid", coef0=0.1)), ("two", "three")),
    "SVC(linear)": (lambda: scaled(SVC(kernel="linear", break_ties=True)), ("two", "three")),
    "NuSVC": (lambda: NuSVC(nu=0.1), ("two",)),
    "ridge": (RidgeClassifier, ("two", "three")),
    "perceptron": (Perceptron, ("two", "three")),
}
MADE_OF_OTHERS: dict[str, tuple[Makes, tuple[str, ...]]] = {
    "voting": (lambda: VotingClassifier(members(), voting="soft"), ("two", "three", "nine")),
    "voting by weight": (lambda: VotingClassifier(members(), voting="soft", weights=[1, 2, 0.3]), ("two", "three")),
    "voting(hard)": (lambda: VotingClassifier([*members(), ("svc", svc())]), ("two", "three", "nine")),
    "voting(hard) by weight": (lambda: VotingClassifier(members(), weights=[0.1, 0.2, 0.3]), ("two", "three")),
    "voting without one": (
        lambda: VotingClassifier([*members(), ("no", "drop")], voting="soft", weights=[1, 2, 3, 4]), ("three",)),
    "bagging": (lambda: BaggingClassifier(linear(), n_estimators=4, max_features=0.6, random_state=0), ("two", "nine")),
    "bagging of few rows": (
        lambda: BaggingClassifier(GaussianNB(), n_estimators=6, max_samples=12, random_state=0), ("three", "nine")),
    "bagging of decisions": (lambda: BaggingClassifier(svc(), n_estimators=5, random_state=0), ("two", "three")),
    "AdaBoost of linear ones": (lambda: AdaBoostClassifier(linear(), n_estimators=5, random_state=0), ("two", "nine")),
    "calibrated(sigmoid)": (lambda: CalibratedClassifierCV(svc(), cv=2), ("two", "three", "nine")),
    "calibrated(isotonic)": (
        lambda: CalibratedClassifierCV(lightgbm(), method="isotonic", cv=2), ("two", "three", "nine")),
    "calibrated(isotonic) of float32": (
        lambda: CalibratedClassifierCV(XGBClassifier(n_estimators=4), method="isotonic", cv=2), ("codes",)),
    "calibrated(isotonic) of decisions": (
        lambda: CalibratedClassifierCV(svc(), method="isotonic", cv=2), ("two", "three")),
    "calibrated(temperature)": (
        lambda: CalibratedClassifierCV(svc(), method="temperature", cv=2), ("two", "three")),
    "calibrated(temperature) of probabilities": (
        lambda: CalibratedClassifierCV(soft(), method="temperature", cv=2), ("two", "three")),
    "calibrated SVC": (lambda: CalibratedClassifierCV(SVC(), cv=2), ("two", "three")),
    "calibrated once": (lambda: CalibratedClassifierCV(linear(), cv=2, ensemble=False), ("two", "three")),
    "calibrated AdaBoost": (
        lambda: CalibratedClassifierCV(AdaBoostClassifier(linear(), n_estimators=3), cv=2), ("two", "three")),
    "calibrated bagging": (lambda: CalibratedClassifierCV(bagged(), cv=2), ("two", "three")),
    "voting of forests": (
        lambda: VotingClassifier([("a", forest()), ("b", tree()), ("c", hist())], voting="soft"), ("two", "nine")),
    "voting(hard) of forests": (
        lambda: VotingClassifier([("a", forest()), ("b", tree()), ("c", hist())]), ("two", "three")),
    "scaled forest": (lambda: scaled(forest()), ("two", "three")),
    "scaled bagging": (lambda: scaled(BaggingClassifier(n_estimators=4, max_features=0.7)), ("two", "three")),
    "scaled AdaBoost": (lambda: scaled(AdaBoostClassifier(n_estimators=5)), ("two", "three")),
    "AdaBoost of forests": (lambda: AdaBoostClassifier(forest(), n_estimators=3), ("two", "three")),
    "bagging of forests": (lambda: BaggingClassifier(forest(), n_estimators=3, max_samples=20), ("two", "nine")),
    "calibrated forest": (lambda: CalibratedClassifierCV(forest(), cv=2), ("two", "three")),
    "calibrated forest(isotonic)": (
        lambda: CalibratedClassifierCV(forest(), method="isotonic", cv=2), ("two", "three", "nine")),
    "calibrated forest(temperature)": (
        lambda: CalibratedClassifierCV(forest(), method="temperature", cv=2), ("two", "three")),
    "calibrated AdaBoost of trees": (
        lambda: CalibratedClassifierCV(AdaBoostClassifier(n_estimators=4), cv=2), ("two", "three")),
    "calibrated boosting": (lambda: CalibratedClassifierCV(hist(), method="isotonic", cv=2), ("two", "three")),
    "one against the rest, forests": (lambda: OneVsRestClassifier(forest()), ("two", "three")),
    "one against one, forests": (lambda: OneVsOneClassifier(forest()), ("two", "three")),
    "stacking of forests": (lambda: stacking(of=[("a", forest()), ("b", linear())]), ("two", "three")),
    "stacking below a forest": (
        lambda: stacking(of=members()[:2], final_estimator=forest(), passthrough=True), ("two", "three")),
    "self training of a forest": (lambda: SelfTrainingClassifier(forest()), ("codes",)),
    "one against the rest": (lambda: OneVsRestClassifier(linear()), ("two", "three", "nine")),
    "one against the rest, trees": (lambda: OneVsRestClassifier(lightgbm()), ("two", "three")),
    "one against the rest, decisions": (lambda: OneVsRestClassifier(svc()), ("two", "three", "nine")),
    "one against one": (lambda: OneVsOneClassifier(linear()), ("two", "three", "nine")),
    "one against one, probabilities": (lambda: OneVsOneClassifier(GaussianNB()), ("two", "three")),
    "stacking": (stacking, ("two", "three", "nine")),
    "stacking, passthrough": (lambda: stacking(passthrough=True), ("two", "three")),
    "stacking of predictions": (lambda: stacking(stack_method="predict"), ("two", "three")),
    "stacking of decisions": (lambda: stacking(of=[("svc", svc()), ("trees", lightgbm())]), ("two", "three")),
    "stacking below trees": (
        lambda: stacking(of=members()[:2], final_estimator=hist(), passthrough=True),
        ("two", "three")),
    "stacking below decisions": (lambda: stacking(final_estimator=LinearSVC()), ("two", "three")),
    "search": (lambda: GridSearchCV(scaled(linear()), {"logisticregression__C": [0.1, 1]}, cv=2), ("two", "three")),
    "self training": (lambda: SelfTrainingClassifier(linear()), ("codes",)),
    "Pipeline in Pipelines": (lambda: scaled(VotingClassifier(members(), voting="soft")), ("three",)),
    "stacking of votes": (
        lambda: stacking(of=[("votes", VotingClassifier(members(), voting="soft")), ("bag", bagged())]),
        ("two", "three")),
}  # fmt: skip
CASES = [(name, of) for name, (_, labels) in (ALONE | MADE_OF_OTHERS).items() for of in labels]


@cache
def rows_and_labels(of: str) -> tuple[pd.DataFrame, Array]:
    rng = np.random.default_rng(len(of))
    X = pd.DataFrame(rng.normal(size=(N, WIDTH)) * [1, 3, 0.1, 10, 1], columns=list("abcde"))
    score = X["a"] + X["b"] * X["c"] + rng.normal(size=N)
    k = len(LABELS[of])
    return X, np.array(LABELS[of])[np.digitize(score, np.quantile(score, np.linspace(0, 1, k + 1)[1:-1]))]


@cache
def fitted(name: str, of: str) -> tuple[Any, Program]:
    X, y = rows_and_labels(of)
    estimator = clone((ALONE | MADE_OF_OTHERS)[name][0]()).fit(X, y)
    return estimator, read(written(program_of(estimator, infer(X))), len(LABELS[of]))


def own_scores(estimator: Any, X: pd.DataFrame) -> Array:
    """What an estimator answers, as `Form.output` has it."""
    if hasattr(estimator, "predict_proba"):
        return np.asarray(estimator.predict_proba(X), dtype=np.float64)
    if not hasattr(estimator, "decision_function"):
        return (estimator.predict(X)[:, None] == estimator.classes_).astype(np.float64)
    d = estimator.decision_function(X)
    return np.column_stack([-d, d]) if d.ndim == 1 else d


def odd_rows(X: pd.DataFrame) -> pd.DataFrame:
    """Rows mixed, rounded, alike, and far out."""
    rng = np.random.default_rng(1)
    values = X.to_numpy()
    mixed = np.column_stack([rng.permutation(column) for column in values.T])
    far = np.where(
        rng.random(values.shape) < 0.2, rng.choice([0.0, 1e3, -1e3, 1e9, -1e15, 1e-300], values.shape), mixed
    )
    return pd.DataFrame(np.vstack([values, mixed, np.round(mixed), far, np.zeros((1, WIDTH))]), columns=X.columns)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "of"), CASES)
def test_a_program_answers_as_its_classifier(name: str, of: str) -> None:
    estimator, program = fitted(name, of)
    X = odd_rows(rows_and_labels(of)[0])
    own, found = own_scores(estimator, X), program(X.to_numpy())
    known = ~np.isnan(found).any(axis=1)
    assert known[: 2 * N].mean() > (0.7 if name == "SVC" and of == "nine" else 0.97)  # some are left to the estimator
    size = np.maximum(1, np.abs(own[known]))
    np.testing.assert_array_less(np.abs(found[known] - own[known]) / size, NEAR.get(name, 1e-12))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "of"), CASES)
def test_a_row_is_answered_alone_as_among_others(name: str, of: str) -> None:
    _, program = fitted(name, of)
    rows = odd_rows(rows_and_labels(of)[0]).to_numpy()[::17]
    alone, together = np.vstack([program(rows[i : i + 1]) for i in range(len(rows))]), program(rows)
    known = ~np.isnan(alone + together).any(axis=1)
    size = np.maximum(1, np.abs(together[known]))
    np.testing.assert_array_less(np.abs(alone[known] - together[known]) / size, NEAR.get(name, 1e-12))
