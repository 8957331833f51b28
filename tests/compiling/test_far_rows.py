"""Numbers so far out that the estimator may refuse what it makes of them are for it to answer, or to refuse."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fin_pyfunc.model.errors import FeatureError, ScoringError
from tests.authoring.checks import saved
from tests.authoring.estimators import linear, of, piped, random_forest
from tests.compiling.checks import compiled, matrix
from tests.models import bars


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("n_rows", [1, 5])
def test_a_forest_behind_a_scaler_refuses_what_is_too_large_for_float32_compiled_too(
    n_rows: int, tmp_path: Path
) -> None:
    model = of(piped(random_forest))()
    made = compiled(model, tmp_path)
    backend = made.open(made.form("program"))
    rows = matrix(model.held_out, made.spec)[:n_rows]
    rows[0, 2] = 3e38  # scaled, it is more than float32 holds
    with pytest.raises(ScoringError):
        made.native.score(rows)
    with pytest.raises(ScoringError):
        backend.score(rows)
    assert backend.score_alone(rows) is None


@pytest.mark.filterwarnings("ignore")
def test_far_out_and_close_rows_in_one_batch_are_answered_as_by_the_estimator(tmp_path: Path) -> None:
    model = of(piped(linear), frame=lambda: bars() * 1e20)()
    made = compiled(model, tmp_path)
    rows = matrix(model.train, made.spec)
    np.testing.assert_array_equal(made.open(made.form("program")).score(rows).index, made.native.score(rows).index)


@pytest.mark.filterwarnings("ignore")
def test_a_forest_of_nullable_numbers_names_the_feature_that_float32_does_not_hold(tmp_path: Path) -> None:
    model = of(random_forest, frame=lambda: bars().astype("Float64"))()
    served = saved(model, tmp_path)
    row = {name: float(value) for name, value in model.held_out.iloc[0].items()} | {"spread": 1e39}
    with pytest.raises(FeatureError, match="'spread' is infinite or too large for float32"):
        served.predict_one(row)
