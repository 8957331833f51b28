"""Classifiers of many families, unfitted or fitted on the bars of `tests.models`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests.models import Fitted, bars, fit, labels


def random_forest(**options: Any) -> Any:
    from sklearn.ensemble import RandomForestClassifier

    return RandomForestClassifier(10, max_depth=4, random_state=0, **options)


def encoded_text() -> Any:
    from sklearn.compose import ColumnTransformer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    columns = ColumnTransformer(
        [
            ("text", OneHotEncoder(handle_unknown="ignore"), ["venue"]),
            ("numbers", StandardScaler(), ["return_1", "order_flow_imbalance", "hour"]),
            ("rest", "passthrough", ["is_month_end"]),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=500))


class Momentum:
    """A classifier of the user's own: no scikit-learn, no classes_."""

    def predict_proba(self, X: Any) -> Any:
        up = 1 / (1 + np.exp(-np.asarray(X, dtype=float)[:, 3] * 1e4))
        return np.column_stack([1 - up, up])

    def predict(self, X: Any) -> Any:
        return np.where(self.predict_proba(X)[:, 1] > 0.3, "up", "down")


def duck() -> Fitted:
    return Fitted(Momentum(), bars().iloc[:160], bars().iloc[160:])


def of(make: Callable[[], Any], *names: Any, frame: Callable[[], pd.DataFrame] = bars) -> Callable[[], Fitted]:
    return lambda: fit(make(), frame(), labels(*(names or (-1, 0, 1))))


def sk(path: str, **options: Any) -> Callable[[], Any]:
    """An estimator by the dotted name of its class."""

    def make() -> Any:
        module, _, name = path.rpartition(".")
        return getattr(__import__(f"sklearn.{module}", fromlist=[name]), name)(**options)

    return make


def piped(make: Callable[[], Any]) -> Callable[[], Any]:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return lambda: make_pipeline(StandardScaler(), make())


def piped_through(transformer: Any, estimator: Any) -> Any:
    from sklearn.pipeline import make_pipeline

    return make_pipeline(transformer, estimator)


def voting() -> Any:
    members = [("forest", random_forest(n_jobs=-1)), ("bayes", sk("naive_bayes.GaussianNB")())]
    return sk("ensemble.VotingClassifier", estimators=members, voting="soft", weights=[0.3, 0.7])()


def stacking() -> Any:
    members = [("forest", random_forest(n_jobs=2)), ("bayes", sk("naive_bayes.GaussianNB")())]
    return sk("ensemble.StackingClassifier", estimators=members, cv=2)()


@cache
def why_no_lightgbm() -> str:
    """Why LightGBM cannot be opened on this machine; empty where it can."""
    try:
        import lightgbm  # noqa: F401
    except (ImportError, OSError) as e:
        return f"LightGBM cannot be opened here ({e}); on Debian: apt-get install libgomp1"
    return ""


def lightgbm(**options: Any) -> Any:
    if why_no_lightgbm():
        pytest.skip(why_no_lightgbm())
    from lightgbm import LGBMClassifier

    return LGBMClassifier(n_estimators=8, min_child_samples=5, random_state=0, verbose=-1, **options)


def xgboost(**options: Any) -> Any:
    from xgboost import XGBClassifier

    return XGBClassifier(n_estimators=8, max_depth=3, random_state=0, n_jobs=1, **options)


linear = sk("linear_model.LogisticRegression", max_iter=500)
hist = sk("ensemble.HistGradientBoostingClassifier", max_iter=8, random_state=0)
hist_of_categories = sk(
    "ensemble.HistGradientBoostingClassifier", max_iter=8, random_state=0, categorical_features="from_dtype"
)


def support_vectors() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return sk("svm.SVC", probability=True, random_state=0)()
