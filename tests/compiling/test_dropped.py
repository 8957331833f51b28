"""What cannot be compiled exactly is dropped with a reason, and nothing is left of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fin_pyfunc.compiling.forms import backends_of, compile_estimator
from fin_pyfunc.model.backends.native import labels_of
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec, infer
from tests.authoring.estimators import (
    Momentum,
    duck,
    encoded_text,
    hist_of_categories,
    lightgbm,
    linear,
    of,
    piped,
    random_forest,
    sk,
    xgboost,
)
from tests.compiling.checks import assert_same, compiled, matrix
from tests.models import Fitted, bars, fit, labels, logistic, quotes, quotes_as_categories, small_forest

neighbours = sk("neighbors.KNeighborsClassifier", n_neighbors=3)

DROPPED: dict[str, tuple[Callable[[], Fitted], str]] = {
    "SVC with probabilities": (of(sk("svm.SVC", probability=True)), "float32"),
    "nearest neighbours": (of(neighbours), "rounded on the way (TopK)"),
    "an object of the user's own": (duck, "Momentum is no estimator of a library that can be compiled"),
    "hard votes": (
        of(lambda: sk("ensemble.VotingClassifier", estimators=[("a", linear()), ("b", neighbours())])()),
        "neither probabilities nor decision values",
    ),
    "text": (of(encoded_text, frame=quotes), "not a number"),
    "categories": (of(hist_of_categories, frame=quotes_as_categories), "category, not a number"),
    "what skl2onnx does not know": (of(sk("neighbors.NearestCentroid")), "cannot be converted to ONNX"),
    "mixed precision": (of(linear, frame=lambda: bars().astype({"spread": "float32"})), "mix float32"),
    "a boosted ensemble on top of another estimator": (
        of(lambda: sk("ensemble.GradientBoostingClassifier", n_estimators=3, init=linear())()),
        "start at another estimator's",
    ),
}


@pytest.mark.parametrize("case", DROPPED)
def test_what_cannot_be_compiled_says_why_and_leaves_nothing(case: str, tmp_path: Path) -> None:
    make, reason = DROPPED[case]
    made = compiled(make(), tmp_path)
    assert made.kept == []
    assert any(reason in clause for clause in made.compiled.dropped.values())
    assert made.compiled.dropped.keys() == set(backends_of(made.native.estimator, made.spec))
    assert list(tmp_path.iterdir()) == []


def test_categories_that_are_numbers_are_compiled(tmp_path: Path) -> None:
    frame = quotes()[["return_1", "hour"]]
    make = sk("ensemble.HistGradientBoostingClassifier", max_iter=4, categorical_features=[1])
    made = compiled(fit(make(), frame, labels(0, 1)), tmp_path)
    assert "trees" in made.kept, made.compiled.dropped
    assert_same(made, matrix(frame, made.spec))


@pytest.mark.parametrize(
    ("make", "kept"),
    [
        (of(sk("ensemble.RandomForestClassifier", n_estimators=10, random_state=0)), ["treelite", "trees"]),
        (of(random_forest), ["treelite", "trees"]),
        (of(lightgbm), ["trees"]),
        (of(sk("tree.DecisionTreeClassifier", max_depth=3, random_state=0)), ["trees"]),
        (of(sk("ensemble.GradientBoostingClassifier", n_estimators=5)), []),
        (of(piped(linear)), []),
    ],
)
def test_no_tolerance_keeps_what_is_equal_to_the_last_bit(
    make: Callable[[], Fitted], kept: list[str], tmp_path: Path
) -> None:
    model = make()
    made = compiled(model, tmp_path, tolerance=0)
    assert made.kept == kept, made.compiled.dropped
    assert all(form.error == 0 and form.band == 0 for form in made.compiled.forms)
    own = made.native.score(matrix(model.held_out, made.spec))
    for form in made.compiled.forms:
        got = made.open(form).run(matrix(model.held_out, made.spec))
        np.testing.assert_array_equal(got, own.probabilities)


def test_only_the_backends_asked_for_are_made(tmp_path: Path) -> None:
    made = compiled(small_forest(), tmp_path, backends=("treelite",))
    assert (made.kept, made.compiled.dropped) == (["treelite"], {})
    assert [path.name for path in tmp_path.iterdir()] == ["trees.treelite"]


def test_the_fastest_for_one_row_comes_first(tmp_path: Path) -> None:
    made = compiled(small_forest(), tmp_path)
    seconds = [form.seconds[1] for form in made.compiled.forms]
    assert seconds == sorted(seconds)
    for times in (made.compiled.native_seconds, *(form.seconds for form in made.compiled.forms)):
        assert times.keys() >= {1, 10, 100, 1000}
        assert min(times.values()) > 0


def test_the_estimator_is_not_modified(tmp_path: Path) -> None:
    import pickle

    model = of(lambda: piped(lambda: random_forest(n_jobs=-1))())()
    before = pickle.dumps(model.estimator)
    made_by = model.estimator.steps[-1][1]
    rows = model.train.to_numpy()
    spec = compiled(model, tmp_path).spec
    made_by.set_params(n_jobs=-1)  # NativeBackend of the test itself set it
    compile_estimator(model.estimator, spec, labels_of(model.estimator), tmp_path, rows)
    assert pickle.dumps(model.estimator) == before


def test_skl2onnx_is_left_as_it_was(tmp_path: Path) -> None:
    from skl2onnx import _supported_operators
    from skl2onnx.common import _registration

    def known() -> list[Any]:
        tables = (
            _supported_operators.sklearn_operator_name_map,
            _registration._converter_pool,
            _registration._shape_calculator_pool,
        )
        return [dict(table) for table in tables]

    before = known()
    compiled(of(piped(xgboost), 0, 1)(), tmp_path, backends=("onnx",))
    assert known() == before


def test_features_of_any_kind_are_taken_as_numbers(tmp_path: Path) -> None:
    model = logistic()
    spec = FeatureSpec(features=[Feature(name=name, kind="any", dtype="object") for name in model.train.columns])
    found = compile_estimator(model.estimator, spec, labels_of(model.estimator), tmp_path)
    assert [form.backend for form in found.forms] == ["program"], found.dropped


def test_an_estimator_that_raises_is_dropped(tmp_path: Path) -> None:
    class Broken(Momentum):
        pass

    Broken.__module__ = "sklearn.of_the_users_own"
    found = compile_estimator(Broken(), infer(logistic().train), [0, 1], tmp_path)
    assert found.forms == []
    assert found.dropped == dict.fromkeys(
        ("onnx", "treelite"), "the estimator refuses rows that it could be compared on"
    )
