"""Columns of any dtype that pandas has come back to the estimator as it was trained on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import infer
from tests.authoring.checks import as_rows, assert_same_answers, saved
from tests.authoring.estimators import linear
from tests.models import Fitted, bars, bars_with_gaps, fit, labels, quotes

GRADES = ["BBB", "A", "AA", "AAA"]


def graded(ordered: bool = True) -> pd.DataFrame:
    codes = np.arange(len(bars())) % 4
    grade = pd.Categorical.from_codes(codes, GRADES, ordered=ordered)
    return bars()[["return_1", "order_flow_imbalance"]].assign(grade=grade)


class Compares:
    """A rule of a desk's own that asks the order of a category."""

    def predict(self, X: pd.DataFrame) -> Any:
        return np.where(X["grade"] >= "AA", "buy", "sell")


def test_an_ordered_category_comes_back_ordered(tmp_path: Path) -> None:
    fitted = Fitted(Compares(), graded(), graded())
    options: dict[str, Any] = {"serialization": "cloudpickle", "classes": ["buy", "sell"], "backend": "native"}
    model = saved(fitted, tmp_path, **options)
    expected = ["buy" if grade in ("AA", "AAA") else "sell" for grade in graded()["grade"]]
    assert model.predict(graded())["prediction"].tolist() == expected
    assert model.decide(as_rows(graded())).predictions == expected
    assert model.predict(graded().astype({"grade": object}))["prediction"].tolist() == expected
    assert model.features is not None
    table: Any = model.features.table(as_rows(graded()))
    assert table["grade"].dtype == graded()["grade"].dtype


def test_an_unordered_category_stays_unordered_and_a_manifest_says_nothing_of_it() -> None:
    features = infer(graded(ordered=False))
    assert not features.features[2].ordered
    assert b"ordered" not in msgspec.json.encode(features)


def sparse(of: pd.DataFrame, dtype: str, fill: Any, *names: str) -> pd.DataFrame:
    return of.astype(dict.fromkeys(names or of.columns, pd.SparseDtype(dtype, fill)))


def dummies(**options: Any) -> pd.DataFrame:
    return bars()[["return_1"]].join(pd.get_dummies(quotes()["venue"], sparse=True, **options))


SPARSE: dict[str, Callable[[], pd.DataFrame]] = {
    "numbers": lambda: sparse(bars(), "float64", np.nan, "spread"),
    "numbers, mostly 0": lambda: sparse(bars().round(4), "float64", 0.0, "spread", "return_1"),
    "numbers, mostly another": lambda: sparse(bars(), "float64", -1.5e-05, "spread"),
    "numbers with gaps": lambda: sparse(bars_with_gaps(), "float64", np.nan, "spread", "return_1"),
    "float32": lambda: sparse(bars().astype("float32"), "float32", 0.0, "spread"),
    "every column": lambda: sparse(bars(), "float64", 0.0),
    "booleans": dummies,
    "bytes": lambda: dummies(dtype="uint8"),
    "integers": lambda: bars()[["return_1"]].assign(n=pd.arrays.SparseArray(np.arange(200) % 3, fill_value=2)),
}  # fmt: skip


@pytest.mark.parametrize("case", SPARSE)
def test_sparse_columns_come_back_sparse(case: str) -> None:
    frame = SPARSE[case]()
    features = infer(frame)
    for table in (features.table(as_rows(frame)), features.check(frame)):
        pd.testing.assert_frame_equal(features.restore(table), frame)


@pytest.mark.parametrize("case", ["numbers, mostly 0", "numbers with gaps", "booleans"])
def test_an_estimator_of_sparse_columns_answers_as_before(case: str, tmp_path: Path) -> None:
    fitted = fit(make_pipeline(SimpleImputer(), linear()), SPARSE[case](), labels(0, 1))
    assert_same_answers(saved(fitted, tmp_path, backend="native"), fitted)


@pytest.mark.parametrize(
    "dtype",
    [
        "Sparse[float64, file]", "Sparse[object, 0]", "Sparse[str, 0]", "Sparse[float64, 1e999x]", "Sparse[, 0]",
        "Sparse[datetime64, 0]",
    ],
)  # fmt: skip
def test_a_sparse_dtype_that_holds_no_number_is_refused(dtype: str) -> None:
    with pytest.raises(ValueError, match="none that holds a number"):
        Feature(name="x", kind="number", dtype=dtype)
