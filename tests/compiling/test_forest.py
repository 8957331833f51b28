"""Forests, by their trees and by the treelite forms of older models: to the last bit what scikit-learn computes."""

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

import fin_pyfunc
from fin_pyfunc.model.backends.forest import float32_below
from fin_pyfunc.model.errors import BackendError, NotLoggableError
from tests.authoring.estimators import of, random_forest, sk
from tests.compiling.checks import Made, compiled, matrix
from tests.models import Fitted, bars, bars_with_gaps, fit, labels, logistic, small_forest

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
        made = compiled(model, Path(folder), backends=("treelite", "trees"))
        older = made.open(made.form("treelite"), "forest").run
        run = made.open(made.form("trees")).run
    own = model.estimator.predict_proba(pd.DataFrame(rows, columns=model.train.columns))
    np.testing.assert_array_equal(run(rows), own)
    np.testing.assert_array_equal(older(rows), own)
    for i in range(0, len(rows), 41):
        np.testing.assert_array_equal(run(rows[i : i + 1]), own[i : i + 1])
    np.testing.assert_array_equal(run(np.asfortranarray(rows)), own)
    assert run(rows[:0]).shape == (0, own.shape[1])


def of_trees(made: Made) -> Any:
    return made.open(made.form("trees"))


def test_missing_values_go_where_an_older_form_sends_them(tmp_path: Path) -> None:
    made = compiled(small_forest(), tmp_path)
    rows = matrix(small_forest().train, made.spec).copy()
    rows[np.random.default_rng(0).random(rows.shape) < 0.3] = np.nan
    form = made.form("treelite")
    np.testing.assert_array_equal(made.open(form, "forest").run(rows), made.open(form).run(rows))


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


def backends(path: Path, backend: str | None = None) -> list[str]:
    return [b.name for b in fin_pyfunc.load_model(str(path), backend=backend).dispatch.backends]


def test_a_forest_is_served_by_its_trees_alone_and_by_others_by_name(tmp_path: Path) -> None:
    model = fit(random_forest(), bars(), labels(-1, 0, 1))
    fin_pyfunc.save_model(model.estimator, model.train, tmp_path / "model", input_example=None)
    assert backends(tmp_path / "model") == backends(tmp_path / "model", "cpu") == ["trees", "native"]
    for name in ("trees", "forest", "treelite", "native"):
        assert backends(tmp_path / "model", name) == [name]
    with pytest.raises(BackendError, match="backend 'onnx' is not available for this model"):
        fin_pyfunc.load_model(str(tmp_path / "model"), backend="onnx")


def test_a_form_that_is_asked_for_is_made_in_place_of_trees(tmp_path: Path) -> None:
    model = small_forest()
    fin_pyfunc.save_model(model.estimator, model.train, tmp_path / "model", input_example=None, backend="onnx")
    assert backends(tmp_path / "model") == ["onnx"]
    with pytest.raises(NotLoggableError, match="backend='trees' cannot be had for this estimator"):
        fin_pyfunc.save_model(logistic().estimator, logistic().train, tmp_path / "refused", backend="trees")


def test_a_forest_with_gaps_is_compiled(tmp_path: Path) -> None:
    model = of(random_forest, frame=bars_with_gaps)()
    fin_pyfunc.save_model(model.estimator, model.train, tmp_path / "model", input_example=None)
    assert backends(tmp_path / "model") == ["trees", "native"]


def test_where_the_module_is_not_built_numpy_answers_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_forest()
    fin_pyfunc.save_model(model.estimator, model.train, tmp_path / "model", input_example=None)
    expected = fin_pyfunc.load_model(str(tmp_path / "model")).decide_frame(model.held_out)
    monkeypatch.setitem(sys.modules, "fin_pyfunc.model.backends._trees", None)
    monkeypatch.delattr("fin_pyfunc.model.backends._trees", raising=False)
    loaded = fin_pyfunc.load_model(str(tmp_path / "model"))
    assert loaded.dispatch.backends[0].name == "trees"
    assert loaded.decide_frame(model.held_out).predictions == expected.predictions


def test_a_threshold_becomes_the_float32_that_parts_the_same_numbers() -> None:
    rng = np.random.default_rng(0)
    cuts = np.concatenate([rng.normal(size=1000), rng.normal(size=100).astype(np.float32), [0.0, 1e300, -1e300, 1e-50]])
    with np.errstate(over="ignore"):
        below = float32_below(cuts)
        above = np.nextafter(below, np.float32(np.inf))
    assert (below.astype(np.float64) <= cuts).all()
    assert (above.astype(np.float64) > cuts).all()
