"""What others found: models that were left native for a reason that was none, and files that no library writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, StackingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier

import fin_pyfunc
from fin_pyfunc.compiling.tree_form import trees_of
from fin_pyfunc.model.backends.program import ProgramBackend
from fin_pyfunc.model.backends.trees import TreesBackend
from fin_pyfunc.model.decision import Thresholds
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.program import program as programs
from fin_pyfunc.model.program.categories import OneHot
from fin_pyfunc.model.program.columns import Select
from fin_pyfunc.model.program.links import Link
from fin_pyfunc.model.program.program import Program, Step
from fin_pyfunc.model.tree_file import written


def saved(estimator: Any, X: pd.DataFrame, folder: Path) -> Any:
    fin_pyfunc.save_model(estimator, X, folder)
    return fin_pyfunc.load_model(str(folder))


def test_pipelines_over_text_are_compiled_within_a_stack(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"k": rng.choice(list("abcd"), 400), "a": rng.normal(size=400)})
    encoded = ColumnTransformer([("o", OneHotEncoder(handle_unknown="ignore"), ["k"])], remainder="passthrough")
    stack = StackingClassifier([("a", make_pipeline(encoded, LogisticRegression()))], cv=2).fit(X, X["a"] > 0)
    model = saved(stack, X, tmp_path / "m")
    assert model.dispatch.backends[0].name == "program", model.manifest.dropped
    np.testing.assert_allclose(model.predict_proba(X), stack.predict_proba(X), rtol=0, atol=1e-12)


def test_categories_that_are_numbers_stay_numbers_beside_a_column_of_booleans(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame({"k": rng.integers(1, 40, 400) * 10.0, "flag": rng.random(400) < 0.5, "a": rng.normal(size=400)})
    passed = ColumnTransformer([("o", "passthrough", ["k", "flag", "a"])])
    boosting = HistGradientBoostingClassifier(max_iter=8, categorical_features=[0])
    fitted = make_pipeline(passed, boosting).fit(X, (X["k"] % 20 == 0) ^ X["flag"])
    model = saved(fitted, X, tmp_path / "m")
    assert model.dispatch.backends[0].name == "program", model.manifest.dropped
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))


def test_a_temperature_over_float32_stays_with_the_estimator(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(0, 3, (300, 3)).round(1), columns=list("abc"))
    if not hasattr(CalibratedClassifierCV(), "method"):
        pytest.skip("this scikit-learn has no temperature")
    calibrated = CalibratedClassifierCV(XGBClassifier(n_estimators=5), method="temperature", cv=2)
    model = saved(calibrated.fit(X, X["a"] > X["b"]), X, tmp_path / "m")
    assert "float32" in model.manifest.dropped["program"]


def opened(folder: Path, backend: Any, form: Form, content: bytes, n_features: int) -> Any:
    (folder / form.file).write_bytes(content)
    features = infer(pd.DataFrame(np.zeros((2, n_features)), columns=[f"f{i}" for i in range(n_features)]))
    return backend(folder, form, [0, 1], Thresholds(), None, False, features)


def test_a_form_of_other_features_than_the_model_has_is_refused(tmp_path: Path) -> None:
    two = Program(n_features=7, steps=[Step(of=(0,), node=Select(columns=np.array([5, 6])))])
    with pytest.raises(ArtifactError):
        opened(tmp_path, ProgramBackend, Form(backend="program", file="p"), programs.written(two), 3)
    X = np.random.default_rng(0).normal(size=(60, 4))
    trees = trees_of(RandomForestClassifier(3).fit(X, X[:, 0] > 0), 4, single=False)
    with pytest.raises(ArtifactError):
        opened(tmp_path, TreesBackend, Form(backend="trees", file="t"), written(trees), 3)
    assert opened(tmp_path, TreesBackend, Form(backend="trees", file="t"), written(trees), 4).run(X).shape == (60, 2)


@pytest.mark.parametrize("columns", [np.array([0.0, 2.0]), np.array([True, False, True])])
def test_columns_are_whole_numbers(columns: np.ndarray[Any, Any]) -> None:
    with pytest.raises(ArtifactError):
        programs.read(programs.written(Program(n_features=3, steps=[Step(of=(0,), node=Select(columns=columns))])), 2)


def test_a_program_of_too_many_columns_is_refused_before_it_runs() -> None:
    none = np.zeros(1, dtype=np.int64)
    wide = OneHot(sizes=none, table=np.zeros(2, dtype=np.int64), n_columns=1 << 17)
    steps = [Step(of=(0,), node=wide), *(Step(of=(i,), node=Link(how="tanh")) for i in range(1, 100))]
    steps.append(Step(of=(len(steps),), node=Select(columns=np.array([0, 1]))))
    with pytest.raises(ArtifactError):
        programs.read(programs.written(Program(n_features=1, steps=steps)), 2)
