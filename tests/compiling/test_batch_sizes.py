"""A row's scores do not depend on the rows beside it: to the last bit in graphs of our own, else within the band."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fin_pyfunc.model.form import LEAST_BAND
from tests.compiling.checks import compiled, matrix, odd_rows
from tests.compiling.test_families import FAMILIES

#: Graphs that consist of nothing but our own nodes, or of sums and products beside them.
OWN = (
    "forest", "gradient boosting", "gradient boosting, two classes", "hist gradient boosting", "ada boost", "lightgbm",
    "lightgbm, two classes", "lightgbm, one against the rest", "xgboost", "logistic regression",
    "logistic regression, two classes", "scaled lightgbm", "scaled logistic regression", "principal components",
)  # fmt: skip


@pytest.mark.parametrize("family", [*OWN, "naive bayes", "scaled network", "quadratic discriminants", "voting"])
def test_a_row_has_one_answer_in_a_batch_of_any_size(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family][0]()
    made = compiled(model, tmp_path, backends=("onnx",))
    run = made.open(made.form("onnx")).run
    rows = np.vstack([matrix(model.held_out, made.spec), odd_rows(made, model.held_out)[40:120]])
    alone = np.vstack([run(rows[i : i + 1]) for i in range(len(rows))])
    for size in (2, 3, 5, 8, 17, len(rows)):
        among = np.vstack([run(rows[i : i + size]) for i in range(0, len(rows), size)])
        if family in OWN:
            np.testing.assert_array_equal(among, alone)
        else:
            np.testing.assert_allclose(among, alone, rtol=0, atol=LEAST_BAND)
