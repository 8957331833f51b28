"""Training tables of the zoo: market data with five-decimal prices, text, gaps and every dtype that people use."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pandas as pd

N_ROWS = 240
_VENUES = ("EBS", "LMAX", "Cboe", "Zürich SE")
_WORDS = ("rates", "hold", "surprise", "cut", "hike", "inflation", "jobs", "weak", "strong", "dovish", "the", "a")


@cache
def numbers() -> pd.DataFrame:
    """Prices of five decimals, whole pips, and numbers of full precision."""
    rng = np.random.default_rng(11)
    bid = np.round(1.1 + np.cumsum(rng.normal(0, 2e-4, N_ROWS)), 5)
    return pd.DataFrame(
        {
            "bid": bid,
            "spread": np.round(rng.integers(1, 9, N_ROWS) * 1e-5, 5),
            "return_1": np.round(rng.normal(0, 1e-4, N_ROWS), 5),
            "imbalance": rng.normal(size=N_ROWS),
            "volatility": rng.gamma(2.0, 0.5, N_ROWS),
        }
    )


def gaps() -> pd.DataFrame:
    """Missing values in two columns."""
    frame = numbers().copy()
    frame.loc[::7, "return_1"] = np.nan
    frame.loc[::11, "volatility"] = np.nan
    return frame


def positive() -> pd.DataFrame:
    """Nothing below zero."""
    return numbers().abs()


def counts() -> pd.DataFrame:
    """Small whole numbers."""
    rng = np.random.default_rng(12)
    columns = {name: rng.poisson(rate, N_ROWS) for name, rate in (("trades", 3.0), ("orders", 5.0), ("cancels", 1.0))}
    return pd.DataFrame(columns).assign(hour=rng.integers(0, 24, N_ROWS))


def mixed() -> pd.DataFrame:
    """Numbers with gaps, text with and without gaps, whole numbers and booleans."""
    rng = np.random.default_rng(13)
    broker = rng.choice(["a", "b", "c"], N_ROWS).astype(object)
    broker[::9] = np.nan
    return gaps().assign(
        venue=rng.choice(_VENUES, N_ROWS),
        broker=broker,
        hour=rng.integers(0, 24, N_ROWS),
        is_month_end=rng.random(N_ROWS) < 0.2,
    )


def categories() -> pd.DataFrame:
    """Two categories of pandas, one of text and one of whole numbers, beside numbers."""
    frame = mixed()[["imbalance", "bid", "venue", "hour"]]
    return frame.assign(venue=frame["venue"].astype("category"), hour=(frame["hour"] // 6).astype("category"))


def ordered() -> pd.DataFrame:
    """A category with an order."""
    rng = np.random.default_rng(14)
    grade = pd.Categorical(rng.choice(["low", "mid", "high"], N_ROWS), categories=["low", "mid", "high"], ordered=True)
    return numbers()[["imbalance", "bid"]].assign(grade=grade)


def nullable() -> pd.DataFrame:
    """pandas' own dtypes for numbers that may be missing."""
    frame = mixed()[["imbalance", "volatility", "hour", "is_month_end"]]
    return frame.astype({"imbalance": "Float64", "volatility": "Float64", "hour": "Int64", "is_month_end": "boolean"})


def sparse() -> pd.DataFrame:
    """Sparse columns, as pd.get_dummies(sparse=True) makes them."""
    venues = pd.get_dummies(mixed()["venue"], prefix="venue", dtype="float64", sparse=True)
    return pd.concat([numbers()[["imbalance", "bid"]], venues], axis=1)


def news() -> pd.DataFrame:
    """A column of headlines beside two numbers."""
    rng = np.random.default_rng(15)
    headlines = [" ".join(rng.choice(_WORDS, rng.integers(2, 7))) for _ in range(N_ROWS)]
    return numbers()[["imbalance", "spread"]].assign(headline=headlines)


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "numbers": numbers,
    "NumPy array": numbers,
    "float32": lambda: numbers().astype("float32"),
    "gaps": gaps,
    "gaps as -999": lambda: gaps().fillna(-999.0),
    "positive": positive,
    "counts": counts,
    "text and numbers": mixed,
    "categories": categories,
    "ordered category": ordered,
    "nullable dtypes": nullable,
    "sparse": sparse,
    "headlines": news,
}


def labels(classes: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    """One label a row, by what every table has in common: noise, and the order flow of `numbers`."""
    frame, rng = numbers(), np.random.default_rng(16)
    score = frame["imbalance"] + 4e3 * frame["return_1"] + 0.4 * frame["volatility"] + rng.normal(0, 0.4, N_ROWS)
    cuts = np.quantile(score, np.linspace(0, 1, len(classes) + 1)[1:-1])
    return np.asarray(classes)[np.digitize(score, cuts)]
