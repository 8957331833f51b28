"""Every tree ensemble through our own walk: the library's own numbers to the last bit, in C and in NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from sklearn.ensemble import (
    AdaBoostClassifier,
    BaggingClassifier,
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from xgboost import XGBClassifier, XGBRFClassifier

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.tree_form import decides_by_probability, is_known, trees_of
from fin_pyfunc.model.backends import tree_walk
from fin_pyfunc.model.backends.trees import runner
from fin_pyfunc.model.tree_file import CATEGORICAL, Trees, read, written

Array = np.ndarray[Any, Any]
N, WIDTH = 600, 6
#: What LightGBM takes for 0 and what it does not.
ZEROS = (0.0, -0.0, 1e-36, -1e-36, float(np.float32(1e-35)), 1e-34)
#: Numbers that are categories, and that are none, of columns 3 and 4.
ODD_CATEGORIES = (
    -1, -0.5, -0.0, 0.4, 0.5, 2.7, -2, 3.2, 39, 40, 41, 63, 64, 255, 256, 1e6, 2**24 - 1, 2**24, 2**31, -(2.0**31),
    1e10, np.nan,
)  # fmt: skip
CATEGORIES = [3, 4]


class Library(NamedTuple):
    """How an estimator is made, of how many classes it is tried, and whether of gaps and of categories."""

    make: Callable[[], Any]
    classes: tuple[int, ...] = (2, 3)
    gaps: bool = True
    categories: bool = False


def lgbm(*classes: int, categories: bool = False, **options: Any) -> Library:
    if categories:
        options |= {"categorical_feature": CATEGORIES, "min_data_per_group": 3, "cat_smooth": 1}
    options = {"n_estimators": 8, "num_leaves": 9, "min_child_samples": 5, "verbose": -1, **options}
    return Library(lambda: LGBMClassifier(**options), classes or (2, 3), categories=categories)


def xgb(*classes: int, categories: bool = False, **options: Any) -> Library:
    if categories:
        options |= {"enable_categorical": True, "feature_types": ["q"] * 3 + ["c"] * 2 + ["q"]}
    return Library(
        lambda: XGBClassifier(n_estimators=8, max_depth=4, **options), classes or (2, 3), categories=categories
    )


def hist(**options: Any) -> Callable[[], Any]:
    return lambda: HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=5, **options)


LIBRARIES: dict[str, Library] = {
    "forest": Library(lambda: RandomForestClassifier(30, random_state=0), (2, 3, 9)),
    "forest of mixed leaves": Library(lambda: RandomForestClassifier(17, min_samples_leaf=9, random_state=0)),
    "extra trees": Library(lambda: ExtraTreesClassifier(17, max_depth=5, random_state=0)),
    "tree": Library(lambda: DecisionTreeClassifier(max_depth=4, random_state=0)),
    "extra tree": Library(lambda: ExtraTreeClassifier(max_depth=4, random_state=0)),
    "bagging": Library(lambda: BaggingClassifier(n_estimators=7, max_features=0.5, random_state=0), (2, 3, 9)),
    "bagging of few rows": Library(lambda: BaggingClassifier(n_estimators=7, max_samples=5, random_state=0), (3, 9)),
    "ada boost": Library(
        lambda: AdaBoostClassifier(DecisionTreeClassifier(max_depth=2), n_estimators=9, random_state=0),
        (2, 3, 9),
        gaps=False,
    ),
    "gradient boosting": Library(
        lambda: GradientBoostingClassifier(n_estimators=6, random_state=0), (2, 3, 9), False
    ),
    "gradient boosting, exponential": Library(
        lambda: GradientBoostingClassifier(n_estimators=6, loss="exponential", random_state=0), (2,), False
    ),
    "hist gradient boosting": Library(hist(), (2, 3, 9)),
    "hist gradient boosting, categories": Library(hist(categorical_features=CATEGORIES), (2, 3, 9), categories=True),
    "hist gradient boosting, categories that were not binned": Library(
        hist(categorical_features=CATEGORIES, early_stopping=True, validation_fraction=0.6), categories=True
    ),
    "LightGBM": lgbm(2, 3, 9),
    "LightGBM, dart": lgbm(boosting_type="dart"),
    "LightGBM, steep": lgbm(2, objective="binary", sigmoid=2.5),
    "LightGBM, cross entropy": lgbm(2, objective="cross_entropy"),
    "LightGBM, one against the rest": lgbm(3, objective="multiclassova"),
    "LightGBM, nothing is missing": lgbm(use_missing=False),
    "LightGBM, zero is missing": lgbm(zero_as_missing=True),
    "LightGBM, categories": lgbm(2, 3, 9, categories=True),
    "LightGBM, categories, zero is missing": lgbm(categories=True, zero_as_missing=True),
    "LightGBM, a bit for each category": lgbm(categories=True, max_cat_to_onehot=100),
    "LightGBM, linear leaves": lgbm(linear_tree=True),
    "LightGBM, linear leaves, categories": lgbm(linear_tree=True, categories=True),
    "LightGBM, a forest": lgbm(boosting_type="rf", bagging_freq=1, bagging_fraction=0.5),
    "XGBoost": xgb(2, 3, 9),
    "XGBoost, exact": xgb(tree_method="exact"),
    "XGBoost, from a prior": xgb(base_score=0.3),
    "XGBoost, several trees a round": xgb(num_parallel_tree=3, subsample=0.7),
    "XGBoost, dart": xgb(2, 3, 9, booster="dart", rate_drop=0.5),
    "XGBoost, margins": xgb(3, objective="multi:softmax"),
    "XGBoost, zero is missing": xgb(missing=0.0)._replace(gaps=False),
    "XGBoost, categories": xgb(2, 3, 9, categories=True),
    "XGBoost, one category against the rest": xgb(categories=True, max_cat_to_onehot=100),
    "XGBoost, categories, dart": xgb(categories=True, booster="dart", rate_drop=0.5),
    "XGBoost, a forest": Library(lambda: XGBRFClassifier(n_estimators=8, max_depth=4)),
}  # fmt: skip
CASES = [(name, k) for name, library in LIBRARIES.items() for k in library.classes]


@cache
def fitted(name: str, k: int) -> tuple[Any, Array, Trees]:
    """An estimator, the rows that it was fitted on, and its trees."""
    library = LIBRARIES[name]
    rng = np.random.default_rng(k)
    X = rng.normal(size=(N, WIDTH)).round(3)
    score = X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=N)
    if library.categories:
        X[:, 3], X[:, 4] = rng.integers(0, 40, N), rng.integers(0, 3, N)
        score += 2 * np.sin(7 * X[:, 3]) + (X[:, 4] == 1)
    if library.gaps:
        X[rng.random(X.shape) < 0.1] = np.nan
    if library.gaps or "zero" in name:
        X[rng.random(X.shape) < 0.1] = 0.0
    y = np.digitize(score, np.quantile(score, np.linspace(0, 1, k + 1)[1:-1]))
    estimator = library.make().fit(X, y)
    return estimator, X, read(written(trees_of(estimator, WIDTH, single=False)), k)


def on_every_threshold(X: Array, trees: Trees) -> Array:
    """A row for each threshold, and a step of float64, of float32 and 1e-9 to either side."""
    branch = (trees.left >= 0) & ((trees.flags & CATEGORICAL) == 0)
    feature, at = trees.feature[branch], trees.threshold[branch]
    single = at.astype(np.float32)
    values = [at, *(np.nextafter(at, to) for to in (np.inf, -np.inf)), at + 1e-9, at - 1e-9, single.astype(float)]
    values += [np.nextafter(single, np.float32(to)).astype(float) for to in (np.inf, -np.inf)]
    rows = np.resize(X, (len(at) * len(values), X.shape[1]))
    rows[np.arange(len(rows)), np.tile(feature, len(values))] = np.concatenate(values)
    return rows


def hard_rows(name: str, k: int) -> Array:
    """Rows that tell our arithmetic from the library's, if anything does."""
    _, X, trees = fitted(name, k)
    rng = np.random.default_rng(1)
    odd, categories = X.copy(), X.copy()
    odd[::3] = rng.choice(ZEROS, odd[::3].shape)
    odd[1::3] *= 1e6
    categories[:, 3] = rng.choice(ODD_CATEGORIES, N)
    categories[::2, 4] = rng.choice(ODD_CATEGORIES, len(categories[::2]))
    rows = np.vstack([X, odd, categories, on_every_threshold(X, trees)])
    rows = rows if LIBRARIES[name].gaps else np.nan_to_num(rows)
    return rows[~np.isinf(rows.astype(np.float32)).any(axis=1)]  # scikit-learn's trees refuse them


