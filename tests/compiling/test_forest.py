"""Our own walk of a forest's trees: to the last bit what scikit-learn computes, and never beyond its arrays."""

from __future__ import annotations

import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import fin_pyfunc
from fin_pyfunc.model.backends import forest
from fin_pyfunc.model.backends.forest import float32_below
from fin_pyfunc.model.errors import BackendError, NotLoggableError
from tests.authoring.estimators import of, random_forest, sk
from tests.compiling.checks import Made, compiled, matrix
from tests.models import OF_FORESTS, Fitted, bars, bars_with_gaps, fit, labels, logistic, small_forest

pytestmark = pytest.mark.skipif(OF_FORESTS != "forest", reason="the module in C was not built: no compiler was found")

Array = np.ndarray[Any, Any]


@st.composite
def forests(draw: st.DrawFn) -> Fitted:
    """Forests of all shapes: few trees and many, stumps and full ones, pure leaves and mixed, weights, wide rows."""
    make = draw(st.sampled_from(["ensemble.RandomForestClassifier", "ensemble.ExtraTreesClassifier"]))
    options = {
        "n_estimators": draw(st.sampled_from([1, 2, 15, 16, 17, 40])),
        "max_depth": draw(st.sampled_from([1, 3, None])),
        "min_samples_leaf": draw(st.sampled_from([1, 5])),
        "class_weight": draw(st.sampled_from([None, "balanced"])),
        "random_state": 0,
    }
    k, n_features = draw(st.integers(2, 6)), draw(st.sampled_from([1, 2, 3, 8, 33]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = np.round(rng.normal(size=(120, n_features)), draw(st.sampled_from([0, 1, 9])))
    y = np.concatenate([np.arange(k), rng.integers(0, k, 120 - k)])
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(n_features)])
    return Fitted(sk(make, **options)().fit(frame, y), frame, frame)


def on_thresholds(model: Fitted) -> Array:
    """Rows with every split's threshold in them, rounded to float32, and the next numbers to either side."""
    parts = [part.tree_ for part in model.estimator.estimators_]
    cuts = np.concatenate([tree.threshold[tree.feature >= 0] for tree in parts] or [np.zeros(1)])
    cuts = np.concatenate([cuts, np.zeros(1)])  # a forest of leaves alone has none
    near = np.concatenate([cuts, np.nextafter(cuts, np.inf), np.nextafter(cuts, -np.inf)])
    single = near.astype(np.float32)
    near = np.concatenate([near, single, np.nextafter(single, np.float32(np.inf)), [3e38, -3e38, 1e-300, -0.0]])
    width = model.train.shape[1]
    return np.resize(np.random.default_rng(0).permutation(near).astype(np.float64), (len(near), width))


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(forests())
def test_every_row_has_the_forests_own_probabilities_to_the_last_bit(model: Fitted) -> None:
    rows = np.vstack([on_thresholds(model), model.train.to_numpy()])
    with tempfile.TemporaryDirectory() as folder:
        made = compiled(model, Path(folder), backends=("treelite",))
        run = made.open(made.form("treelite"), "forest").run
    own = model.estimator.predict_proba(pd.DataFrame(rows, columns=model.train.columns))
    np.testing.assert_array_equal(run(rows), own)
    for i in range(0, len(rows), 41):
        np.testing.assert_array_equal(run(rows[i : i + 1]), own[i : i + 1])
    np.testing.assert_array_equal(run(np.asfortranarray(rows)), own)
    assert run(rows[:0]).shape == (0, own.shape[1])


def of_trees(made: Made) -> Any:
    return made.open(made.form("treelite"), "forest")


def test_missing_values_go_where_the_form_sends_them(tmp_path: Path) -> None:
    made = compiled(small_forest(), tmp_path)
    rows = matrix(small_forest().train, made.spec).copy()
    rows[np.random.default_rng(0).random(rows.shape) < 0.3] = np.nan
    np.testing.assert_array_equal(of_trees(made).run(rows), made.open(made.form("treelite")).run(rows))


