"""An estimator that was fitted without names: whether X's columns are in its order is compared, or warned of."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fin_pyfunc
from tests import models
from tests.authoring.checks import assert_same_answers, refused, saved
from tests.authoring.estimators import random_forest, sk
from tests.models import Fitted, bars, fit, fit_array, labels

Y = labels(-1, 0, 1)[:160]


@cache
def nameless() -> Fitted:
    return fit_array(random_forest(), labels(-1, 0, 1))


def swapped() -> pd.DataFrame:
    """The training rows with two columns in each other's place."""
    frame = nameless().train
    names = list(frame.columns)
    names[2], names[4] = names[4], names[2]
    return frame[names]


def predictions() -> Any:
    return nameless().estimator.predict(nameless().train.to_numpy())


def test_an_estimator_without_names_is_logged_with_a_warning_of_the_order(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved(nameless(), tmp_path / "warned", backend="native")
    [warning] = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert "RandomForestClassifier was fitted without feature names" in warning
    assert "(bidPrice, askPrice, spread, return_1, order_flow_imbalance)" in warning
    assert "pass predictions=" in warning
    caplog.clear()
    saved(models.small_forest(), tmp_path / "named", backend="native")
    saved(nameless(), tmp_path / "compared", predictions=predictions(), y=Y, backend="native")
    assert "feature names" not in caplog.text


def test_columns_in_another_order_are_found_by_the_estimators_own_predictions(tmp_path: Path) -> None:
    says = r"otherwise than predictions on \d+ of 160 rows: pass X with its columns in the order of training"
    refused(nameless().estimator, swapped(), says, tmp_path, predictions=predictions())
    refused(nameless().estimator, swapped(), says, tmp_path, predictions=pd.Series(predictions()))


def test_columns_in_another_order_are_found_by_labels(tmp_path: Path) -> None:
    says = "more often where 'order_flow_imbalance' and 'spread' are exchanged: pass X with its columns in the order of"
    refused(nameless().estimator, swapped(), says, tmp_path, y=Y)
    turned = swapped()[list(reversed(swapped().columns))]
    refused(nameless().estimator, turned, "pass X with its columns in the order of training", tmp_path, y=Y)


def test_labels_that_the_estimator_agrees_with_by_chance_alone_are_refused(tmp_path: Path) -> None:
    says = (
        r"agrees with y on \d+\.\d% of the rows, and would on \d+\.\d% by chance: .* leave y out if the model is that"
    )
    others = np.random.default_rng(1).permutation(Y)
    refused(models.small_forest().estimator, models.small_forest().train, says, tmp_path, y=others)


def test_labels_that_are_all_the_same_say_nothing(tmp_path: Path) -> None:
    saved(models.small_forest(), tmp_path, y=np.zeros(160, dtype=int), backend="native")


def test_labels_and_predictions_may_be_the_codes_that_classes_rename(tmp_path: Path) -> None:
    fitted = fit(sk("ensemble.ExtraTreesClassifier", n_estimators=5, random_state=0)(), bars(), labels(0, 1, 2))
    for i, given in enumerate((fitted.estimator.predict(fitted.train), np.array(labels(-1, 0, 1)[:160]))):
        model = saved(fitted, tmp_path / str(i), classes=[-1, 0, 1], predictions=given, y=given, backend="native")
        assert_same_answers(model, fitted, classes=[-1, 0, 1])


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "too few labels": ({"y": [0, 1]}, "y has 2 labels, but X has 160 rows: pass one a row"),
    "other labels": ({"y": ["up"] * 160}, "y holds a label that is none of the classes"),
    "missing labels": ({"predictions": [None] * 160}, "predictions holds a label that is none of the classes"),
    "probabilities": ({"predictions": np.full((160, 3), 0.3)}, "predictions has 480 labels, but X has 160 rows"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_no_label_a_row_is_refused(case: str, tmp_path: Path) -> None:
    options, says = WRONG[case]
    refused(nameless().estimator, nameless().train, says, tmp_path, **options)


def test_a_sample_larger_than_what_is_compared_has_its_labels_beside_its_rows(tmp_path: Path) -> None:
    frame = pd.concat([nameless().train] * 8, ignore_index=True).sample(frac=1, random_state=0)
    known = nameless().estimator.predict(frame.to_numpy())
    fin_pyfunc.save_model(
        nameless().estimator, frame, tmp_path / "m", predictions=known, y=known, input_example=None, backend="native"
    )
