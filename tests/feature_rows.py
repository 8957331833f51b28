"""A frame with a feature of each kind, rows for it, and both ways of reading them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import FeatureSpec, infer

TRAINING = pd.DataFrame(
    {
        "price": [1.0, 1.5, 2.0],
        "gap": [0.5, np.nan, 1.5],
        "narrow": np.array([0.5, 1.5, 2.5], dtype="float32"),
        "hour": [1, 2, 3],
        "side": np.array([-1, 0, 1], dtype="int8"),
        "lots": pd.array([1, None, 3], dtype="Int64"),
        "open": [True, False, True],
        "halted": pd.array([True, None, False], dtype="boolean"),
        "venue": ["EBS", "LMAX", "Cboe"],
        "broker": pd.Series(["a", None, "b"], dtype=object),
        "desk": pd.Series(["a", np.nan, "b"], dtype=object),
        "region": pd.Categorical(["EU", "US", "EU"]),
        "session": pd.Categorical([1, 2, None], categories=[1, 2, 3]),
    }
)
ROW: dict[str, Any] = {
    "price": 1.25,
    "gap": None,
    "narrow": 0.25,
    "hour": 3,
    "side": -1,
    "lots": None,
    "open": True,
    "halted": None,
    "venue": "EBS",
    "broker": None,
    "desk": None,
    "region": "US",
    "session": None,
}
NUMBERS = ["price", "gap", "narrow", "hour", "side", "lots", "open", "halted"]


def spec(*names: str, **options: Any) -> FeatureSpec:
    return infer(TRAINING[list(names) or list(TRAINING.columns)], **options)


def frame_of(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Rows as a table that keeps every value as it is."""
    return pd.DataFrame(rows, dtype=object)


def found(error: FeatureError) -> list[tuple[int, str, str]]:
    # a table's NaN and a row's null are both a missing value
    return [(p.row, p.feature, "null" if p.problem == "NaN" else p.problem) for p in error.problems]


def outcome(read: Any, data: Any) -> Any:
    try:
        return read(data)
    except FeatureError as error:
        return (found(error), error.total, error.rows)


def refusal(features: FeatureSpec, row: dict[str, Any]) -> str:
    """The one problem of a row, which a table of that row has too."""
    with pytest.raises(FeatureError) as of_rows:
        features.table([row])
    with pytest.raises(FeatureError) as of_table:
        features.check(frame_of([row]))
    assert found(of_rows.value) == found(of_table.value)
    [problem] = of_rows.value.problems
    assert problem.row == 0
    assert problem.feature in str(of_rows.value)
    return f"{problem.feature}: {problem.problem}"


def same_table(a: Any, b: Any) -> None:
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    else:
        np.testing.assert_array_equal(a, b)
