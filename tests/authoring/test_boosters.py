"""What LightGBM and XGBoost are trained with that a skops file cannot carry is said truly, with what works instead."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.authoring.checks import assert_same_answers, refused, saved
from tests.authoring.estimators import lightgbm, of, why_no_lightgbm, xgboost
from tests.models import bars, labels


@pytest.mark.skipif(bool(why_no_lightgbm()), reason=str(why_no_lightgbm()))
def test_linear_trees_are_told_from_a_damaged_file_and_work_as_a_pickle(tmp_path: Path) -> None:
    fitted = of(lambda: lightgbm(linear_tree=True))()
    said = refused(fitted.estimator, fitted.train, "linear trees.*serialization='cloudpickle'", tmp_path)
    assert "linear_tree=False" in said
    assert "no library writes" not in said
    model = saved(fitted, tmp_path, serialization="cloudpickle")
    assert_same_answers(model, fitted)
    assert model.manifest is not None
    assert set(model.manifest.dropped.values()) == {"its leaves are linear models"}


@pytest.mark.parametrize("objective", ["count:poisson", "reg:squarederror"])
def test_an_objective_that_predicts_a_number_is_named(objective: str, tmp_path: Path) -> None:
    estimator = xgboost(objective=objective).fit(bars(), labels(0, 1))
    said = refused(estimator, bars(), f"{objective}.*predicts a number.*binary:logistic.*multi:softprob", tmp_path)
    assert "no library writes" not in said
