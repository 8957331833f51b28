"""Whatever the shape of the data: the same class, alone or among others, by every form."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.authoring.estimators import hist, lightgbm, linear, piped, random_forest, sk, why_no_lightgbm, xgboost
from tests.compiling.checks import assert_same, compiled, odd_rows
from tests.models import Fitted

MAKERS = {
    "forest": lambda: random_forest(),
    "pure forest": sk("ensemble.RandomForestClassifier", n_estimators=6, random_state=0),
    "tree": sk("tree.DecisionTreeClassifier", max_depth=3, random_state=0),
    "gradient boosting": sk("ensemble.GradientBoostingClassifier", n_estimators=4, random_state=0),
    "hist": hist,
    **({} if why_no_lightgbm() else {"lightgbm": lightgbm}),
    "xgboost": xgboost,
    "logistic regression": piped(linear),
    "scaled forest": piped(lambda: random_forest()),
    "bayes": sk("naive_bayes.GaussianNB"),
    "decision values": piped(sk("linear_model.RidgeClassifier")),
}
#: Those that take missing values.
GAPS = {"hist", "lightgbm", "xgboost", "forest", "pure forest", "tree"}


@st.composite
def fitted(draw: st.DrawFn) -> Fitted:
    """A classifier on data of a drawn shape: few distinct values (so many ties), constant columns, gaps."""
    family = draw(st.sampled_from(sorted(MAKERS)))
    k, n_features = draw(st.integers(2, 5)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.normal(size=(80, n_features)) * draw(st.sampled_from([1e-4, 1.0, 1e5]))
    decimals = draw(st.sampled_from([None, 0, 1]))
    if decimals is not None:
        X = np.round(X, decimals)
    if draw(st.booleans()):
        X[:, -1] = 1.0  # constant
    if family in GAPS and draw(st.booleans()):
        X[rng.random(80) < 0.2, 0] = np.nan
    y = np.concatenate([np.arange(k), rng.integers(0, k, 80 - k)])  # every class is there, and none can be told apart
    kind = "numbers" if family == "xgboost" else draw(st.sampled_from(["numbers", "text", "backwards"]))
    names: Any = {"numbers": np.arange(k), "text": np.array(list("zaymb"))[:k], "backwards": -np.arange(k)}[kind]
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(n_features)])
    return Fitted(MAKERS[family]().fit(frame, names[y]), frame, frame.iloc[::2])


@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(fitted())
def test_every_form_answers_every_row_as_the_estimator_does(model: Fitted) -> None:
    with tempfile.TemporaryDirectory() as folder:
        made = compiled(model, Path(folder))
        rows = odd_rows(made, model.train)
        assert_same(made, rows)
        for form in made.compiled.forms:
            backend = made.open(form)
            among = backend.score(rows[:10])
            for i in range(10):
                alone = backend.score(rows[i : i + 1])
                assert alone.index[0] == among.index[i]
                if form.band == 0 and alone.probabilities is not None and among.probabilities is not None:
                    np.testing.assert_array_equal(alone.probabilities[0], among.probabilities[i])
