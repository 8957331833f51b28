"""Boosted trees through our own module: the library's own numbers to the last bit, and no file that reaches beyond."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lightgbm import LGBMClassifier
from sklearn.ensemble import GradientBoostingClassifier, HistGradientBoostingClassifier
from xgboost import XGBClassifier, XGBRFClassifier

from fin_pyfunc.compiling.boosted_form import boosted_trees
from fin_pyfunc.model.backends.boosted import is_here, runner
from fin_pyfunc.model.boosted_file import BoostedTrees, read, written
from fin_pyfunc.model.errors import ArtifactError

pytestmark = pytest.mark.skipif(not is_here(), reason="the module in C was not built")
Array = np.ndarray[Any, Any]
N, WIDTH = 600, 6
#: What LightGBM takes for 0 and what it does not.
ZEROS = (0.0, -0.0, 1e-36, -1e-36, float(np.float32(1e-35)), 1e-34)


def lgbm(**options: Any) -> Callable[[], Any]:
    return lambda: LGBMClassifier(n_estimators=8, num_leaves=9, min_child_samples=5, verbose=-1, **options)


def xgb(**options: Any) -> Callable[[], Any]:
    return lambda: XGBClassifier(n_estimators=8, max_depth=4, **options)


#: Estimator, numbers of classes, and whether it takes missing values.
LIBRARIES: dict[str, tuple[Callable[[], Any], tuple[int, ...], bool]] = {
    "gradient boosting": (lambda: GradientBoostingClassifier(n_estimators=6, random_state=0), (2, 3, 9), False),
    "gradient boosting, exponential": (
        lambda: GradientBoostingClassifier(n_estimators=6, loss="exponential", random_state=0), (2,), False,
    ),
    "hist gradient boosting": (lambda: HistGradientBoostingClassifier(max_iter=8, min_samples_leaf=5), (2, 3), True),
    "LightGBM": (lgbm(), (2, 3, 9), True),
    "LightGBM, dart": (lgbm(boosting_type="dart"), (2, 3), True),
    "LightGBM, steep": (lgbm(objective="binary", sigmoid=2.5), (2,), True),
    "LightGBM, one against the rest": (lgbm(objective="multiclassova"), (3,), True),
    "LightGBM, nothing is missing": (lgbm(use_missing=False), (2, 3), True),
    "XGBoost": (xgb(), (2, 3, 9), True),
    "XGBoost, exact": (xgb(tree_method="exact"), (2, 3), True),
    "XGBoost, from a prior": (xgb(base_score=0.3), (2,), True),
    "XGBoost, several trees a round": (xgb(num_parallel_tree=3, subsample=0.7), (2, 3), True),
    "XGBoost, a forest": (lambda: XGBRFClassifier(n_estimators=8, max_depth=4), (2, 3), True),
}  # fmt: skip
CASES = [(name, k) for name, (_, counts, _) in LIBRARIES.items() for k in counts]


@cache
def fitted(name: str, k: int) -> tuple[Any, Array, BoostedTrees]:
    """An estimator, the rows that it was fitted on, and its trees."""
    make, _, takes_gaps = LIBRARIES[name]
    rng = np.random.default_rng(k)
    X = rng.normal(size=(N, WIDTH)).round(3)
    score = X[:, 0] + X[:, 1] * X[:, 2] + rng.normal(size=N)
    if takes_gaps:
        X[rng.random(X.shape) < 0.1] = np.nan
        X[rng.random(X.shape) < 0.1] = 0.0
    y = np.digitize(score, np.quantile(score, np.linspace(0, 1, k + 1)[1:-1]))
    estimator = make().fit(X, y)
    return estimator, X, boosted_trees(estimator, WIDTH, single=False)


def on_every_threshold(X: Array, trees: BoostedTrees) -> Array:
    """A row for each threshold, and a step of float64, of float32 and 1e-9 to either side."""
    branch = trees.left >= 0
    feature, at = trees.feature[branch], trees.threshold[branch]
    single = at.astype(np.float32)
    values = [at, *(np.nextafter(at, to) for to in (np.inf, -np.inf)), at + 1e-9, at - 1e-9, single.astype(float)]
    values += [np.nextafter(single, np.float32(to)).astype(float) for to in (np.inf, -np.inf)]
    rows = np.resize(X, (len(at) * len(values), X.shape[1]))
    rows[np.arange(len(rows)), np.tile(feature, len(values))] = np.concatenate(values)
    return rows


@pytest.mark.parametrize(("name", "k"), CASES)
def test_probabilities_are_the_librarys_own_to_the_last_bit(name: str, k: int) -> None:
    estimator, X, trees = fitted(name, k)
    odd = X.copy()
    odd[::3] = np.random.default_rng(1).choice(ZEROS, odd[::3].shape)
    odd[1::3] *= 1e6
    rows = np.vstack([X, odd, on_every_threshold(X, trees)])
    run, own = runner(trees), np.asarray(estimator.predict_proba(rows), dtype=np.float64)
    scores = run(rows)
    np.testing.assert_array_equal(scores, own)
    np.testing.assert_array_equal(np.vstack([run(rows[i : i + 1]) for i in range(0, len(rows), 17)]), scores[::17])


@given(seed=st.integers(0, 2**32 - 1), n_rows=st.integers(0, 700), k=st.sampled_from([2, 3]))
@settings(max_examples=15, deadline=None)
def test_any_number_of_rows_in_any_layout_of_memory(seed: int, n_rows: int, k: int) -> None:
    estimator, X, trees = fitted("LightGBM", k)
    rows = np.asfortranarray(np.random.default_rng(seed).choice(X, n_rows))
    scores = runner(trees)(rows)
    assert scores.shape == (n_rows, k)
    if n_rows:
        np.testing.assert_array_equal(scores, estimator.predict_proba(rows))


def test_a_file_is_read_as_it_was_written() -> None:
    _, X, trees = fitted("XGBoost", 3)
    again = read(written(trees), 3)
    np.testing.assert_array_equal(runner(again)(X), runner(trees)(X))


# --- what no library writes


def changed(trees: BoostedTrees, name: str, at: int, value: Any) -> BoostedTrees:
    array = getattr(trees, name).copy()
    array[at] = value
    return trees._replace(**{name: array})


def shortened(name: str) -> Callable[[BoostedTrees], BoostedTrees]:
    return lambda trees: trees._replace(**{name: getattr(trees, name)[:-1]})


def branch_of(trees: BoostedTrees) -> int:
    return int(np.flatnonzero(trees.left >= 0)[1])


FORGED: dict[str, Callable[[BoostedTrees], BoostedTrees]] = {
    "a child beyond the nodes": lambda t: changed(t, "left", branch_of(t), len(t.left)),
    "a child that is the root": lambda t: changed(t, "right", branch_of(t), 0),
    "a node below itself": lambda t: changed(t, "left", branch_of(t), branch_of(t)),
    "a feature beyond the row": lambda t: changed(t, "feature", branch_of(t), WIDTH),
    "a negative feature": lambda t: changed(t, "feature", branch_of(t), -1),
    "a root beyond the nodes": lambda t: changed(t, "roots", 0, len(t.left)),
    "a score that there is not": lambda t: changed(t, "target", 0, 3),
    "a negative score": lambda t: changed(t, "target", 0, -1),
    "a threshold that is none": lambda t: changed(t, "threshold", branch_of(t), np.nan),
    "scores of fewer classes": shortened("base"),
    "no features": lambda t: t._replace(n_features=0),
    **{f"too few items of {name}": shortened(name) for name in ("left", "right", "feature", "threshold", "value")},
    "too few targets": shortened("target"),
}  # fmt: skip


@pytest.mark.parametrize("what", FORGED)
def test_a_file_whose_numbers_do_not_fit_together_is_refused(what: str) -> None:
    _, _, trees = fitted("LightGBM", 3)
    with pytest.raises(ArtifactError, match="which no library writes"):
        read(written(FORGED[what](trees)), 3)


@given(cut=st.floats(0, 0.999), flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8))
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_refused_or_answers_numbers(cut: float, flips: list[tuple[float, int]]) -> None:
    _, X, trees = fitted("hist gradient boosting", 3)
    content = bytearray(written(trees))
    for where, value in flips:
        content[int(where * len(content))] = value
    if cut > 0.5:
        content = content[: int(cut * len(content))]
    try:
        damaged = read(bytes(content), 3)
    except ArtifactError:
        return
    if damaged.n_features == WIDTH:
        with np.errstate(all="ignore"):
            assert runner(damaged)(X).shape == (len(X), 3)


def test_the_module_itself_refuses_what_would_reach_beyond_its_arrays() -> None:
    from fin_pyfunc.model.backends._boosted import Boosted

    _, X, trees = fitted("LightGBM", 3)
    for what, forge in FORGED.items():
        forged = forge(trees)
        if what in ("a threshold that is none", "scores of fewer classes", "a node below itself"):
            continue  # which reaches nowhere
        with pytest.raises((ValueError, TypeError)):
            Boosted(forged.n_features, False, False, *(np.ascontiguousarray(array) for array in forged[2:]))
    made = Boosted(trees.n_features, False, False, *trees[2:])
    for rows, out in ((X[:, :-1].copy(), np.empty((len(X), 3))), (X, np.empty((len(X), 2))), (X, np.empty((1, 3)))):
        with pytest.raises(ValueError, match="rows must have 6 features"):
            made.score(rows, out)


def test_a_head_of_another_kind_is_refused(tmp_path: Path) -> None:
    _, _, trees = fitted("LightGBM", 2)
    for content in (b"", b"\x80", msgspec.msgpack.encode({"n_features": 6}), written(trees) + b"\x00"):
        with pytest.raises(ArtifactError, match="cut off or damaged"):
            read(content, 2)
    with pytest.raises(ArtifactError, match="another number of classes"):
        read(written(trees), 3)
