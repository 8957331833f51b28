"""A logged Pipeline over text is answered by its program, as its estimator answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

import fin_pyfunc
from fin_pyfunc.model.errors import FeatureError

pytestmark = pytest.mark.filterwarnings("ignore")


def _fitted() -> tuple[Any, pd.DataFrame]:
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(400, 2)), columns=["spread", "size"])
    X.loc[::7, "size"] = np.nan
    X["venue"] = rng.choice(["EBS", "LMAX", "", None], 400)
    X["side"] = rng.choice(["buy", "sell"], 400)
    X["desk"] = pd.Categorical(rng.choice(["fx", "rates"], 400), categories=["rates", "fx", "credit"])
    X["weekday"] = rng.integers(0, 5, 400)
    y = X["spread"] + (X["venue"] == "EBS") + (X["side"] == "buy") > 0.5
    filled = SimpleImputer(strategy="constant", fill_value="none")
    steps = ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(add_indicator=True), StandardScaler()), ["size", "spread"]),
            ("venue", make_pipeline(filled, OneHotEncoder(handle_unknown="ignore")), ["venue"]),
            ("strict", OneHotEncoder(drop="first"), ["side", "weekday"]),
            ("others", OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), ["desk"]),
        ]
    )
    return make_pipeline(steps, LGBMClassifier(n_estimators=10, verbose=-1)).fit(X, y), X


def test_a_pipeline_over_text_is_logged_with_a_program_that_answers_as_it_does(tmp_path: Path) -> None:
    fitted, X = _fitted()
    fin_pyfunc.save_model(fitted, X, tmp_path / "model")
    model, native = (fin_pyfunc.load_model(str(tmp_path / "model"), backend=of) for of in (None, "native"))
    assert model.manifest is not None
    assert [form.backend for form in model.manifest.forms] == ["program"]
    assert model.manifest.forms[0].error == 0
    row = X.iloc[0].to_dict() | {"weekday": 3}
    rows = [
        row, row | {"venue": None}, row | {"venue": "none"}, row | {"venue": "a new one"}, row | {"venue": "ebs"},
        row | {"size": None}, row | {"desk": "credit"}, row | {"spread": 1e300},
    ]  # fmt: skip
    whole, alone = model.decide(rows), [model.decide([row]) for row in rows]
    own = native.decide(rows)
    assert whole.predictions == own.predictions == [one.predictions[0] for one in alone]
    np.testing.assert_array_equal(whole.scores.probabilities, own.scores.probabilities)
    np.testing.assert_array_equal(np.vstack([one.scores.probabilities for one in alone]), own.scores.probabilities)
    for unknown in ({"side": "short"}, {"weekday": 6}):
        with pytest.raises(FeatureError, match="the model's encoder knows"):
            model.decide([row | unknown])