@pytest.mark.parametrize(("name", "k"), CASES)
def test_probabilities_are_the_librarys_own_to_the_last_bit(name: str, k: int) -> None:
    estimator, _, trees = fitted(name, k)
    assert ((trees.flags & CATEGORICAL) > 0).any() == LIBRARIES[name].categories
    rows = hard_rows(name, k)
    run, own = runner(trees), np.asarray(estimator.predict_proba(rows), dtype=np.float64)
    scores = run(rows)
    np.testing.assert_array_equal(scores, own)
    if decides_by_probability(estimator):
        np.testing.assert_array_equal(estimator.classes_[scores.argmax(axis=1)], estimator.predict(rows))
    few = rows[:: len(rows) // 8]
    alone = np.vstack([estimator.predict_proba(few[i : i + 1]) for i in range(len(few))])
    np.testing.assert_array_equal(np.vstack([run(few[i : i + 1]) for i in range(len(few))]), alone)


@pytest.mark.parametrize(("name", "k"), CASES)
def test_numpy_computes_the_same_bits(name: str, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, _, trees = fitted(name, k)
    rows = hard_rows(name, k)[::5]
    expected = runner(trees)(rows)
    # as where the module was not built, or for another machine
    monkeypatch.setitem(sys.modules, "fin_pyfunc.model.backends._trees", None)
    monkeypatch.delattr("fin_pyfunc.model.backends._trees", raising=False)
    monkeypatch.setattr(tree_walk, "_WALKS", 10_000)
    run = runner(trees)
    np.testing.assert_array_equal(run(rows), expected)
    assert run(rows[:0]).shape == (0, k)


@given(seed=st.integers(0, 2**32 - 1), n_rows=st.integers(0, 700), k=st.sampled_from([2, 3]))
@settings(max_examples=15, deadline=None)
def test_any_number_of_rows_in_any_layout_of_memory(seed: int, n_rows: int, k: int) -> None:
    estimator, X, trees = fitted("LightGBM, categories", k)
    rows = np.asfortranarray(np.random.default_rng(seed).choice(X, n_rows))
    scores = runner(trees)(rows)
    assert scores.shape == (n_rows, k)
    if n_rows:
        np.testing.assert_array_equal(scores, estimator.predict_proba(rows))


@pytest.mark.parametrize("make", [lgbm(3, early_stopping_round=2).make, xgb(3, early_stopping_rounds=2).make])
def test_trees_beyond_the_best_iteration_are_left_out(make: Callable[[], Any]) -> None:
    _, X, _ = fitted("XGBoost", 3)
    y = np.random.default_rng(0).integers(0, 3, N)
    estimator = make().fit(X[:300], y[:300], eval_set=[(X[300:], y[300:])])
    np.testing.assert_array_equal(runner(trees_of(estimator, WIDTH, single=False))(X), estimator.predict_proba(X))


def test_codes_of_a_pandas_category_are_looked_up_as_lightgbm_and_xgboost_do() -> None:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 30, N)
    frame = pd.DataFrame({"x": rng.normal(size=N), "c": pd.Categorical.from_codes(codes, [f"c{i}" for i in range(30)])})
    y = (np.sin(codes) + rng.normal(size=N) > 0).astype(int)
    matrix = np.column_stack([frame["x"], codes.astype(float)])
    for estimator in (
        LGBMClassifier(n_estimators=9, min_data_per_group=5, cat_smooth=1, verbose=-1),
        XGBClassifier(n_estimators=9, enable_categorical=True),
    ):
        trees = trees_of(estimator.fit(frame, y), 2, single=False)
        assert (trees.flags & CATEGORICAL).any()
        np.testing.assert_array_equal(runner(trees)(matrix), estimator.predict_proba(frame))


def test_features_beyond_those_of_narrow_nodes_and_trees_of_one_leaf() -> None:
    X = np.random.default_rng(0).normal(size=(200, 3000))
    y = (X[:, 2900] > 0).astype(int)
    for estimator in (RandomForestClassifier(20, random_state=0), XGBClassifier(n_estimators=3)):
        trees = trees_of(estimator.fit(X, y), 3000, single=False)
        assert trees.feature.max() >= 2048
        np.testing.assert_array_equal(runner(trees)(X), estimator.predict_proba(X))
    for alone in (
        LGBMClassifier(n_estimators=2, min_child_samples=10**6, verbose=-1),
        XGBClassifier(n_estimators=2, gamma=1e9),
    ):
        few = X[:, :4]
        trees = trees_of(alone.fit(few, y), 4, single=False)
        assert (trees.left < 0).all()
        np.testing.assert_array_equal(runner(trees)(few), alone.predict_proba(few))


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: BaggingClassifier(LogisticRegression(), n_estimators=2), None),
        (lambda: LogisticRegression(), None),
        (lambda: AdaBoostClassifier(LogisticRegression(), n_estimators=2), "other estimators than trees"),
        (lambda: LGBMClassifier(n_estimators=2, verbose=-1, pred_early_stop=True), "leave trees out"),
        (lambda: XGBClassifier(booster="gblinear", n_estimators=2), "no trees"),
        (lambda: XGBClassifier(n_estimators=2, objective="binary:hinge"), "put together"),
        (lambda: GradientBoostingClassifier(n_estimators=2, init=LogisticRegression()), "start at another"),
    ],
)
def test_what_computes_in_another_way_is_refused(make: Callable[[], Any], reason: str | None) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3))
    estimator = make().fit(X, (X[:, 0] > 0).astype(int))
    assert is_known(estimator) == (reason is not None)
    with pytest.raises(NotCompilable, match=reason or "no tree ensemble|other estimators"):
        trees_of(estimator, 3, single=False)


def test_categories_that_are_text_come_as_their_places_among_those_of_the_encoder() -> None:
    frame = pd.DataFrame({"c": pd.Categorical(["b", "a"] * 50, categories=["b", "a"]), "x": np.arange(100.0)})
    estimator = HistGradientBoostingClassifier(max_iter=2).fit(frame, [0, 1] * 50)
    rows = np.column_stack([(frame["c"] == "b").astype(float), frame["x"]])  # the encoder sorts them
    np.testing.assert_array_equal(runner(trees_of(estimator, 2, single=False))(rows), estimator.predict_proba(frame))
