"""nvForest's mode for the CPU answers as the estimator does, whichever library grew the trees."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fin_pyfunc
from fin_pyfunc.model.backends.forms import open_forms
from fin_pyfunc.model.backends.native import labels_of
from fin_pyfunc.model.decision import Thresholds
from fin_pyfunc.model.errors import BackendError
from fin_pyfunc.model.form import LEAST_BAND
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver
from tests.compiling.checks import Made, compiled, matrix, odd_rows
from tests.compiling.test_families import FAMILIES
from tests.models import OF_FORESTS, small_forest
from tests.servers import serving

WITH_TREES = [family for family, (_, forms) in FAMILIES.items() if "treelite" in forms]


def opened(made: Made, wanted: str = "nvforest") -> Any:
    """The backend as a model opens it, band and all."""
    forms, classes = made.compiled.forms, labels_of(made.native.estimator)
    found = open_forms(made.folder, forms, {}, classes, Thresholds(), made.native, wanted)
    assert [backend.name for backend in found] == ["nvforest-cpu"]
    return found[0]


@pytest.mark.parametrize("family", WITH_TREES)
def test_it_answers_as_the_estimator_does(family: str, tmp_path: Path, nvforest: Path) -> None:
    model = FAMILIES[family][0]()
    made = compiled(model, tmp_path, backends=["treelite"])
    backend, rows = opened(made), odd_rows(made, model.train)
    got, own = backend.score(rows), made.native.score(rows)
    np.testing.assert_array_equal(got.index, own.index)
    assert got.probabilities is not None
    assert own.probabilities is not None
    np.testing.assert_allclose(got.probabilities, own.probabilities, rtol=0, atol=1e-6)
    assert got.probabilities.dtype == np.float64
    alone = np.vstack([backend.score(rows[i : i + 1]).probabilities for i in range(20)])
    np.testing.assert_array_equal(alone, got.probabilities[:20])


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), decimals=st.integers(0, 7), n_rows=st.integers(1, 700))
def test_no_row_flips_however_many_come_and_however_rounded_they_are(
    tmp_path_factory: pytest.TempPathFactory, nvforest: Path, seed: int, decimals: int, n_rows: int
) -> None:
    made = _forest(tmp_path_factory)
    known = matrix(small_forest().train, made.spec)
    rows = np.round(np.random.default_rng(seed).choice(known, n_rows), decimals)
    np.testing.assert_array_equal(opened(made).score(rows).index, made.native.score(rows).index)


@pytest.mark.parametrize("family", ["forest of pure leaves", "forest of pure leaves, two classes"])
def test_votes_are_counted_and_no_row_is_too_close_to_call(family: str, tmp_path: Path, nvforest: Path) -> None:
    model = FAMILIES[family][0]()
    made = compiled(model, tmp_path, backends=["treelite"])
    rows = np.vstack([matrix(model.train, made.spec), odd_rows(made, model.train)])
    scores, unsure = opened(made)._run_and_look(rows)
    own = made.native.score(rows).probabilities
    assert own is not None
    assert np.isin(own.max(axis=1), (Thresholds().medium, Thresholds().high)).any(), "no row lies on a threshold"
    assert unsure is None
    np.testing.assert_array_equal(scores, own)


def test_a_forest_whose_leaves_are_mixed_asks_about_what_is_too_close_to_call(tmp_path: Path, nvforest: Path) -> None:
    assert opened(compiled(small_forest(), tmp_path, backends=["treelite"]))._band == LEAST_BAND


_MADE: list[Made] = []


def _forest(folders: pytest.TempPathFactory) -> Made:
    if not _MADE:
        _MADE.append(compiled(small_forest(), folders.mktemp("forest"), backends=["treelite"]))
    return _MADE[0]


def test_a_row_on_the_edge_is_asked_of_the_estimator(tmp_path: Path, nvforest: Path) -> None:
    model = small_forest()
    made = compiled(model, tmp_path, backends=["treelite"])
    backend, rows = opened(made), matrix(model.train, made.spec)
    top = np.sort(backend.score(rows).probabilities, axis=1)
    row = int((top[:, -1] - top[:, -2]).argmin())
    backend._band = float(top[row, -1] - top[row, -2]) + 1e-12
    assert backend.score_alone(rows[row : row + 1]) is None
    assert backend.score(rows[row : row + 1]).index == made.native.score(rows[row : row + 1]).index


def test_it_takes_part_in_the_measured_plan_after_the_others(saved: Path, nvforest: Path) -> None:
    dispatch = fin_pyfunc.load_model(str(saved)).dispatch
    assert [backend.name for backend in dispatch.backends] == [OF_FORESTS, "nvforest-cpu", "native"]
    assert dispatch.plan is not None
    assert set(dispatch.plan.times) >= {OF_FORESTS, "nvforest-cpu"}
    dispatch.pin()
    assert dispatch.choose(10_000).name == OF_FORESTS  # of what is on the CPU always the same one


@pytest.mark.parametrize("name", ["nvforest", "nvforest-cpu"])
def test_by_name_it_computes_everything(saved: Path, nvforest: Path, name: str) -> None:
    model = fin_pyfunc.load_model(str(saved), backend=name)
    assert model.decide_frame(small_forest().held_out).backend == "nvforest-cpu"


def test_where_it_is_not_installed_nothing_is_imported_and_the_name_is_refused(saved: Path) -> None:
    assert [b.name for b in fin_pyfunc.load_model(str(saved)).dispatch.backends] == [OF_FORESTS, "native"]
    with pytest.raises(BackendError, match=r"'nvforest' is not installed here \(pip install 'fin_pyfunc\[gpu\]'\)"):
        fin_pyfunc.load_model(str(saved), backend="nvforest")


def test_its_threads_are_left_to_the_server(saved: Path, nvforest: Path) -> None:
    from threadpoolctl import threadpool_info

    fin_pyfunc.load_model(str(saved), backend="nvforest").predict(small_forest().held_out)
    own = [info for info in threadpool_info() if info["user_api"] == "openmp" and "nvforest" in info["filepath"]]
    assert own
    assert {info["num_threads"] for info in own} == {1}


def test_a_model_of_others_is_compiled_as_where_nvforest_is_not(nvforest: Path, tmp_path: Path) -> None:
    file = tmp_path / "forest.skops"
    skops.io.dump(small_forest().estimator, file)
    compiler, resolver = Compiler(), Resolver(None)
    loaded = load(resolver, resolver.resolve_argument(str(file)), compiler=compiler)
    deadline = time.monotonic() + 120
    while len(loaded.model.dispatch.backends) == 1 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert [backend.name for backend in loaded.model.dispatch.backends] == [OF_FORESTS, "native"]
    compiler.close()
    resolver.close()


def test_a_server_serves_by_it(saved: Path, nvforest: Path, tmp_path: Path) -> None:
    model = small_forest()
    rows = [{str(k): float(v) for k, v in row.items()} for _, row in model.held_out.iterrows()]
    env = {"PYTHONPATH": str(nvforest)}
    with serving("-m", str(saved), "--backend", "nvforest", folder=tmp_path, env=env) as server:
        answered = server.predict_batch(rows)
    assert answered.headers["X-Model-Backend"] == "nvforest-cpu"
    assert answered.json()["predictions"] == model.estimator.predict(model.held_out).tolist()
