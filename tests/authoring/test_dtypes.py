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


def imputed() -> Any:
    return make_pipeline(SimpleImputer(), linear())


def dummies(**options: Any) -> pd.DataFrame:
    return bars()[["return_1"]].join(pd.get_dummies(quotes()["venue"], sparse=True, **options))


SPARSE: dict[str, tuple[Callable[[], pd.DataFrame], Callable[[], Any]]] = {
    "numbers": (lambda: sparse(bars(), "float64", np.nan, "spread"), linear),
    "numbers, mostly 0": (lambda: sparse(bars().round(4), "float64", 0.0, "spread", "return_1"), linear),
    "numbers, mostly another": (lambda: sparse(bars(), "float64", -1.5e-05, "spread"), linear),
    "numbers with gaps": (lambda: sparse(bars_with_gaps(), "float64", np.nan, "spread", "return_1"), imputed),
    "float32": (lambda: sparse(bars().astype("float32"), "float32", 0.0, "spread"), linear),
    "every column": (lambda: sparse(bars(), "float64", 0.0), linear),
    "booleans": (dummies, linear),
    "bytes": (lambda: dummies(dtype="uint8"), linear),
    "integers": (
        lambda: bars()[["return_1"]].assign(n=pd.arrays.SparseArray(np.arange(200) % 3, fill_value=2)), linear,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPARSE)
def test_sparse_columns_come_back_sparse(case: str, tmp_path: Path) -> None:
    make, estimator = SPARSE[case]
    fitted = fit(estimator(), make(), labels(0, 1))
    model = saved(fitted, tmp_path, backend="native")
    dense = fitted.held_out.sparse.to_dense() if case == "every column" else fitted.held_out
    assert_same_answers(model, fitted)
    assert model.predict(dense).equals(model.predict(fitted.held_out))
    assert model.features is not None
    restored = model.features.restore(model.features.table(as_rows(fitted.held_out)))
    assert restored.dtypes.to_dict() == fitted.held_out.dtypes.to_dict()


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
