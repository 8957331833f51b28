"""The class is the one `predict` gives, also where the backend works it out from probabilities: rows full of ties."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import ExtraTreesClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.features import infer

NAMES = ["a", "b", "c"]


def neighbours(algorithm: str, weights: str) -> KNeighborsClassifier:
    return KNeighborsClassifier(4, algorithm=algorithm, weights=weights)


ESTIMATORS: dict[str, Any] = {
    "forest": RandomForestClassifier(4, max_depth=2, random_state=0),
    "extra trees": ExtraTreesClassifier(4, max_depth=2, random_state=0),
    "tree": DecisionTreeClassifier(max_depth=2, random_state=0),
    "extra tree": ExtraTreeClassifier(max_depth=2, random_state=0),
    "calibrated": CalibratedClassifierCV(LogisticRegression(), cv=2),
    **{f"{a}, {w}": neighbours(a, w) for a in ("brute", "kd_tree", "ball_tree") for w in ("uniform", "distance")},
    "scaled, brute": make_pipeline(StandardScaler(), neighbours("brute", "uniform")),
    "scaled, kd_tree": make_pipeline(StandardScaler(), neighbours("kd_tree", "uniform")),
}


def grid(n_rows: int, seed: int) -> pd.DataFrame:
    """Few values, so that distances and votes are often equal."""
    return pd.DataFrame(np.random.default_rng(seed).integers(0, 3, (n_rows, 3)).astype(float), columns=NAMES)


@pytest.mark.parametrize("has_names", [True, False], ids=["named", "arrays"])
@pytest.mark.parametrize("name", ESTIMATORS)
@given(seed=st.integers(0, 2**32 - 1))
def test_the_class_is_that_of_predict(name: str, has_names: bool, seed: int) -> None:
    X = grid(40, seed)
    y = np.resize([-1, 0, 1], len(X))
    estimator = clone(ESTIMATORS[name]).fit(X if has_names else X.to_numpy(), y)
    backend = NativeBackend(estimator, infer(X))
    asked = grid(30, seed + 1)
    scores = backend.score(asked.to_numpy())
    expected = estimator.predict(asked if has_names else asked.to_numpy())
    assert [scores.classes[i] for i in scores.index] == expected.tolist()


def test_nearest_neighbours_are_looked_for_once() -> None:
    X = grid(40, 0)
    estimator = neighbours("brute", "uniform").fit(X, np.resize([-1, 0, 1], len(X)))
    backend = NativeBackend(estimator, infer(X))
    estimator.predict = lambda X: pytest.fail("it was asked for what is known already")
    assert len(backend.score(X.to_numpy()).index) == 40
