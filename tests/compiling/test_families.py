"""Every family of estimators has the forms it can have, and they answer as the estimator does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.authoring.estimators import (
    hist,
    lightgbm,
    linear,
    of,
    piped,
    piped_through,
    random_forest,
    sk,
    stacking,
    voting,
    xgboost,
)
from tests.compiling.checks import assert_same, compiled, odd_rows
from tests.models import Fitted, bars, bars_with_gaps, fit_array, labels, quotes

ONNX, PROGRAM, TREES, BOTH = ["onnx"], ["program"], ["trees"], ["treelite", "trees"]
boosting = sk("ensemble.GradientBoostingClassifier", n_estimators=8, random_state=0)
pure_forest = sk("ensemble.RandomForestClassifier", n_estimators=15, random_state=0)


def numbers() -> pd.DataFrame:
    """Numbers, integers and booleans."""
    return quotes().drop(columns="venue")


def singles() -> pd.DataFrame:
    return bars().astype("float32")


def voting_of(*members: Callable[[], Any], **options: Any) -> Callable[[], Any]:
    named = [(str(i), member) for i, member in enumerate(members)]
    return lambda: sk("ensemble.VotingClassifier", estimators=[(n, m()) for n, m in named], voting="soft", **options)()


FAMILIES: dict[str, tuple[Callable[[], Fitted], list[str]]] = {
    "forest of pure leaves": (of(pure_forest), BOTH),
    "forest of pure leaves, two classes": (of(pure_forest, "down", "up"), BOTH),
    "forest": (of(random_forest), BOTH),
    "forest, two classes": (of(random_forest, False, True), BOTH),
    "forest with class weights": (of(lambda: random_forest(class_weight="balanced")), BOTH),
    "forest of numbers, integers and booleans": (of(random_forest, frame=numbers), BOTH),
    "forest on float32": (of(random_forest, frame=singles), BOTH),
    "forest on a bare array": (lambda: fit_array(random_forest(), labels(-1, 0, 1)), BOTH),
    "forest with gaps": (of(random_forest, frame=bars_with_gaps), TREES),  # treelite forgets which way gaps go
    "extra trees, text": (
        of(sk("ensemble.ExtraTreesClassifier", n_estimators=10, random_state=0), "buy", "hold", "sell"),
        BOTH,
    ),
    "one tree": (of(sk("tree.DecisionTreeClassifier", max_depth=4, random_state=0)), TREES),
    "one tree, two classes": (of(sk("tree.DecisionTreeClassifier", max_depth=4, random_state=0), 0, 1), TREES),
    "gradient boosting": (of(boosting), BOTH),
    "gradient boosting, two classes": (of(boosting, "down", "up"), BOTH),
    "gradient boosting, exponential": (
        of(sk("ensemble.GradientBoostingClassifier", n_estimators=8, loss="exponential", random_state=0), 0, 1),
        TREES,  # treelite forgets that its score counts twice
    ),
    "gradient boosting from zero": (
        of(sk("ensemble.GradientBoostingClassifier", n_estimators=8, init="zero", random_state=0)),
        BOTH,
    ),
    "hist gradient boosting": (of(hist, frame=bars_with_gaps), BOTH),
    "hist gradient boosting, two classes": (of(hist, 0, 1), BOTH),
    "ada boost": (of(sk("ensemble.AdaBoostClassifier", n_estimators=20, random_state=0)), TREES),
    "ada boost, two classes": (of(sk("ensemble.AdaBoostClassifier", n_estimators=20, random_state=0), 0, 1), TREES),
    "lightgbm": (of(lightgbm, frame=bars_with_gaps), BOTH),
    "lightgbm, two classes": (of(lightgbm, "down", "up"), BOTH),
    "lightgbm, one against the rest": (of(lambda: lightgbm(objective="multiclassova")), BOTH),
    "lightgbm, zero is missing": (of(lambda: lightgbm(zero_as_missing=True), frame=bars_with_gaps), TREES),
    "xgboost": (of(xgboost, 0, 1, 2, frame=bars_with_gaps), BOTH),
    "xgboost, two classes": (of(xgboost, 0, 1), BOTH),
    "ada boost of linear ones": (of(lambda: sk("ensemble.AdaBoostClassifier", estimator=linear())()), PROGRAM),
    "hard votes": (
        of(lambda: sk("ensemble.VotingClassifier", estimators=[("a", linear()), ("b", lightgbm()), ("c", hist())])()),
        PROGRAM,
    ),
    "calibrated boosting": (
        of(lambda: sk("calibration.CalibratedClassifierCV", estimator=hist(), method="isotonic", cv=2)()),
        PROGRAM,
    ),
    "logistic regression": (of(linear), PROGRAM),
    "logistic regression, two classes": (of(linear, "down", "up"), PROGRAM),
    "linear discriminants": (of(sk("discriminant_analysis.LinearDiscriminantAnalysis")), PROGRAM),
    "quadratic discriminants": (of(sk("discriminant_analysis.QuadraticDiscriminantAnalysis", reg_param=0.1)), ONNX),
    "naive bayes": (of(sk("naive_bayes.GaussianNB")), ONNX),
    "scaled network": (of(piped(sk("neural_network.MLPClassifier", max_iter=30, random_state=0))), PROGRAM),
    "scaled logistic regression": (of(piped(linear)), PROGRAM),
    "scaled forest": (of(piped(random_forest)), PROGRAM),
    "scaled gradient boosting": (of(piped(boosting), 0, 1), PROGRAM),
    "scaled lightgbm": (of(piped(lightgbm)), PROGRAM),
    "scaled xgboost": (of(piped(xgboost), 0, 1, 2), PROGRAM),
    "scaled decision values": (of(piped(sk("svm.LinearSVC", random_state=0))), PROGRAM),
    "scaled decision values, two classes": (of(piped(sk("svm.LinearSVC", random_state=0)), "down", "up"), PROGRAM),
    "ridge": (of(sk("linear_model.RidgeClassifier"), 0, 1), PROGRAM),
    "stochastic descent": (of(piped(sk("linear_model.SGDClassifier", loss="log_loss", random_state=0))), PROGRAM),
    "imputed forest": (
        of(lambda: piped_through(sk("impute.SimpleImputer")(), random_forest()), frame=bars_with_gaps),
        PROGRAM,
    ),
    "principal components": (of(lambda: piped_through(sk("decomposition.PCA", n_components=3)(), linear())), PROGRAM),
    "voting": (of(voting), PROGRAM),
    "voting of boosted and linear": (of(voting_of(boosting, lightgbm, linear)), PROGRAM),
    "stacking": (of(stacking), PROGRAM),
    "bagging": (of(sk("ensemble.BaggingClassifier", random_state=0)), TREES),
    "calibrated forest": (
        of(lambda: sk("calibration.CalibratedClassifierCV", estimator=random_forest(), cv=2)()),
        PROGRAM,
    ),
    "one against the rest": (of(lambda: sk("multiclass.OneVsRestClassifier", estimator=linear())()), PROGRAM),
    "grid search": (
        of(lambda: sk("model_selection.GridSearchCV", estimator=random_forest(), param_grid={}, cv=2)()),
        PROGRAM,
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_forms_answer_as_the_estimator_does(family: str, tmp_path: Path) -> None:
    make, expected = FAMILIES[family]
    model = make()
    made = compiled(model, tmp_path)
    assert made.kept == expected, made.compiled.dropped
    assert all(form.error == 0 for form in made.compiled.forms if form.backend == "trees")
    assert_same(made, odd_rows(made, model.train))
    assert_same(made, odd_rows(made, model.held_out, seed=1)[:1])


@pytest.mark.parametrize(
    "family",
    ["forest", "hist gradient boosting", "lightgbm", "xgboost", "scaled logistic regression", "scaled forest"],
)
def test_without_a_sample_rows_come_from_what_the_estimator_knows(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family][0]()
    made = compiled(model, tmp_path, sample=False)
    assert made.kept, made.compiled.dropped
    assert_same(made, odd_rows(made, model.held_out))


@pytest.mark.parametrize("family", [name for name, (_, kept) in FAMILIES.items() if kept == BOTH])
def test_graphs_of_trees_alone_answer_as_the_estimator_does(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family][0]()
    made = compiled(model, tmp_path, backends=ONNX)
    assert made.kept == ONNX, made.compiled.dropped
    assert_same(made, odd_rows(made, model.train))


def test_where_every_leaf_is_pure_no_row_is_ever_asked_again(tmp_path: Path) -> None:
    made = compiled(FAMILIES["forest of pure leaves"][0](), tmp_path)
    assert [(made.form(name).error, made.form(name).band) for name in BOTH] == [(0, 0), (0, 0)]


def test_a_row_within_the_band_is_left_to_the_estimator(tmp_path: Path) -> None:
    model = FAMILIES["gradient boosting, two classes"][0]()
    made = compiled(model, tmp_path)
    form = made.form("trees")
    assert 0 < form.band < 1e-6
    assert form.error == 0
    assert made.open(form).score(np.zeros((1, 5))).probabilities is not None