def test_threads_that_score_at_once_have_each_their_own_answers(tmp_path: Path) -> None:
    made = compiled(small_forest(), tmp_path)
    rows = np.tile(matrix(small_forest().train, made.spec), (12, 1))
    run = of_trees(made).run
    expected = run(rows)
    wrong: list[int] = []

    def ask(start: int) -> None:
        wrong.extend(i for i in range(start, start + 200) if not np.array_equal(run(rows[i:]), expected[i:]))

    threads = [threading.Thread(target=ask, args=(200 * i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize(
    "model",
    [
        of(sk("ensemble.GradientBoostingClassifier", n_estimators=5)),
        of(random_forest, frame=bars_with_gaps),  # which way gaps go treelite forgets
        logistic,
    ],
)
def test_what_is_no_forest_is_refused_by_its_name_and_served_otherwise(model: Any, tmp_path: Path) -> None:
    fitted = model()
    with pytest.raises(NotLoggableError, match="backend='forest' cannot be had for this estimator"):
        fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "refused", backend="forest")
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None)
    assert fin_pyfunc.load_model(str(tmp_path / "model")).dispatch.backends[0].name in ("boosted", "onnx")
    with pytest.raises(BackendError, match="backend 'forest' is not available for this model"):
        fin_pyfunc.load_model(str(tmp_path / "model"), backend="forest")


def test_a_forest_is_served_by_it_alone_and_by_others_by_name(tmp_path: Path) -> None:
    model = fit(random_forest(), bars(), labels(-1, 0, 1))
    fin_pyfunc.save_model(model.estimator, model.train, tmp_path / "model", input_example=None, backend="forest")
    assert [b.name for b in fin_pyfunc.load_model(str(tmp_path / "model")).dispatch.backends] == ["forest"]
    assert [b.name for b in fin_pyfunc.load_model(str(tmp_path / "model"), backend="cpu").dispatch.backends] == [
        "forest",
        "native",
    ]
    for name in ("onnx", "treelite", "native"):
        loaded = fin_pyfunc.load_model(str(tmp_path / "model"), backend=name)
        assert [b.name for b in loaded.dispatch.backends] == [name]


def test_where_it_was_not_built_forests_are_served_as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_forest()
    fin_pyfunc.save_model(model.estimator, model.train, tmp_path / "model", input_example=None)
    expected = fin_pyfunc.load_model(str(tmp_path / "model")).decide_frame(model.held_out)
    # a module that is there but was built for another machine does not import either
    monkeypatch.setitem(sys.modules, "fin_pyfunc.model.backends._forest", None)
    monkeypatch.delattr("fin_pyfunc.model.backends._forest")
    monkeypatch.setattr(forest, "find_spec", lambda _: object())
    loaded = fin_pyfunc.load_model(str(tmp_path / "model"))
    as_before = [["onnx", "native"], ["onnx", "treelite", "native"]]  # as they were measured when it was logged
    assert [b.name for b in loaded.dispatch.backends] in as_before
    monkeypatch.setattr(forest, "find_spec", lambda _: None)
    loaded = fin_pyfunc.load_model(str(tmp_path / "model"))
    assert [b.name for b in loaded.dispatch.backends] in as_before
    assert loaded.decide_frame(model.held_out).predictions == expected.predictions


def test_a_threshold_becomes_the_float32_that_parts_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    cuts = np.concatenate([rng.normal(size=1000), rng.normal(size=100).astype(np.float32), [0.0, 1e300, -1e300, 1e-50]])
    with np.errstate(over="ignore"):
        below = float32_below(cuts)
        above = np.nextafter(below, np.float32(np.inf))
    assert (below.astype(np.float64) <= cuts).all()
    assert (above.astype(np.float64) > cuts).all()


# --- the module itself, given anything


def made_of(
    n_features: int = 2,
    roots: Any = (0,),
    left: Any = (1, -1, -1),
    right: Any = (2, -1, -1),
    feature: Any = (1, 0, 0),
    row: Any = (0, 0, 1),
    n_values: int = 2,
) -> Any:
    from fin_pyfunc.model.backends._forest import Forest

    n = len(left)
    return Forest(
        n_features, np.array(roots, dtype=np.int64), *(np.array(a, dtype=np.int32) for a in (left, right, feature)),
        np.zeros(n, dtype=np.float32), np.zeros(n, dtype=bool), np.array(row, dtype=np.int32), np.eye(n_values),
    )  # fmt: skip


def scored(made: Any, X: Any, n_outputs: int = 2) -> list[list[float]]:
    out = np.full((len(X), n_outputs), np.nan)
    made.score(np.array(X, dtype=np.float64), out)
    answer: list[list[float]] = out.tolist()
    return answer


def test_a_row_goes_left_unless_its_feature_is_greater() -> None:
    rows = [[9.0, -1.0], [9.0, 0.0], [9.0, 1e-30], [9.0, 1e-60], [9.0, np.inf], [9.0, np.nan], [np.nan, -1.0]]
    left, right = [1.0, 0.0], [0.0, 1.0]
    assert scored(made_of(), rows) == [left, left, right, left, right, right, left]


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"left": (3, -1, -1)}, ValueError),
        ({"left": (0, -1, -1)}, ValueError),
        ({"right": (-1, -1, -1)}, ValueError),
        ({"right": (1, -1, -1)}, None),  # two ways to one leaf cost a node and lead nowhere else
        ({"left": (1, 0, -1)}, ValueError),
        ({"feature": (2, 0, 0)}, ValueError),
        ({"feature": (-1, 0, 0)}, ValueError),
        ({"row": (0, 0, 2)}, ValueError),
        ({"row": (0, -1, 0)}, ValueError),
        ({"roots": (0, 0)}, ValueError),
        ({"roots": (7,)}, ValueError),
        ({"roots": (-1,)}, ValueError),
        ({"roots": ()}, ValueError),
        ({"n_features": 0}, ValueError),
        ({"n_features": 2**31}, OverflowError),
        ({"right": (2, -1)}, ValueError),
        ({"left": (), "right": (), "feature": (), "row": ()}, ValueError),
    ],
)
def test_arrays_that_are_no_trees_are_refused(wrong: dict[str, Any], error: type[Exception] | None) -> None:
    if error is None:
        scored(made_of(**wrong), [[0.0, 1.0]])
        return
    with pytest.raises(error):
        made_of(**wrong)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.data())
