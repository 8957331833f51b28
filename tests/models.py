"""Small fitted classifiers and their samples, the same ones for every test: seeds fixed, each fitted once a process."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

#: What computes forests.
OF_FORESTS = "trees"
BARS = ("bidPrice", "askPrice", "spread", "return_1", "order_flow_imbalance")
N_TRAIN, N_HELD_OUT = 160, 40


class Fitted(NamedTuple):
    """A fitted classifier, rows of its training data, and rows it has not seen."""

    estimator: Any
    train: pd.DataFrame
    held_out: pd.DataFrame


@cache
def bars() -> pd.DataFrame:
    """Numbers only, 200 rows."""
    rng = np.random.default_rng(3)
    bid = 1.1 + rng.normal(0, 1e-3, N_TRAIN + N_HELD_OUT)
    spread = rng.integers(1, 9, len(bid)) * 1e-5
    flow = rng.normal(size=len(bid))
    return pd.DataFrame(
        {
            "bidPrice": bid,
            "askPrice": bid + spread,
            "spread": spread,
            "return_1": 1e-4 * (flow + rng.normal(0, 0.5, len(bid))),
            "order_flow_imbalance": flow,
        }
    )


@cache
def bars_with_gaps() -> pd.DataFrame:
    """The same with some missing values in two columns."""
    gaps = bars().copy()
    gaps.loc[::7, "return_1"] = np.nan
    gaps.loc[::11, "spread"] = np.nan
    return gaps


@cache
def quotes() -> pd.DataFrame:
    """Numbers, text, integers and booleans."""
    rng = np.random.default_rng(4)
    n = N_TRAIN + N_HELD_OUT
    return bars().assign(
        venue=rng.choice(["EBS", "LMAX", "Cboe"], n), hour=rng.integers(0, 24, n), is_month_end=rng.random(n) < 0.2
    )


@cache
def quotes_as_categories() -> pd.DataFrame:
    """Numbers, a category of text and one of integers."""
    frame = quotes()[["return_1", "order_flow_imbalance", "venue", "hour"]]
    return frame.assign(venue=frame["venue"].astype("category"), hour=(frame["hour"] // 6).astype("category"))


def labels(*names: Any) -> np.ndarray[Any, Any]:
    """One label a row of `bars`, in two or three classes that the rows tell apart, more or less."""
    flow = bars()["order_flow_imbalance"].to_numpy()
    return np.asarray(names)[np.digitize(flow, [0.0] if len(names) == 2 else [-0.4, 0.4])]


def fit(estimator: Any, frame: pd.DataFrame, y: np.ndarray[Any, Any]) -> Fitted:
    """Fit to the first rows of a frame and hold out the others."""
    train, held_out = frame.iloc[:N_TRAIN], frame.iloc[N_TRAIN:]
    return Fitted(estimator.fit(train, y[:N_TRAIN]), train, held_out)


def fit_array(estimator: Any, y: np.ndarray[Any, Any]) -> Fitted:
    """The same, fitted on a bare array: the estimator knows no names."""
    train, held_out = bars().iloc[:N_TRAIN], bars().iloc[N_TRAIN:]
    return Fitted(estimator.fit(train.to_numpy(), y[:N_TRAIN]), train, held_out)


@cache
def small_forest() -> Fitted:
    """A forest of ten trees for -1, 0 and 1."""
    from sklearn.ensemble import RandomForestClassifier

    return fit(RandomForestClassifier(10, max_depth=4, random_state=0), bars(), labels(-1, 0, 1))


@cache
def logistic() -> Fitted:
    """A logistic regression for 0 and 1 on two numbers: the smallest model there is."""
    from sklearn.linear_model import LogisticRegression

    return fit(LogisticRegression(), bars()[["return_1", "order_flow_imbalance"]], labels(0, 1))
