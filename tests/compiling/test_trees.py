"""Every tree ensemble through our own walk: the library's own numbers to the last bit, in C and in NumPy."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import msgspec
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
from fin_pyfunc.model.errors import ArtifactError
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


def test_a_file_is_read_as_it_was_written() -> None:
    _, X, trees = fitted("XGBoost", 3)
    again = read(written(trees), 3)
    np.testing.assert_array_equal(runner(again)(X), runner(trees)(X))


# --- what no library writes


def changed(trees: Trees, name: str, at: int, value: Any) -> Trees:
    array = getattr(trees, name).copy()
    array[at] = value
    return trees._replace(**{name: array})


def shortened(name: str) -> Callable[[Trees], Trees]:
    return lambda trees: trees._replace(**{name: getattr(trees, name)[:-1]})


def branch_of(trees: Trees) -> int:
    return int(np.flatnonzero(trees.left >= 0)[1])


#: What is wrong, of which estimator, and how it comes about.
FORGED: dict[str, tuple[str, Callable[[Trees], Trees]]] = {
    "a child beyond the nodes": ("", lambda t: changed(t, "left", branch_of(t), len(t.left))),
    "a child that is the root": ("", lambda t: changed(t, "right", branch_of(t), 0)),
    "a node below itself": ("", lambda t: changed(t, "left", branch_of(t), branch_of(t))),
    "a feature beyond the row": ("", lambda t: changed(t, "feature", branch_of(t), WIDTH)),
    "a negative feature": ("", lambda t: changed(t, "feature", branch_of(t), -1)),
    "a root beyond the nodes": ("", lambda t: changed(t, "roots", 0, len(t.left))),
    "a score that there is not": ("", lambda t: changed(t, "target", 0, 3)),
    "a negative score": ("", lambda t: changed(t, "target", 0, -1)),
    "a threshold that is none": ("", lambda t: changed(t, "threshold", branch_of(t), np.nan)),
    "scores of fewer classes": ("", shortened("base")),
    "no features": ("", lambda t: t._replace(n_features=0)),
    "too few targets": ("", shortened("target")),
    "a leaf beyond the values": ("", lambda t: changed(t, "item", leaf_of(t), len(t.values))),
    "a leaf before the values": ("", lambda t: changed(t, "item", leaf_of(t), -1)),
    **{f"too few items of {name}": ("", shortened(name))
       for name in ("left", "right", "feature", "threshold", "flags", "item", "values")},
    "a divisor of 0": ("", lambda t: t._replace(arithmetic=msgspec.structs.replace(t.arithmetic, divisor=0.0))),
    "flags that there are not": ("", lambda t: changed(t, "flags", branch_of(t), 16)),
    "categories that there are not": (", categories", lambda t: changed(t, "item", split_of(t), 10**6)),
    "categories below 0": (", categories", lambda t: changed(t, "threshold", split_of(t), -9.0)),
    "categories before the first": (", categories", lambda t: changed(t, "item", split_of(t), -1)),
    "categories beyond their bits": (", categories", shortened("categories")),
    "categories that go back": (", categories", lambda t: changed(t, "category_starts", 1, len(t.categories) + 1)),
    "no categories": (", categories", lambda t: t._replace(category_starts=t.category_starts[:0])),
    "terms beyond the leaves": (", linear leaves", shortened("linear_starts")),
    "terms that go back": (", linear leaves", lambda t: changed(t, "linear_starts", 1, len(t.linear_slope) + 1)),
    "terms without a slope": (", linear leaves", shortened("linear_slope")),
    "terms of a feature beyond the row": (", linear leaves", lambda t: changed(t, "linear_feature", 0, WIDTH)),
    "terms of a negative feature": (", linear leaves", lambda t: changed(t, "linear_feature", 0, -1)),
    "leaves without what stands for them": (", linear leaves", shortened("linear_missing")),
    "zeros of fewer features": (", linear leaves", shortened("zeros")),
    "codes beyond the features": ("hist", shortened("code_starts")),
    "codes that go back": ("hist", lambda t: changed(t, "code_starts", 1, len(t.codes) + 1)),
    "too few codes": ("hist", shortened("codes")),
}  # fmt: skip
#: What leads the module itself nowhere.
HARMLESS = {
    "a threshold that is none", "scores of fewer classes", "a node below itself", "a divisor of 0",
    "flags that there are not", "categories below 0",
}  # fmt: skip


def leaf_of(trees: Trees) -> int:
    return int(np.flatnonzero(trees.left < 0)[1])


def split_of(trees: Trees) -> int:
    return int(np.flatnonzero(trees.flags & CATEGORICAL)[0])


def forged(what: str) -> Trees:
    of, forge = FORGED[what]
    name = "hist gradient boosting, categories" if of == "hist" else f"LightGBM{of}"
    return forge(fitted(name, 3)[2])


@pytest.mark.parametrize("what", FORGED)
def test_a_file_whose_numbers_do_not_fit_together_is_refused(what: str) -> None:
    with pytest.raises(ArtifactError, match="which no library writes"):
        read(written(forged(what)), 3)


@given(
    name=st.sampled_from(["hist gradient boosting, categories", "LightGBM, linear leaves", "XGBoost", "forest"]),
    cut=st.floats(0, 0.999),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_a_damaged_file_is_refused_or_answers_numbers(name: str, cut: float, flips: list[tuple[float, int]]) -> None:
    _, X, trees = fitted(name, 3)
    content = bytearray(written(trees))
    for where, value in flips:
        content[int(where * len(content))] = value
    if cut > 0.8:
        content = content[: int(cut * len(content))]
    try:
        damaged = read(bytes(content), 3)
    except ArtifactError:
        return
    if damaged.n_features == WIDTH:
        with np.errstate(all="ignore"):
            assert runner(damaged)(X).shape == (len(X), 3)
            tree_walk.sums(damaged)(X, np.empty((len(X), len(damaged.base))))


def made_by_the_module(trees: Trees) -> Any:
    from fin_pyfunc.model.backends._trees import Trees as Made

    arrays = tuple(trees.arrays().values())
    return Made(trees.n_features, trees.width, trees.arithmetic.rounds, False, np.nan, 1.0, arrays)


@pytest.mark.parametrize("what", sorted(FORGED.keys() - HARMLESS))
def test_the_module_itself_refuses_what_would_reach_beyond_its_arrays(what: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        made_by_the_module(forged(what))


@pytest.mark.parametrize("what", sorted(HARMLESS))
def test_the_module_ends_with_whatever_else_it_is_given(what: str) -> None:
    _, X, _ = fitted("LightGBM", 3)
    trees = forged(what)
    try:
        made = made_by_the_module(trees)
    except ValueError:
        return
    made.score(X, np.empty((len(X), len(trees.base))))


@pytest.mark.parametrize(
    ("X", "out", "error"),
    [
        (np.zeros((1, 3)), np.zeros((1, 3)), ValueError),
        (np.zeros((2, 6)), np.zeros((1, 3)), ValueError),
        (np.zeros((1, 6)), np.zeros((1, 2)), ValueError),
        (np.zeros((1, 6), dtype=np.float32), np.zeros((1, 3)), TypeError),
        (np.zeros((1, 6), dtype=">f8"), np.zeros((1, 3)), TypeError),
        (np.zeros(6), np.zeros((1, 3)), TypeError),
        (np.zeros((6, 12)).T[:, ::2], np.zeros((12, 3)), (ValueError, BufferError)),
        (np.zeros((1, 6)), np.broadcast_to(np.zeros(3), (1, 3)), (ValueError, BufferError)),
        ([[0.0] * 6], np.zeros((1, 3)), TypeError),
    ],
)
def test_rows_and_answers_of_another_shape_or_kind_are_refused(X: Any, out: Any, error: Any) -> None:
    made = made_by_the_module(fitted("LightGBM", 3)[2])
    with pytest.raises(error):
        made.score(X, out)


def test_a_head_of_another_kind_is_refused() -> None:
    _, _, trees = fitted("LightGBM", 2)
    for content in (b"", b"\x80", msgspec.msgpack.encode({"n_features": 6}), written(trees) + b"\x00"):
        with pytest.raises(ArtifactError, match="cut off or damaged"):
            read(content, 2)
    with pytest.raises(ArtifactError, match="another number of classes"):
        read(written(trees), 3)
