"""A compiled form answers as its estimator does on every row, or asks it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fin_pyfunc
from fin_pyfunc.model.backends.compiled import CHUNK_ROWS
from fin_pyfunc.model.backends.native import LazyNative
from fin_pyfunc.model.errors import FeatureError, ScoringError
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.loader import from_estimator
from tests import models
from tests.cli.commands import run


def estimator_of(model: fin_pyfunc.FinPyfuncModel) -> LazyNative:
    lazy = model.dispatch.backends[-1]
    assert isinstance(lazy, LazyNative)
    return lazy


@pytest.fixture(scope="module")
def votes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, fin_pyfunc.FinPyfuncModel]:
    """A forest of fully grown trees on three rounded features: ties between classes, and probabilities of just 0.6 and
    0.8, are common.
    """
    from sklearn.ensemble import RandomForestClassifier

    random = np.random.default_rng(3)
    X = pd.DataFrame(random.normal(size=(400, 3)).round(1), columns=["a", "b", "c"])
    forest = RandomForestClassifier(20, random_state=0).fit(X, random.choice([-1, 0, 1], 400))
    path = tmp_path_factory.mktemp("votes") / "model"
    fin_pyfunc.save_model(forest, X, path, input_example=None)
    return forest, fin_pyfunc.load_model(str(path))


def test_a_forest_answers_to_the_last_bit_alone_and_in_any_batch(votes: tuple[Any, fin_pyfunc.FinPyfuncModel]) -> None:
    forest, model = votes
    rows = pd.DataFrame(np.random.default_rng(4).normal(size=(3000, 3)).round(1), columns=["a", "b", "c"])
    expected, p = forest.predict(rows), forest.predict_proba(rows)
    assert np.isclose(np.sort(p)[:, -1], np.sort(p)[:, -2]).sum() > 50  # there are ties
    together = model.decide_frame(rows)
    assert together.backend == models.OF_FORESTS
    np.testing.assert_array_equal(together.predictions, expected)
    np.testing.assert_array_equal(together.scores.probabilities, p)
    for i in range(0, 3000, 17):
        one = model.decide(rows.iloc[i : i + 1].to_dict("records"))  # type: ignore[arg-type]
        np.testing.assert_array_equal(one.scores.probabilities, p[i : i + 1])
        assert one.predictions == [expected[i]]
    assert together.confidences == [("high" if q >= 0.8 else "medium" if q >= 0.6 else "low") for q in p.max(axis=1)]
    assert not estimator_of(model).is_loaded


def test_more_rows_than_are_scored_at_a_time_come_back_whole(votes: tuple[Any, fin_pyfunc.FinPyfuncModel]) -> None:
    forest, model = votes
    rows = pd.DataFrame(np.random.default_rng(5).normal(size=(CHUNK_ROWS + 7, 3)).round(1), columns=["a", "b", "c"])
    compiled = model.dispatch.backends[0].score(rows.to_numpy())
    np.testing.assert_array_equal(compiled.probabilities, forest.predict_proba(rows))  # type: ignore[arg-type]


@pytest.mark.parametrize("at", [0.5, 0.6, 0.8])
def test_a_row_that_is_too_close_to_call_is_asked_of_the_estimator(at: float, tmp_path: Path) -> None:
    fitted = models.logistic()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None)
    model = fin_pyfunc.load_model(str(tmp_path / "model"))
    weights, base = fitted.estimator.coef_[0], fitted.estimator.intercept_[0]
    x = (np.log(at / (1 - at)) - base) / weights[1]
    close = {"return_1": 0.0, "order_flow_imbalance": float(x)}
    far = {"return_1": 0.0, "order_flow_imbalance": float(x) + 0.3}
    model.decide([far])
    assert not estimator_of(model).is_loaded
    assert model.decide_now(model.table([close])) is None  # an event loop is not to wait for it
    both = model.decide([close, far])
    assert estimator_of(model).is_loaded
    frame = pd.DataFrame([close, far])
    assert both.predictions == fitted.estimator.predict(frame).tolist()
    own = fitted.estimator.predict_proba(frame)
    np.testing.assert_array_equal(np.asarray(both.scores.probabilities)[0], own[0])
    assert both.confidences == model.decide_frame(frame).confidences


@settings(max_examples=50, deadline=None)
@given(rows=st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=1, max_size=5))
def test_any_number_gets_the_estimators_own_answer_or_error(
    rows: list[tuple[float, float]], linear: tuple[Any, fin_pyfunc.FinPyfuncModel]
) -> None:
    estimator, model = linear
    frame = pd.DataFrame(rows, columns=["return_1", "order_flow_imbalance"])
    with np.errstate(all="ignore"):
        try:
            ours = model.decide_frame(frame)
        except ScoringError:
            with pytest.raises(ScoringError):
                estimator_of(model).score(frame.to_numpy())
            return
        own = estimator.predict_proba(frame)
        np.testing.assert_allclose(ours.scores.probabilities, own, rtol=0, atol=1e-6)
        assert ours.predictions == estimator.predict(frame).tolist()


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, fin_pyfunc.FinPyfuncModel]:
    fitted = models.logistic()
    path = tmp_path_factory.mktemp("linear") / "model"
    fin_pyfunc.save_model(fitted.estimator, fitted.train, path, input_example=None)
    return fitted.estimator, fin_pyfunc.load_model(str(path))


def test_a_number_that_the_trees_refuse_is_refused_by_name(votes: tuple[Any, fin_pyfunc.FinPyfuncModel]) -> None:
    with pytest.raises(FeatureError, match="feature 'b' is infinite or too large for float32"):
        votes[1].predict_one({"a": 0.0, "b": 1e39, "c": 0.0})


def test_a_compiled_model_is_served_without_importing_scikit_learn(tmp_path: Path) -> None:
    fitted = models.small_forest()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None)
    row = fitted.held_out.iloc[0].to_dict()
    code = (
        "import sys; from pathlib import Path; from fin_pyfunc.model.classifier import Classifier\n"
        f"m = Classifier(); m.open(Path({str(tmp_path)!r}, 'model', 'artifacts', 'fin_pyfunc'))\n"
        f"print(m.predict_one({row!r})['prediction'])\n"
        "print([name for name in ('sklearn', 'mlflow', 'skops', 'skl2onnx') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [str(fitted.estimator.predict(fitted.held_out[:1])[0]), "[]"]


def test_a_plain_mlflow_model_is_compiled_after_it_is_loaded(tmp_path: Path) -> None:
    fitted = models.small_forest()
    mlflow.sklearn.save_model(fitted.estimator, tmp_path / "model", serialization_format="cloudpickle")
    model = from_estimator(mlflow.sklearn.load_model(str(tmp_path / "model")), None, None)
    rows = [{str(k): v for k, v in row.items()} for row in fitted.held_out.to_dict("records")]
    before = model.decide(rows)
    assert before.backend == "native"
    compiler = Compiler()
    compiling = compiler.later(model, tmp_path / "model", "mlflow")
    assert compiling is not None
    compiling.join(120)
    after = model.decide(rows)
    assert model.dispatch.backends[0].name == models.OF_FORESTS
    assert model.dispatch.backends[0].score(model.table(rows)).index.tolist() == after.scores.index.tolist()
    assert after.predictions == before.predictions
    np.testing.assert_allclose(after.scores.probabilities, before.scores.probabilities, rtol=0, atol=1e-9)  # type: ignore[arg-type]
    compiled, native = model.dispatch.backends
    with pytest.raises(ScoringError):  # which this forest refuses, and its compiled form alone would not
        compiled.score(model.table([rows[0] | {"return_1": 1e39}]))
    gap = model.table([rows[0] | {"return_1": None}])
    np.testing.assert_array_equal(compiled.score(gap).probabilities, native.score(gap).probabilities)  # type: ignore[arg-type]
    compiler.close()


def test_what_is_compiled_after_it_is_loaded_is_held_to_every_edge_too(tmp_path: Path) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import KBinsDiscretizer

    fitted = models.logistic()
    bins = KBinsDiscretizer(6, encode="ordinal", strategy="kmeans", random_state=0)
    estimator = make_pipeline(bins, fitted.estimator.__class__()).fit(
        fitted.train, models.labels(0, 1)[: models.N_TRAIN]
    )
    mlflow.sklearn.save_model(estimator, tmp_path / "model", serialization_format="cloudpickle")
    model = from_estimator(mlflow.sklearn.load_model(str(tmp_path / "model")), None, None)
    compiler = Compiler()
    compiling = compiler.later(model, tmp_path / "model", "mlflow")
    assert compiling is not None
    compiling.join(120)
    compiled, native = model.dispatch.backends
    assert compiled.name == "program"
    edges = np.concatenate(bins.bin_edges_)
    at = np.concatenate([edges, np.nextafter(edges, np.inf), np.nextafter(edges, -np.inf), edges.astype(np.float32)])
    rows = np.array([(a, b) for a in at for b in at[::5]])
    np.testing.assert_array_equal(compiled.score(rows).index, native.score(rows).index)
    np.testing.assert_allclose(compiled.score(rows).probabilities, native.score(rows).probabilities, rtol=0, atol=1e-9)  # type: ignore[arg-type]
    compiler.close()


def test_inspect_shows_the_forms_and_measures_the_plan(tmp_path: Path) -> None:
    fitted = models.small_forest()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None)
    said = run("inspect", str(tmp_path / "model"), "--measure").out
    assert "compiled (within 1e-06 of the estimator's probabilities)" in said
    assert "plan, as measured here" in said
    assert "from 1 rows" in said
    for name in (models.OF_FORESTS, "native"):
        assert f"\n  {name} " in said
    assert "plan, as" not in run("inspect", str(tmp_path / "model")).out
