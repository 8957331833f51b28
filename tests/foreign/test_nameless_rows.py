"""Models whose columns have no names: a row is a list in training order, and no key is ever matched by its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.models import infer_signature
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import Row
from tests.foreign.conftest import Open

RANDOM = np.random.default_rng(0)
X = np.column_stack([RANDOM.normal(size=120), RANDOM.integers(0, 24, 120)])
Y = (X[:, 0] + 0.1 * X[:, 1] > 1).astype(int)
PICKLED = {"serialization_format": "cloudpickle", "pip_requirements": ["scikit-learn"]}
ROW = {"imb": -0.4, "hour": 3}


def saved(folder: Path, estimator: Any, **more: Any) -> Path:
    mlflow.sklearn.save_model(estimator, folder / "m", **PICKLED, **more)
    return folder / "m"


@pytest.mark.parametrize("signature", [None, infer_signature(X)], ids=["unsigned", "tensor"])
def test_keys_are_never_matched_by_their_place(opened: Open, tmp_path: Path, signature: Any) -> None:
    estimator = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    model = opened(saved(tmp_path, estimator, signature=signature)).model
    refused: list[Any] = [ROW, dict(reversed(ROW.items())), {"foo": -0.4, "bar": 3}, {"0": 1.0}, {**ROW, "0": 1.0}, {}]
    for row in refused:
        with pytest.raises(FeatureError, match="list of its 2 values in training order"):
            model.decide([row])
        with pytest.raises(FeatureError, match="in row 1:"):
            model.decide([[0.1, 2], row])
    for listed in ([0.1], [0.1, 2, 3]):
        with pytest.raises(FeatureError, match="another number of values than 2"):
            model.decide([listed])
    with pytest.raises(FeatureError, match="'imb' is unknown to this model"):
        model.predict(pd.DataFrame([ROW]))


@pytest.mark.parametrize("signature", [None, infer_signature(X)], ids=["unsigned", "tensor"])
def test_lists_in_training_order_are_answered_as_the_estimator_does(
    opened: Open, tmp_path: Path, signature: Any
) -> None:
    estimator = LogisticRegression().fit(X, Y)
    model = opened(saved(tmp_path, estimator, signature=signature)).model
    listed: list[Row] = X[:20].tolist()
    np.testing.assert_array_equal(model.decide(listed).scores.probabilities, estimator.predict_proba(X[:20]))
    for i, row in enumerate(listed[:3]):
        np.testing.assert_array_equal(model.decide([row]).scores.probabilities, estimator.predict_proba(X[i : i + 1]))
        assert model.decide([{"1": row[1], "0": row[0]}]).one() == model.decide([row]).one()
    frame = pd.DataFrame(X[:20])
    assert model.predict(frame)["prediction"].tolist() == estimator.predict(X[:20]).tolist()


def test_a_null_is_refused_by_name_or_answered_as_the_estimator_does(opened: Open, tmp_path: Path) -> None:
    strict = opened(saved(tmp_path / "strict", LogisticRegression().fit(X, Y))).model
    for row in ([None, 3], {"0": None, "1": 3}):
        with pytest.raises(FeatureError) as refused:
            strict.decide([row])
        assert [(p.row, p.feature) for p in refused.value.problems] == [(0, "0")]
    with pytest.raises(FeatureError) as refused:
        strict.decide([[0.5, 3], [0.5, None], [None, None]])
    assert [(p.row, p.feature) for p in refused.value.problems] == [(1, "1"), (2, "0"), (2, "1")]
    gaps = np.where(RANDOM.random(X.shape) < 0.1, np.nan, X)
    lenient = HistGradientBoostingClassifier(max_iter=5, min_samples_leaf=5).fit(gaps, Y)
    model = opened(saved(tmp_path / "lenient", lenient)).model
    expected = lenient.predict_proba(np.array([[np.nan, 3.0]]))
    np.testing.assert_array_equal(model.decide([[None, 3]]).scores.probabilities, expected)


def test_one_feature_takes_any_key(opened: Open, tmp_path: Path) -> None:
    model = opened(saved(tmp_path, LogisticRegression().fit(X[:, :1], Y))).model
    assert model.decide([{"imbalance": 0.5}]).one() == model.decide([[0.5]]).one()
    with pytest.raises(FeatureError):
        model.decide([ROW])


def test_a_list_is_refused_where_features_have_names(opened: Open, tmp_path: Path) -> None:
    frame = pd.DataFrame(X, columns=["imb", "hour"])
    model = opened(saved(tmp_path, LogisticRegression().fit(frame, Y))).model
    with pytest.raises(FeatureError, match="knows its features by name: send an object"):
        model.decide([[0.1, 2.0]])
    assert model.decide([ROW]).one() == model.decide([dict(reversed(ROW.items()))]).one()
