"""A model of text and categories whose compiled form computes with their codes, and the same model without codes.

An OrdinalEncoder gives a known text the code that its feature has, and any other the next one, so that the forest
behind it, compiled by itself, computes with codes.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd

import fin_pyfunc
from fin_pyfunc.authoring import compile_child
from fin_pyfunc.compiling import forms
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec
from tests.models import Fitted, labels, quotes

#: A row of each kind: known text, text that no encoder knows, nulls.
ROWS: list[dict[str, Any]] = [
    {"venue": "EBS", "broker": "a", "session": 2, "hour": 3, "is_month_end": True, "return_1": 1e-4},
    {"venue": "a:b", "broker": None, "session": 1, "hour": 23, "is_month_end": False, "return_1": None},
    {"venue": "LMAX", "broker": "elsewhere", "session": None, "hour": 0, "is_month_end": False, "return_1": -2e-4},
    {"venue": "nowhere", "broker": "elsewhere", "session": 1, "hour": 7, "is_month_end": True, "return_1": 0.0},
]


@cache
def desk() -> Fitted:
    """Text, a category of integers, an integer, a boolean and a number, with nulls."""
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OrdinalEncoder

    rng, n = np.random.default_rng(5), len(quotes())
    frame = pd.DataFrame(
        {
            "venue": rng.choice(["EBS", "LMAX", "a:b"], n),
            "broker": pd.Series(rng.choice(["a", "b", None], n), dtype=object).replace({None: np.nan}),
            "session": pd.Categorical(rng.choice([1, 2, None], n), categories=[1, 2, 3]),
            "hour": quotes()["hour"],
            "is_month_end": quotes()["is_month_end"],
            "return_1": quotes()["return_1"].where(rng.random(n) > 0.1),
        }
    )

    def ordinal(*categories: Any) -> Any:
        known = np.array(categories, dtype=object)
        return OrdinalEncoder(categories=[known], handle_unknown="use_encoded_value", unknown_value=len(known))

    encode = ColumnTransformer(
        [
            ("venue", ordinal("EBS", "LMAX", "a:b"), ["venue"]),
            ("broker", ordinal("a", "b", np.nan), ["broker"]),
            ("session", ordinal(1, 2, 3, np.nan), ["session"]),
        ],
        remainder="passthrough",
    )
    estimator = make_pipeline(encode, RandomForestClassifier(10, max_depth=4, random_state=0))
    y = labels(-1, 0, 1)
    return Fitted(estimator.fit(frame.iloc[:160], y[:160]), frame.iloc[:160], frame.iloc[160:])


class _Compilation:
    """Compiles the forest behind the encoders, in this process."""

    def __init__(self, file: Path, serialization: str, spec: FeatureSpec, classes: Any, *_: Any) -> None:
        self._given = spec, classes, file.parent

    def __enter__(self) -> _Compilation:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def result(self) -> forms.Compiled:
        return compiled(*self._given)


def compiled(spec: FeatureSpec, classes: Any, folder: Path) -> forms.Compiled:
    """The forest behind the encoders, which computes with codes."""
    numbers = [Feature(name=f.name, kind="number", dtype="float64", nullable=f.nullable) for f in spec.features]
    forest, of_numbers = desk().estimator.steps[-1][1], FeatureSpec(features=numbers)
    return forms.compile_estimator(forest, of_numbers, classes, folder, backends=["onnx"])


def save(path: Path, **options: Any) -> None:
    """Save the model with a form that computes with codes."""
    coded = frozenset({"onnx"})
    with mock.patch.object(forms, "CODED", coded), mock.patch.object(compile_child, "Compilation", _Compilation):
        fin_pyfunc.save_model(desk().estimator, desk().train, path, **options)