def test_arrays_of_any_numbers_make_a_forest_that_ends_or_none(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 12))
    same = arrays.arrays(np.int32, n, elements=st.integers(-2, 12))
    left, right, feature, row = (data.draw(same) for _ in range(4))
    roots = data.draw(arrays.arrays(np.int64, st.integers(1, 4), elements=st.integers(-1, 12)))
    try:
        made = made_of(3, roots, left, right, feature, row, 4)
    except ValueError:
        return
    X = np.random.default_rng(0).normal(size=(300, 3))
    X[::3, 1] = np.nan
    sums = np.array(scored(made, X, 4))
    np.testing.assert_allclose(sums.sum(axis=1), 1)


@pytest.mark.parametrize(
    ("X", "out", "error"),
    [
        (np.zeros((1, 3)), np.zeros((1, 2)), ValueError),
        (np.zeros((2, 2)), np.zeros((1, 2)), ValueError),
        (np.zeros((1, 2)), np.zeros((1, 3)), ValueError),
        (np.zeros((1, 2), dtype=np.float32), np.zeros((1, 2)), TypeError),
        (np.zeros((1, 2), dtype=">f8"), np.zeros((1, 2)), TypeError),
        (np.zeros(2), np.zeros((1, 2)), TypeError),
        (np.zeros((2, 2)).T[:, ::2], np.zeros((2, 2)), (ValueError, BufferError)),
        (np.zeros((1, 2)), np.broadcast_to(np.zeros(2), (1, 2)), (ValueError, BufferError)),
        ([[0.0, 0.0]], np.zeros((1, 2)), TypeError),
    ],
)
def test_rows_and_answers_of_another_shape_or_kind_are_refused(X: Any, out: Any, error: Any) -> None:
    with pytest.raises(error):
        made_of().score(X, out)
