"""Pipelines as trading desks log them: 28 ways of preparing text and numbers, before five classifiers.

The rows are made by a seeded generator, so that no file is needed; the columns are those of a desk that predicts how a
quote will move.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

TEXTS = ["symbol", "venue", "sector"]
NUMBERS = [
    *("spread", "volume", "return_1m", "return_5m", "volatility", "imbalance", "depth", "age_seconds", "hour"),
    "notional",
]
#: Columns with values of several orders of magnitude, and those that are missing now and then.
SKEWED, WITH_GAPS = ["volume", "depth", "notional"], ["return_5m", "volatility", "depth"]
#: Rows to train on, and trees of each boosting and forest.
TRAIN_ROWS, TREES = 4_000, 100


def quotes(rows: int = TRAIN_ROWS, seed: int = 0) -> pd.DataFrame:
    """Rows of `TEXTS` and `NUMBERS`; a sector and some numbers are missing now and then."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "symbol": rng.choice([f"SYM{i:02}" for i in range(30)], rows, p=_falling(30)),
            "venue": rng.choice(["BATS", "CBOE", "EBS", "LMAX", "XLON"], rows),
            "sector": rng.choice(["energy", "financials", "health", "industrials", "technology", None], rows),
            "spread": rng.integers(1, 40, rows) * 1e-4,
            "volume": rng.lognormal(8, 2, rows).round(),
            "return_1m": rng.normal(0, 1e-3, rows),
            "return_5m": rng.normal(0, 2e-3, rows),
            "volatility": rng.gamma(2, 0.1, rows),
            "imbalance": rng.uniform(-1, 1, rows),
            "depth": rng.lognormal(5, 1.5, rows),
            "age_seconds": rng.exponential(30, rows),
            "hour": rng.integers(0, 24, rows).astype(float),
            "notional": rng.lognormal(11, 2.5, rows),
        }
    )
    for name in WITH_GAPS:
        frame.loc[rng.random(rows) < 0.05, name] = np.nan
    return frame


def moves(frame: pd.DataFrame, seed: int = 1) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Labels 0 (down), 1 (no move) and 2 (up) of rows, of shape (n_rows,)."""
    rng = np.random.default_rng(seed)
    drift = frame["imbalance"] + 400 * frame["return_1m"] + 0.6 * (frame["sector"] == "energy")
    drift += 0.5 * (frame["venue"] == "LMAX") - 0.4 * frame["symbol"].isin(["SYM00", "SYM03", "SYM07"])
    return np.digitize(drift + rng.normal(0, 0.5, len(frame)), [-0.4, 0.4])


def pipelines() -> dict[str, Callable[[], Any]]:
    """Name to what makes the pipeline, unfitted; a name that begins with "numbers" takes no text.

    LogisticRegression is not put behind ordinal codes, nor HistGradientBoosting behind a sparse matrix, which it
    refuses.
    """
    ways: dict[str, tuple[Callable[[], Any], tuple[str, ...]]] = {
        "one-hot": (_one_hot, ("LR", "RF", "LightGBM", "XGBoost", "HistGB")),
        "one-hot, sparse and infrequent": (_sparse, ("LR", "RF", "LightGBM", "XGBoost")),
        "ordinal": (_ordinal, ("RF", "LightGBM", "XGBoost", "HistGB")),
        "target": (_target, ("LR", "RF", "LightGBM", "XGBoost", "HistGB")),
        "numbers, indicators": (_indicators, ("LR", "RF", "LightGBM", "XGBoost", "HistGB")),
        "numbers, logarithms": (_logarithms, ("LR", "RF", "LightGBM", "XGBoost", "HistGB")),
    }
    return {f"{way}, {name}": partial(_behind, make, name) for way, (make, names) in ways.items() for name in names}


def features(name: str) -> list[str]:
    """The columns that a pipeline takes, by its name."""
    return list(NUMBERS) if name.startswith("numbers") else [*TEXTS, *NUMBERS]


def fitted(name: str, rows: int = TRAIN_ROWS) -> tuple[Any, pd.DataFrame]:
    """A fitted pipeline, and the rows that it was fitted on."""
    from threadpoolctl import threadpool_limits

    frame = quotes(rows)
    X = frame[features(name)]
    with threadpool_limits(1):  # on a busy machine the threads of HistGradientBoosting wait for each other
        return pipelines()[name]().fit(X, moves(frame)), X


def _behind(make: Callable[[], Any], name: str) -> Any:
    from sklearn.pipeline import Pipeline

    return Pipeline([("prepare", make()), ("classify", _classifiers()[name]())])


def _classifiers() -> dict[str, Callable[[], Any]]:
    from lightgbm import LGBMClassifier
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from xgboost import XGBClassifier

    return {
        "LR": lambda: LogisticRegression(max_iter=1000),
        "RF": lambda: RandomForestClassifier(TREES, min_samples_leaf=5, random_state=0),
        "LightGBM": lambda: LGBMClassifier(n_estimators=TREES, random_state=0, n_jobs=1, verbose=-1),
        "XGBoost": lambda: XGBClassifier(n_estimators=TREES, random_state=0, n_jobs=1),
        "HistGB": lambda: HistGradientBoostingClassifier(max_iter=TREES, random_state=0),
    }


def _one_hot() -> Any:
    """Dense one-hot columns beside imputed and standardized numbers."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    texts = make_pipeline(
        SimpleImputer(strategy="constant", fill_value="unknown"),
        OneHotEncoder(handle_unknown="ignore", sparse_output=False),
    )
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer([("texts", texts, TEXTS), ("numbers", numbers, NUMBERS)])


def _sparse() -> Any:
    """A sparse matrix, rare symbols under one column, and numbers by the type of their column."""
    from sklearn.compose import ColumnTransformer, make_column_selector
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import MinMaxScaler, OneHotEncoder

    encoder = OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=100)
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), encoder)
    numbers = make_pipeline(SimpleImputer(), MinMaxScaler())
    return ColumnTransformer(
        [
            ("texts", texts, make_column_selector(dtype_exclude="number")),
            ("numbers", numbers, make_column_selector(dtype_include="number")),
        ],
        sparse_threshold=1.0,
    )


def _ordinal() -> Any:
    """Codes for text, and imputed numbers as they are: `remainder="passthrough"` and no scaling."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.preprocessing import OrdinalEncoder

    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2)
    imputer = SimpleImputer(strategy="median")
    return ColumnTransformer([("texts", encoder, TEXTS), ("gaps", imputer, WITH_GAPS)], remainder="passthrough")


def _target() -> Any:
    """Text by what it tells of the label, and numbers on the scale of their quartiles."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import RobustScaler, TargetEncoder

    numbers = make_pipeline(SimpleImputer(), RobustScaler())
    return make_column_transformer((TargetEncoder(random_state=0), TEXTS), (numbers, NUMBERS))


def _indicators() -> Any:
    """Imputed numbers and a column for each that has gaps, standardized together."""
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(SimpleImputer(strategy="mean", add_indicator=True), StandardScaler())


def _logarithms() -> Any:
    """Logarithms of what is skewed, and the others standardized."""
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    skewed = make_pipeline(SimpleImputer(strategy="median"), FunctionTransformer(np.log1p), StandardScaler())
    others = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    return ColumnTransformer(
        [("skewed", skewed, SKEWED), ("others", others, [name for name in NUMBERS if name not in SKEWED])]
    )


def _falling(n: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Frequencies that fall like 1/rank, as those of symbols do."""
    weights = 1 / np.arange(1, n + 1)
    weights /= weights.sum()
    return weights
