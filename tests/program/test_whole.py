"""A program answers as the pipeline that it was built of."""

from __future__ import annotations

import numpy as np
import pandas as pd
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fin_pyfunc.compiling.program.build import program_of
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.program.program import read, written


def test_a_scaled_pipeline_answers_as_its_program() -> None:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(300, 4)), columns=list("abcd"))
    y = (X["a"] + X["b"] > 0).astype(int)
    for last in (LogisticRegression(), LGBMClassifier(n_estimators=5, verbose=-1)):
        steps = ColumnTransformer([("num", StandardScaler(), ["c", "a"])], remainder="passthrough")
        fitted = make_pipeline(steps, last).fit(X, y)
        program = read(written(program_of(fitted, infer(X))), 2)
        np.testing.assert_allclose(program(X.to_numpy()), fitted.predict_proba(X), rtol=0, atol=1e-15)
