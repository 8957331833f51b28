"""A program that decides anywhere but where its pipeline does is refused: rows are tried at each of its constants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from fin_pyfunc.compiling import forms
from fin_pyfunc.compiling.program.comparisons import program_rows
from fin_pyfunc.model.program.classifiers import rounded_at
from fin_pyfunc.model.program.numbers import Threshold
from fin_pyfunc.model.program.program import Program, read
from fin_pyfunc.model.program.quantiles import Bins
from tests.authoring.estimators import linear, of, sk
from tests.compiling.checks import assert_same, compiled, matrix, odd_rows
from tests.compiling.test_hard_rows import around, binarizer, bins, boosting, scaled, steps
from tests.models import Fitted

Array = np.ndarray[Any, Any]
lightgbm = sk("ensemble.HistGradientBoostingClassifier", max_iter=8, random_state=0)


def steady(frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """Prices as people have them, of few decimals."""
    rng = np.random.default_rng(2)
    return pd.DataFrame({"bid": np.round(100 + rng.normal(size=200), 2), "flow": np.round(rng.normal(size=200), 3)})


PIPELINES: dict[str, Callable[[], Fitted]] = {
    "threshold": of(steps(binarizer, linear), 0, 1),
    "threshold behind a scaler": of(steps(scaled, binarizer, linear), 0, 1),
    **{
        f"{strategy} bins, {encode}": of(steps(bins(strategy, encode), linear), 0, 1)
        for strategy in ("uniform", "quantile", "kmeans") for encode in ("ordinal", "onehot", "onehot-dense")
    },
    "bins behind a scaler": of(steps(sk("preprocessing.MinMaxScaler"), bins("kmeans"), boosting)),
    "boosting behind scalers": of(
        steps(sk("preprocessing.RobustScaler"), sk("preprocessing.MaxAbsScaler"), boosting)
    ),
    "boosting behind quantiles": of(steps(sk("preprocessing.QuantileTransformer", n_quantiles=90), lightgbm)),
    "boosting behind powers": of(steps(sk("preprocessing.PowerTransformer"), lightgbm)),
    "boosting of products": of(steps(scaled, sk("preprocessing.PolynomialFeatures"), lightgbm)),
    "splines": of(steps(sk("preprocessing.SplineTransformer"), linear)),
    "boosting behind splines": of(steps(sk("preprocessing.SplineTransformer"), boosting), frame=steady),
    "logarithms": of(steps(sk("preprocessing.FunctionTransformer", func=np.log1p), scaled, lightgbm), frame=steady),
    "signs": of(steps(sk("preprocessing.FunctionTransformer", func=np.sign), linear), frame=steady),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", PIPELINES)
def test_a_program_decides_at_each_constant_as_its_pipeline(case: str, tmp_path: Path) -> None:
    model = PIPELINES[case]()
    made = compiled(model, tmp_path, backends=("program",))
    assert made.kept == ["program"], made.compiled.dropped
    assert made.form("program").error < 1e-12
    far = model.held_out.to_numpy() if "powers" in case else odd_rows(made, model.held_out)  # far powers are refused
    assert_same(made, np.vstack([around(model), far]))


def nudged(program: Program, kind: type, field: str) -> Program:
    """A program with the numbers of its first node of a kind off by one step."""
    node = next(step.node for step in program.steps if isinstance(step.node, kind))
    value = getattr(node, field)
    if isinstance(value, float):
        setattr(node, field, float(np.nextafter(value, np.inf)))
    else:
        setattr(node, field, np.nextafter(value, np.inf))
    node.__dict__.clear()
    node.width(program.n_features)
    return program


@pytest.mark.parametrize(
    ("make", "kind", "field"),
    [
        (steps(binarizer, linear), Threshold, "threshold"),
        (steps(bins("uniform"), linear), Bins, "edges_between"),
        (steps(bins("quantile", "onehot"), boosting), Bins, "edges_between"),
    ],
)
def test_a_constant_that_is_off_by_one_step_is_found(
    make: Callable[[], Any], kind: type, field: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = forms.program_of
    monkeypatch.setattr(forms, "program_of", lambda *given: nudged(own(*given), kind, field))
    made = compiled(of(make, 0, 1)(), tmp_path, backends=("program",))
    assert "off by" in made.compiled.dropped["program"]


def at_least(self: Threshold, *inputs: Array) -> Array:
    return (inputs[0] >= self.threshold).astype(np.float64)


def from_the_left(self: Bins, *inputs: Array) -> Array:
    each = [of.searchsorted(inputs[0][:, i], "left") for i, of in enumerate(self._columns)]
    return np.column_stack(each).astype(np.float64)


@pytest.mark.parametrize(
    ("before", "last", "kind", "wrong"),
    [
        ([], binarizer, Threshold, at_least),
        ([], bins("uniform"), Bins, from_the_left),
        ([scaled], bins("quantile"), Bins, from_the_left),
    ],
)
def test_a_constant_on_the_wrong_side_is_found(
    before: list[Any], last: Any, kind: type, wrong: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = of(steps(*before, last, linear), 0, 1, frame=steady)()
    assert compiled(model, tmp_path, backends=("program",)).kept == ["program"]
    monkeypatch.setattr(kind, "__call__", wrong)
    made = compiled(model, tmp_path, backends=("program",))
    assert "off by" in made.compiled.dropped["program"]


def test_thresholds_behind_sums_stay_with_the_estimator(tmp_path: Path) -> None:
    make = steps(sk("decomposition.PCA", n_components=2), sk("preprocessing.Binarizer", threshold=0.02), linear)
    made = compiled(of(make, 0, 1)(), tmp_path, backends=("program",))
    assert made.kept == []
    assert "rounded" in made.compiled.dropped["program"]


@pytest.mark.parametrize("before", [sk("decomposition.PCA", n_components=2), sk("preprocessing.Normalizer")])
def test_trees_behind_sums_leave_rows_at_their_thresholds_to_the_estimator(before: Any, tmp_path: Path) -> None:
    model = of(steps(before, boosting), 0, 1)()
    made = compiled(model, tmp_path, backends=("program",))
    form = made.form("program")
    program = read((made.folder / form.file).read_bytes(), 2)
    rows = matrix(model.train, made.spec)
    hard = program_rows(program, made.spec, rows)
    assert len(hard.below)
    assert np.isnan(program(hard.below)).any(axis=1).all()
    assert not np.isnan(program(rows)).any()
    assert_same(made, hard.below)


@pytest.mark.filterwarnings("ignore")
def test_rows_that_a_step_refuses_are_asked_of_the_estimator(tmp_path: Path) -> None:
    frame = steady().abs() + 1
    make = steps(sk("preprocessing.FunctionTransformer", func=np.log), scaled, lightgbm)
    made = compiled(of(make, 0, 1, frame=lambda: frame)(), tmp_path, backends=("program",))
    backend = made.open(made.form("program"))
    rows = frame.to_numpy()[:3].copy()
    assert backend.score_alone(rows) is not None
    rows[1, 0] = 0.0  # -inf, which StandardScaler refuses
    assert backend.score_alone(rows) is None
    rows[1, 0] = -1.0  # NaN, which all that follows takes
    assert backend.score_alone(rows) is not None


@pytest.mark.parametrize("threshold", [0.1, -0.1, 1.0, 16777217.0, 1e-40])
def test_a_threshold_of_float32_is_passed_half_way_to_the_next(threshold: float) -> None:
    at = rounded_at(np.array([threshold]))
    around_it = np.array([np.nextafter(at, -np.inf), at, np.nextafter(at, np.inf)])[:, 0]
    passed = around_it.astype(np.float32).astype(np.float64) > threshold
    assert passed[2]
    assert not passed[0]
