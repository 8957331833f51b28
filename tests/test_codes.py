"""Rows with text and categories are a matrix of codes, and lose nothing by it."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.encoders import without_codes
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec
from tests.feature_rows import TRAINING, frame_of, outcome, same_table, spec

TEXTS = ["EBS", "", "ü", "a:b", "1", "a\x00"]
CATEGORIES: list[list[Any]] = [
    ["EU", "US"], [1, 2, 5], [0.5, -0.0, 1e300], [True, False], ["1", 1], [2**53 + 1, 2**53], [7],
]  # fmt: skip
VALUES = st.sampled_from([
    *TEXTS, "a", "elsewhere", "null", None, True, False, 0, 1, 2, 1.0, 2.5, -0.0, 0.5, 5, 7, 1e300, 2**53, 2**53 + 1,
    2.0**53, [], {}, "EU",
])  # fmt: skip


@st.composite
def features(draw: st.DrawFn, i: int) -> Feature:
    kind, nullable = draw(st.sampled_from(["string", "category", "number", "integer", "boolean"])), draw(st.booleans())
    given: dict[str, Any] = {"name": f"x{i}", "kind": kind, "nullable": nullable}
    if kind == "category":
        categories = draw(st.sampled_from(CATEGORIES))
        return Feature(**given, dtype="category", categories=categories, codes=categories)
    if kind != "string":
        return Feature(**given, dtype={"number": "float64", "integer": "int64", "boolean": "bool"}[kind])
    codes = draw(st.lists(st.sampled_from(TEXTS), unique=True))
    known = draw(st.none() | st.just(codes[:2]))
    dtype = draw(st.sampled_from(["object", "str", "string"]))
    return Feature(**given, dtype=dtype, codes=codes, known=known, none_is_null=draw(st.booleans()))


@st.composite
def questions(draw: st.DrawFn) -> tuple[FeatureSpec, list[dict[str, Any]]]:
    n = draw(st.integers(1, 4))
    last = Feature(name="n", kind="number", dtype="float64", nullable=True)
    drawn = [*(draw(features(i)) for i in range(n)), last]
    spec = FeatureSpec(features=drawn, extra=draw(st.sampled_from(["ignore", "forbid"])))
    rows = []
    for _ in range(draw(st.sampled_from([1, 2, 12]))):
        row: dict[str, Any] = {"n": draw(st.sampled_from([1.5, None]))}
        for feature in spec.features[:-1]:
            typical = feature.codes or {"number": [1.5], "integer": [3], "boolean": [True]}.get(feature.kind, ["a"])
            row[feature.name] = draw(st.sampled_from(typical) if draw(st.integers(0, 4)) else VALUES)
        rows.append(row)
    return spec, rows


@given(questions())
def test_rows_are_read_one_way_from_json_from_dicts_and_from_a_table_and_as_without_codes(
    question: tuple[FeatureSpec, list[dict[str, Any]]],
) -> None:
    spec, rows = question
    rows = json.loads(json.dumps(rows))
    read, expected = outcome(spec.table, rows), outcome(without_codes(spec).table, rows)
    if isinstance(read, tuple):  # refused: the same problems of the same rows
        assert read == expected
        assert outcome(spec.check, frame_of(rows)) == outcome(without_codes(spec).check, frame_of(rows))
        return
    assert isinstance(read, np.ndarray) == (spec.is_numeric or not has_unknown(spec, rows))
    same_table(read, spec.check(frame_of(rows)))
    assert spec.reader is not None
    for quick in (spec.reader.many(json.dumps(rows).encode()), spec.reader.convert(rows)):
        assert (quick is None) == isinstance(read, pd.DataFrame)
        if quick is not None:
            same_table(quick, read)
    one = spec.reader.one(json.dumps(rows[0]).encode())
    same_table(spec.table(rows[:1]) if one is None else one, spec.table(rows[:1]))
    restored, frame = spec.restore(read), without_codes(spec).restore(expected)
    same_table(restored, frame)
    assert nulls(restored) == nulls(frame)  # encoders tell None from NaN
    same_table(spec.encode(spec.decode(read)), spec.encode(read))


def nulls(frame: pd.DataFrame) -> list[list[str]]:
    return [[repr(value) for value in frame[name].tolist() if pd.isna(value)] for name in frame]


def has_unknown(spec: FeatureSpec, rows: list[dict[str, Any]]) -> bool:
    texts = [feature for feature in spec.features if feature.kind == "string"]
    return any(row[f.name] is not None and row[f.name] not in (f.codes or []) for row in rows for f in texts)


def coded_spec(**codes: list[str]) -> FeatureSpec:
    """One feature of each kind, with codes of the texts that are given."""
    inferred = spec(extra="ignore")
    found = [
        msgspec.structs.replace(f, codes=f.categories if f.kind == "category" else codes.get(f.name, ["EBS", "a", "b"]))
        if f.kind in ("category", "string") else f
        for f in inferred.features
    ]  # fmt: skip
    return msgspec.structs.replace(inferred, features=found)


def test_a_table_is_a_matrix_of_codes_and_a_dataframe_where_a_text_has_none() -> None:
    features = coded_spec(venue=["EBS", "LMAX", "Cboe"], broker=["b", "a"])
    matrix = features.check(TRAINING)
    assert isinstance(matrix, np.ndarray)
    assert matrix[:, features.names.index("venue")].tolist() == [0, 1, 2]
    assert repr(matrix[:, features.names.index("broker")].tolist()) == "[1.0, nan, 0.0]"
    assert repr(matrix[:, features.names.index("session")].tolist()) == "[0.0, 1.0, nan]"
    pd.testing.assert_frame_equal(features.restore(matrix), TRAINING)
    other = TRAINING.assign(venue=["EBS", "LMAX", "elsewhere"])
    frame = features.check(other)
    assert isinstance(frame, pd.DataFrame)
    pd.testing.assert_frame_equal(frame, other)
    encoded = features.encode(frame)
    assert encoded[:, features.names.index("venue")].tolist() == [0, 1, 3]
    assert features.restore(encoded)["venue"].tolist()[:2] == ["EBS", "LMAX"]
    assert features.restore(encoded)["venue"].tolist()[2] not in ["EBS", "LMAX", "Cboe"]


def test_what_stands_for_a_text_without_a_code_is_never_one_that_has_one() -> None:
    first = Feature(name="x", kind="string", dtype="object", codes=["a"])
    assert first.dictionary is not None
    taken = first.dictionary.values(np.array([1.0]))[0]
    second = Feature(name="x", kind="string", dtype="object", codes=["a", taken])
    assert second.dictionary is not None
    assert second.dictionary.values(np.array([2.0]))[0] not in ("a", taken)


@pytest.mark.parametrize("dtype", ["str", "string", "object", "string[pyarrow]", "category"])
def test_columns_of_text_of_every_dtype_get_the_same_codes(dtype: str) -> None:
    features = FeatureSpec(features=[Feature(name="x", kind="string", dtype="object", codes=["a", "b"], nullable=True)])
    column = pd.Series(["b", None, "a", "b"], dtype=object).astype(dtype)
    np.testing.assert_array_equal(features.check(pd.DataFrame({"x": column})), [[1], [np.nan], [0], [1]])
    unknown = features.check(pd.DataFrame({"x": pd.Series(["b", None, "c"], dtype=object).astype(dtype)}))
    assert isinstance(unknown, pd.DataFrame)
    assert repr(unknown["x"].tolist()) == "['b', nan, 'c']"


@pytest.mark.parametrize(
    ("categories", "column", "expected"),
    [
        ([1, 2, 5], pd.Series([5, 1], dtype="int32"), [2, 0]),
        ([1, 2, 5], pd.Series([5.0, None]), [2, np.nan]),
        ([1, 2, 5], pd.Series([5, None], dtype="Int64"), [2, np.nan]),
        ([0.5, 0.0], pd.Series([-0.0, 0.5]), [1, 0]),
        ([True, False], pd.Series([False, True]), [1, 0]),
        ([True, False], pd.Series([False, None], dtype="boolean"), [1, np.nan]),
        (["1", 1], pd.Series([1, "1"], dtype=object), [1, 0]),
        (["EU", "US"], pd.Series(["US", "EU"], dtype="category"), [1, 0]),
        ([2, 1], pd.Series([1, 2], dtype="category"), [1, 0]),
        ([2**53 + 1, 2**53], pd.Series([2**53, 2**53 + 1]), [1, 0]),
    ],
)
def test_columns_of_categories_get_their_codes(categories: Any, column: Any, expected: list[float]) -> None:
    feature = Feature(
        name="x", kind="category", dtype="category", categories=categories, codes=categories, nullable=True
    )
    table = FeatureSpec(features=[feature]).check(pd.DataFrame({"x": column}))
    np.testing.assert_array_equal(table, np.array(expected)[:, None])


@pytest.mark.parametrize(
    ("categories", "column"),
    [
        ([1, 2], pd.Series([True, True])), ([True, False], pd.Series([1, 0])), (["1"], pd.Series([1])),
        ([1], pd.Series(["1"])), ([2**53], pd.Series([2**53 + 1])), ([0.5], pd.Series([np.inf])),
        (["EU"], pd.Series(["eu"], dtype="category")), ([1], pd.Series([True], dtype="category")),
    ],
)  # fmt: skip
def test_a_value_that_is_no_category_is_refused_by_name(categories: Any, column: Any) -> None:
    feature = Feature(name="x", kind="category", dtype="category", categories=categories, codes=categories)
    with pytest.raises(FeatureError, match="'x' must be one of the"):
        FeatureSpec(features=[feature]).check(pd.DataFrame({"x": column}))


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "string", "codes": ["a", "a"]}, {"kind": "string", "codes": [1]}, {"kind": "number", "codes": []},
        {"kind": "category", "categories": ["a", "b"], "codes": ["b", "a"]}, {"kind": "category", "codes": []},
        {"kind": "category", "categories": [1], "codes": [True]}, {"kind": "datetime", "codes": ["a"]},
        {"kind": "category", "categories": [True, 2], "codes": [True, 2]}, {"kind": "any", "codes": ["a"]},
    ],
)  # fmt: skip
def test_codes_that_no_model_has_are_refused_when_a_manifest_is_read(wrong: dict[str, Any]) -> None:
    dtype = {"number": "float64", "category": "category", "datetime": "datetime64[ns]"}.get(wrong["kind"], "object")
    written = msgspec.json.encode({"name": "x", "dtype": dtype, **wrong})
    with pytest.raises(msgspec.ValidationError, match="code"):
        msgspec.json.decode(written, type=Feature)


def test_a_feature_that_is_dropped_has_no_codes_and_keeps_a_null_only() -> None:
    time = Feature(name="t", kind="datetime", dtype="datetime64[us, UTC]", nullable=True, codes=[])
    features = FeatureSpec(features=[Feature(name="n", kind="number", dtype="float64"), time])
    np.testing.assert_array_equal(features.table([{"n": 1, "t": None}]), [[1, np.nan]])
    frame = features.table([{"n": 1, "t": "2026-03-01T09:30:00Z"}])
    assert isinstance(frame, pd.DataFrame)
    encoded = features.encode(frame)
    assert encoded.tolist() == [[1, 0]]
    assert features.restore(encoded).dtypes.to_dict() == frame.dtypes.to_dict()


def test_numbers_that_an_encoder_is_particular_about_are_read_in_one_pass() -> None:
    features = FeatureSpec(features=[Feature(name="n", kind="integer", dtype="int64", known=[1, 3], nullable=True)])
    assert features.reader is not None
    np.testing.assert_array_equal(features.reader.many(b'[{"n":3},{"n":null},{"n":1.0}]'), [[3], [np.nan], [1]])  # type: ignore[arg-type]
    assert features.reader.one(b'{"n":2}') is None
    with pytest.raises(FeatureError, match="'n' must be one of the 2 values that the model's encoder knows"):
        features.table([{"n": 2}])
