"""A DataFrame that crosses to a model host is the same one there."""

from __future__ import annotations

import decimal
import math
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.host.frames import decode_frame, encode_frame
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec


def assert_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True, check_column_type="exact", check_index_type="exact")
    for i in range(one.shape[1]):
        a, b = one.iloc[:, i], other.iloc[:, i]
        assert repr(a.dtype) == repr(b.dtype)
        if a.dtype == object:  # pandas holds None and NaN, and 1 and True, to be equal
            assert [(type(x), repr(x)) for x in a] == [(type(x), repr(x)) for x in b]


def crossed(frame: pd.DataFrame) -> pd.DataFrame:
    return decode_frame(encode_frame(frame))


NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=5)
KINDS: dict[str, list[str]] = {
    "number": ["float64", "float32", "Float64", "double[pyarrow]"],
    "integer": ["int64", "int8", "uint16", "Int64", "Int32", "int64[pyarrow]"],
    "boolean": ["bool", "boolean"],
    "string": ["object", "str", "string", "string[python]", "string[pyarrow]"],
    "category": ["category"],
    "any": ["object"],
}
NULLABLE = {"float64", "float32", "Float64", "double[pyarrow]", "Int64", "Int32", "int64[pyarrow]", "boolean"}
JSON: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
VALUES: dict[str, Any] = {
    "number": st.floats(-1024, 1024, width=32),
    "integer": st.integers(0, 127),
    "boolean": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    "category": st.sampled_from(["a", "b", "ü"]),
    "any": JSON,
}


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """What `FeatureSpec` makes of rows."""
    features = []
    for name in draw(st.lists(NAMES, min_size=1, max_size=4, unique=True)):
        kind: Any = draw(st.sampled_from(sorted(KINDS)))
        dtype = draw(st.sampled_from(KINDS[kind]))
        nullable = dtype in NULLABLE or kind in ("string", "category", "any")
        categories = ["a", "b", "ü"] if kind == "category" else None
        none_is_null = kind == "string" and dtype == "object" and draw(st.booleans())
        features.append(
            Feature(
                name=name,
                kind=kind,
                dtype=dtype,
                nullable=nullable,
                categories=categories,
                none_is_null=none_is_null,
            )
        )
    spec = FeatureSpec(features=features)
    row = {f.name: VALUES[f.kind] | st.none() if f.nullable else VALUES[f.kind] for f in features}
    return spec.restore(spec.table(draw(st.lists(st.fixed_dictionaries(row), max_size=4))))


@given(tables())
def test_a_table_of_features_crosses_unchanged(frame: pd.DataFrame) -> None:
    assert_same(frame, crossed(frame))


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"x": [1, "1", 1.0, True, None, math.nan, pd.NA, pd.NaT, [1], {"a": b"b"}]}, dtype=object),
        pd.DataFrame({"x": ["a", None, math.nan]}, dtype=object),
        pd.DataFrame({"x": [2**80, -1]}, dtype=object),
        pd.DataFrame({"x": [decimal.Decimal("1.10"), date(2024, 1, 2)]}),
        pd.DataFrame({"x": ["\ud800", "b"]}, dtype=object),
        pd.DataFrame({"x": [np.float64(1.5), np.str_("a")]}, dtype=object),
        pd.DataFrame({"x": pd.to_datetime(["2024-01-02", None])}),
        pd.DataFrame({"x": [datetime(2024, 1, 2, tzinfo=UTC)]}),
        pd.DataFrame({"x": pd.to_timedelta(["1s", None])}),
        pd.DataFrame({"x": pd.period_range("2024-01", periods=2, freq="M")}),
        pd.DataFrame({"x": pd.arrays.SparseArray([0.0, 1.0])}),
        pd.DataFrame({"x": pd.Categorical([1, None], categories=[2, 1], ordered=True)}),
        pd.DataFrame({"x": pd.Categorical([date(2024, 1, 2)])}),
        pd.DataFrame({"x": np.array([1 + 2j])}),
        pd.DataFrame({"x": np.array([1, 2], dtype=">i4")}),
        pd.DataFrame({"x": pd.array([1.5, None, math.nan], dtype="Float64")}),
        pd.DataFrame({"x": np.array([1.5], dtype="float16")}),
        pd.DataFrame({"x": [1.0, 2.0]}, index=[7, 3]),
        pd.DataFrame({"x": [1.0, 2.0]}, index=pd.RangeIndex(2, name="id")),
        pd.DataFrame({"x": [1.0, 2.0]}, index=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        pd.DataFrame(np.eye(2)),
        pd.DataFrame(np.eye(2), columns=["a", "a"]),
        pd.DataFrame(np.eye(2), columns=pd.Index(["a", "b"], dtype=object)),
        pd.DataFrame(np.eye(2), columns=pd.Index(["a", "b"], name="n")),
        pd.DataFrame(np.eye(2), columns=pd.MultiIndex.from_tuples([("a", 1), ("b", 2)])),
        pd.DataFrame(index=[3, 4]),
        pd.DataFrame(),
        pd.DataFrame({"x": pd.Series([], dtype="float64"), "y": pd.Series([], dtype=object)}),
    ],
    ids=lambda frame: f"{'-'.join(map(str, frame.dtypes))}-{type(frame.index).__name__}",
)
def test_a_table_of_any_kind_crosses_unchanged(frame: pd.DataFrame) -> None:
    assert_same(frame, crossed(frame))


def test_what_came_across_can_be_written_to() -> None:
    frame = crossed(pd.DataFrame({"x": [1.0], "n": [1], "s": ["a"], "i": pd.array([1], dtype="Int64")}))
    frame.loc[0] = [2.0, 2, "b", 3]
    assert frame.loc[0].tolist() == [2.0, 2, "b", 3]
