"""What classifiers make of categories and of sparse matrices before they compute with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from xgboost import XGBClassifier

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.build import _transform, program_of
from fin_pyfunc.compiling.program.classifier_input import classifier_input
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.encoders import with_codes
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.program.program import Program, read, written
from tests.program.coded import Array, columns_of, matrix_of

pytestmark = pytest.mark.filterwarnings("ignore")
_WORDS = [f"word {i}" for i in range(12)]


def _table(*, ordered: bool = False) -> tuple[pd.DataFrame, Any]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 2)), columns=["a", "b"])
    word = rng.choice([*_WORDS, None], 300)
    X.insert(1, "word", pd.Categorical(word, categories=[*reversed(_WORDS), "never"], ordered=ordered))
    X["size"] = pd.Categorical(rng.choice([20, 10], 300), categories=[20, 10, 5], ordered=ordered)
    return X, (X["a"] + (X["word"].isin(_WORDS[:5])) > 0.5).astype(int)


def _given(estimator: Any, X: pd.DataFrame) -> Array:
    """The matrix that a classifier's trees get."""
    columns = columns_of(X)
    builder = Builder(_transform)
    value = classifier_input(builder, estimator, Value(0, columns))
    matrix = matrix_of(X, columns)
    if not value.at:
        return matrix
    return read(written(Program(n_features=len(columns), steps=builder.steps_to(value))), value.width)(matrix)


def test_hist_gradient_boosting_gets_positions_of_text_and_numbers_themselves() -> None:
    X, y = _table()
    fitted = HistGradientBoostingClassifier(categorical_features="from_dtype", max_iter=5).fit(X, y)
    own = fitted._preprocessor.transform(X)[:, [2, 0, 3, 1]]  # categories come first there
    given = _given(fitted, X)
    np.testing.assert_array_equal(given[:, :3], own[:, :3])
    np.testing.assert_array_equal(given[:, 3], X["size"].astype(float))


def test_lightgbm_gets_the_codes_of_its_training_data() -> None:
    X, y = _table(ordered=True)
    fitted = LGBMClassifier(n_estimators=10, verbose=-1).fit(X, y)
    other = X.assign(word=X["word"].cat.set_categories(sorted(_WORDS), ordered=True))  # as a request's might be
    given = _given(fitted, other)
    np.testing.assert_array_equal(given[:, 1], X["word"].cat.codes.astype(float).replace(-1, np.nan))
    spec = with_codes(infer(X), fitted)
    steps = make_pipeline(ColumnTransformer([("a", StandardScaler(), ["a"])], remainder="passthrough"), fitted)
    steps[0].set_output(transform="pandas").fit(X)
    steps[-1].fit(steps[0].transform(X), y)
    program = read(written(program_of(steps, spec)), 2)
    np.testing.assert_array_equal(program(matrix_of(X, columns_of(X))), steps.predict_proba(X))


def test_xgboost_gets_codes() -> None:
    X, y = _table()
    fitted = XGBClassifier(n_estimators=5, enable_categorical=True).fit(X, y)
    np.testing.assert_array_equal(_given(fitted, X)[:, 1], X["word"].cat.codes.astype(float).replace(-1, np.nan))


def test_zeros_of_a_sparse_matrix_are_missing_to_xgboost() -> None:
    X, y = _table()
    X = X.drop(columns="size").assign(zero=np.where(X["a"] > 1, 0.0, X["b"]))
    for threshold in (0.0, 1.0):
        steps = ColumnTransformer(
            [("word", OneHotEncoder(), ["word"])], remainder="passthrough", sparse_threshold=threshold
        )
        fitted = make_pipeline(steps, XGBClassifier(n_estimators=20)).fit(X, y)
        assert fitted[0].sparse_output_ == bool(threshold)
        program = read(written(program_of(fitted, with_codes(infer(X), fitted))), 2)
        np.testing.assert_array_equal(program(matrix_of(X, columns_of(X))), fitted.predict_proba(X))


def test_a_classifier_that_takes_no_text_is_named() -> None:
    X, y = _table()
    with pytest.raises(NotCompilable, match="LogisticRegression is given text"):
        classifier_input(Builder(_transform), LogisticRegression().fit(X[["a"]], y), Value(0, columns_of(X)))
    encoder = OneHotEncoder(dtype=np.float32)
    fitted = make_pipeline(encoder, LogisticRegression()).fit(X[["word"]], y)
    with pytest.raises(NotCompilable, match="computes in float32"):
        program_of(fitted, with_codes(infer(X[["word"]]), fitted))
