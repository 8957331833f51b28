"""Boosting that takes categories itself, alone and behind other steps, is compiled and answers as its library does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

import fin_pyfunc

MAKE: dict[str, Callable[[], Any]] = {
    "HistGradientBoosting": lambda: HistGradientBoostingClassifier(max_iter=20, categorical_features="from_dtype"),
    "LightGBM": lambda: LGBMClassifier(n_estimators=20, min_child_samples=5, verbose=-1),
    "XGBoost": lambda: XGBClassifier(n_estimators=20, enable_categorical=True),
    "XGBoost, partitions": lambda: XGBClassifier(n_estimators=20, enable_categorical=True, max_cat_to_onehot=1),
}
CATEGORIES: dict[str, list[Any]] = {
    "text": ["zeta", "alpha", "mid", "10", "9"],
    "numbers": [30, 10, 20, 5],
    "floats": [0.5, -1.5, 2.0],
}


def table(kind: str, n: int = 600) -> tuple[pd.DataFrame, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(3)
    known = CATEGORIES[kind]
    code = rng.integers(0, len(known), n)
    frame = pd.DataFrame({"a": rng.normal(size=n), "b": rng.normal(size=n)})
    # in an order that is not the sorted one
    frame.insert(1, "venue", pd.Categorical([known[i] for i in code], categories=known))
    frame.loc[::17, "venue"] = np.nan
    frame.loc[::13, "a"] = np.nan
    y = (np.nan_to_num(frame["a"].to_numpy()) + (code == 1) - (code == 2) + rng.normal(0, 0.3, n) > 0).astype(int)
    return frame, y


@pytest.mark.parametrize("behind", [False, True], ids=["alone", "behind a ColumnTransformer"])
@pytest.mark.parametrize("kind", CATEGORIES)
@pytest.mark.parametrize("library", MAKE)
def test_categories_are_compiled_as_the_library_splits_on_them(
    library: str, kind: str, behind: bool, tmp_path: Path
) -> None:
    X, y = table(kind)
    estimator = MAKE[library]()
    if behind:
        scaled = ColumnTransformer([("numbers", StandardScaler(), ["b", "a"])], remainder="passthrough")
        estimator = make_pipeline(scaled.set_output(transform="pandas"), estimator)
    if library.startswith("XGBoost") and kind == "floats":
        pytest.skip("XGBoost takes categories of text and of whole numbers")
    estimator.fit(X, y)
    fin_pyfunc.save_model(estimator, X, tmp_path / "model")
    model = fin_pyfunc.load_model(str(tmp_path / "model"))
    assert [backend.name for backend in model.dispatch.backends] == ["program", "native"]
    np.testing.assert_array_equal(model.predict_proba(X), estimator.predict_proba(X))
    one = model.predict_one({"a": None, "b": 0.25, "venue": CATEGORIES[kind][2]})
    frame = pd.DataFrame(
        {"a": [np.nan], "venue": pd.Categorical([CATEGORIES[kind][2]], X["venue"].cat.categories), "b": [0.25]}
    )
    assert list(one["probabilities"].values()) == estimator.predict_proba(frame)[0].tolist()
