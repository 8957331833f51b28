"""What is no classifier of one label, and what else is refused for good."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.zoo.case import Case, Fit, fitting, forest, linear, piped, sk

GROUP = "What is no classifier that can be served"


def _regression(path: str) -> Fit:
    return lambda X, y: sk(path).fit(X, X["imbalance"])


def _replaced(X: Any, y: Any) -> Any:
    model = forest().fit(X, y)
    model.predict = lambda X: np.ones(len(X), dtype=int)
    return model


def _centred(X: Any) -> Any:
    return X - X.mean()


def cases() -> Iterator[Case]:
    """Each with the sentence that its user gets."""
    for path in ("linear_model.LinearRegression", "ensemble.RandomForestRegressor"):
        yield Case(GROUP, path.rpartition(".")[2], _regression(path))
    for path in ("ensemble.IsolationForest", "cluster.KMeans", "preprocessing.StandardScaler"):
        yield Case(GROUP, path.rpartition(".")[2], fitting(lambda path=path: sk(path)))
    yield Case(GROUP, "a class, not an instance", lambda X, y: type(forest()))
    yield Case(GROUP, "RandomForest, not fitted", lambda X, y: forest())
    yield Case(GROUP, "RandomForest of several outputs", lambda X, y: forest().fit(X, np.column_stack([y, y > 0])))
    yield Case(GROUP, "an estimator whose predict was replaced", _replaced)
    yield Case(
        GROUP, "DummyClassifier(stratified)", fitting(lambda: sk("dummy.DummyClassifier", strategy="stratified"))
    )
    yield Case(GROUP, "a step that looks at other rows",
               fitting(lambda: piped(sk("preprocessing.FunctionTransformer", _centred), linear())))  # fmt: skip
