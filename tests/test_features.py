"""What a model takes: rows and DataFrames are read alike, and every refusal names its row and its feature."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.errors import MAX_PROBLEMS, FeatureError
from fin_pyfunc.model.feature import MAX_EXACT_INTEGER
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


# any JSON value, those that the features take among them
json_values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-4, 4),
    st.integers(),
    st.floats(),
    st.sampled_from(["EBS", "a", "US", "", "1", "true"]),
    st.sampled_from([1.0, 2.0, 3.5, 200, 1e300]),
)
good_values = st.fixed_dictionaries(
    {
        "price": st.floats(-1e6, 1e6) | st.integers(-1000, 1000),
        "gap": st.none() | st.floats(-1e6, 1e6),
        "narrow": st.floats(-1e6, 1e6),
        "hour": st.integers(-100, 100) | st.integers(-100, 100).map(float),
        "side": st.integers(-128, 127),
        "lots": st.none() | st.integers(-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER),
        "open": st.booleans(),
        "halted": st.none() | st.booleans(),
        "venue": st.text(),
        "broker": st.none() | st.text(),
        "desk": st.none() | st.text(),
        "region": st.sampled_from(["EU", "US"]),
        "session": st.none() | st.sampled_from([1, 2, 3, 1.0]),
    }
)


@given(st.lists(st.dictionaries(st.sampled_from(list(ROW)), json_values), min_size=1, max_size=4), st.data())
def test_rows_and_a_table_of_them_are_read_alike(changes: list[dict[str, Any]], data: st.DataObject) -> None:
    features = spec()
    rows = [{**ROW, **change} for change in changes]
    shuffled = [dict(data.draw(st.permutations(list(row.items())))) for row in rows]
    of_rows = outcome(features.table, rows)
    of_table = outcome(features.check, frame_of(shuffled))
    if isinstance(of_rows, tuple):
        assert of_rows == of_table
    else:
        same_table(of_rows, of_table)


@given(st.lists(good_values, min_size=1, max_size=5))
def test_good_rows_come_back_with_the_dtypes_of_training(rows: list[dict[str, Any]]) -> None:
    features = spec()
    table = features.table(rows)
    assert isinstance(table, pd.DataFrame)
    assert list(table.columns) == list(TRAINING.columns)
    assert [str(dtype) for dtype in table.dtypes] == [str(dtype) for dtype in TRAINING.dtypes]
    assert table["region"].cat.categories.tolist() == ["EU", "US"]
    assert table["session"].cat.categories.tolist() == [1, 2, 3]
    assert table["hour"].tolist() == [row["hour"] for row in rows]
    assert table["side"].tolist() == [row["side"] for row in rows]
    assert table["venue"].tolist() == [row["venue"] for row in rows]
    assert table["narrow"].tolist() == [float(np.float32(row["narrow"])) for row in rows]
    assert [None if pd.isna(v) else v for v in table["lots"]] == [row["lots"] for row in rows]
    assert [None if pd.isna(v) else v for v in table["halted"]] == [row["halted"] for row in rows]
    assert all(v is None or isinstance(v, str) for v in table["broker"])
    assert all(isinstance(v, str) or math.isnan(v) for v in table["desk"])
    same_table(table, features.check(frame_of(rows)))


@given(st.lists(good_values, min_size=1, max_size=5), st.data())
def test_neither_the_order_of_keys_nor_that_of_columns_matters(rows: list[dict[str, Any]], data: st.DataObject) -> None:
    features = spec(*NUMBERS)
    order = data.draw(st.permutations(list(ROW)))
    same_table(features.table(rows), features.table([{name: row[name] for name in order} for row in rows]))
    same_table(features.table(rows), features.check(frame_of(rows)[order]))


@given(st.lists(good_values, min_size=1, max_size=5))
def test_numbers_alone_make_a_matrix_that_restores_to_the_dtypes_of_training(rows: list[dict[str, Any]]) -> None:
    features = spec(*NUMBERS)
    table = features.table(rows)
    assert isinstance(table, np.ndarray)
    assert table.shape == (len(rows), len(NUMBERS))
    assert table.dtype == np.float64
    restored = features.restore(table)
    assert [str(dtype) for dtype in restored.dtypes] == [str(TRAINING[name].dtype) for name in NUMBERS]
    assert [None if pd.isna(v) else v for v in restored["halted"]] == [row["halted"] for row in rows]


def test_the_training_rows_themselves_pass_and_come_back_the_same() -> None:
    pd.testing.assert_frame_equal(spec().restore(spec().check(TRAINING)), TRAINING)
    pd.testing.assert_frame_equal(spec(*NUMBERS).restore(spec(*NUMBERS).check(TRAINING)), TRAINING[NUMBERS])


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float16", [0.5, 1.5]),
        ("float32", [0.5, 1.5]),
        ("Float64", [0.5, None]),
        ("Float32", [0.5, None]),
        ("double[pyarrow]", [0.5, None]),
        ("int64[pyarrow]", [1, None]),
        ("bool[pyarrow]", [True, None]),
        ("int8", [-128, 127]),
        ("uint8", [0, 255]),
        ("UInt16", [1, None]),
        ("Int8", [1, None]),
        ("boolean", [True, None]),
        ("string", ["a", None]),
        ("str", ["a", None]),
        ("string[pyarrow]", ["a", None]),
        ("Sparse[float64, nan]", [0.5, None]),
    ],
)
def test_every_dtype_of_training_is_restored(dtype: str, values: list[Any]) -> None:
    frame = pd.DataFrame({"x": pd.array(values, dtype=dtype), "n": [1.0, 2.0]})
    features = infer(frame)
    pd.testing.assert_frame_equal(features.restore(features.check(frame)), frame)
    rows = [{"x": value, "n": float(i + 1)} for i, value in enumerate(values)]
    pd.testing.assert_frame_equal(features.restore(features.table(rows)), frame)


def test_missing_text_comes_back_as_training_had_it() -> None:
    table = spec("broker", "desk").table([{"broker": None, "desk": None}])
    assert isinstance(table, pd.DataFrame)
    assert table.loc[0, "broker"] is None
    assert isinstance(table.loc[0, "desk"], float)
    checked = spec("broker", "desk").check(pd.DataFrame({"broker": [np.nan], "desk": [None]}, dtype=object))
    assert isinstance(checked, pd.DataFrame)
    assert checked.loc[0, "broker"] is None
    assert isinstance(checked.loc[0, "desk"], float)


def test_a_table_keeps_its_index_even_with_repeated_labels() -> None:
    frame = TRAINING.set_axis(["x", "x", "y"])
    table = spec().check(frame)
    assert isinstance(table, pd.DataFrame)
    assert table.index.tolist() == ["x", "x", "y"]
    assert table["venue"].tolist() == TRAINING["venue"].tolist()


@pytest.mark.parametrize("name", list(ROW))
def test_a_missing_feature_is_refused(name: str) -> None:
    assert refusal(spec(), {k: v for k, v in ROW.items() if k != name}) == f"{name}: missing"


def test_a_missing_column_is_missing_from_every_row() -> None:
    with pytest.raises(FeatureError) as e:
        spec("price", "hour").check(pd.DataFrame({"price": [1.0, 2.0, 3.0]}))
    assert e.value.total == 3
    assert e.value.rows == (0, 1, 2)
    with pytest.raises(FeatureError, match="'price' is missing"):
        spec("price", "hour").check(pd.DataFrame({"hour": []}))


def test_a_column_that_is_there_twice_is_refused() -> None:
    twice = pd.DataFrame([[1.0, 2.0]], columns=["price", "price"])
    with pytest.raises(FeatureError, match="'price' is there more than once"):
        spec("price").check(twice)


def test_a_further_feature_is_ignored_unless_forbidden() -> None:
    row = {"price": 1.0, "mood": "good", "bar_id": object()}
    same_table(spec("price").table([row]), np.array([[1.0]]))
    forbidding = spec("price", extra="forbid", identifiers=["bar_id"])
    assert refusal(forbidding, row) == "mood: unknown to this model"
    row.pop("mood")
    same_table(forbidding.table([row]), np.array([[1.0]]))
    same_table(forbidding.check(frame_of([row])), np.array([[1.0]]))


def test_identifiers_are_neither_features_nor_needed() -> None:
    features = infer(TRAINING[["price", "venue"]], identifiers=["venue", "bar_id"])
    assert features.names == ["price"]
    assert features.identifiers == ["venue", "bar_id"]
    same_table(features.table([{"price": 1.0}]), features.table([{"price": 1.0, "venue": None, "bar_id": [1]}]))


@pytest.mark.parametrize("name", ["price", "narrow", "hour", "side", "open", "venue", "region"])
def test_null_is_refused_where_training_had_none(name: str) -> None:
    with pytest.raises(FeatureError) as e:
        spec().table([{**ROW, name: None}])
    assert e.value.problems == ((0, name, "null"),)
    for missing in (math.nan, np.float32("nan"), pd.NA, pd.NaT):
        with pytest.raises(FeatureError) as e:
            spec().table([{**ROW, name: missing}])
        assert e.value.problems == ((0, name, "NaN"),)


@pytest.mark.parametrize("name", ["gap", "lots", "halted", "broker", "desk", "session"])
@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan"), pd.NA, pd.NaT])
def test_null_is_taken_where_training_had_some(name: str, missing: Any) -> None:
    table = spec().table([{**ROW, name: missing}])
    assert isinstance(table, pd.DataFrame)
    assert table[name].isna().all()
    same_table(table, spec().check(frame_of([{**ROW, name: missing}])))


@pytest.mark.parametrize(
    ("name", "value", "problem"),
    [
        ("price", True, "must be a number, not a boolean"),
        ("price", "1.5", "must be a number, not text"),
        ("price", [1.5], "must be a number, not a list"),
        ("price", {"a": 1}, "must be a number, not an object"),
        ("price", 1 + 2j, "must be a number, not something else"),
        ("price", math.inf, "infinite or too large for float64"),
        ("gap", -math.inf, "infinite or too large for float64"),
        ("price", 10**400, "infinite or too large for float64"),
        ("narrow", 1e39, "infinite or too large for float32"),
        ("narrow", -1e300, "infinite or too large for float32"),
        ("hour", 3.5, "must be an integer (3 or 3.0)"),
        ("hour", "3", "must be a number, not text"),
        ("hour", False, "must be a number, not a boolean"),
        ("hour", math.inf, "must be an integer from -9007199254740992 to 9007199254740992"),
        ("hour", 2**53 + 2, "must be an integer from -9007199254740992 to 9007199254740992"),
        ("lots", -(10**400), "must be an integer from -9007199254740992 to 9007199254740992"),
        ("side", 128, "must be an integer from -128 to 127"),
        ("side", -129.0, "must be an integer from -128 to 127"),
        ("open", 1, "must be true or false, not a number"),
        ("open", "true", "must be true or false, not text"),
        ("halted", 0.0, "must be true or false, not a number"),
        ("venue", 1, "must be text, not a number"),
        ("venue", True, "must be text, not a boolean"),
        ("broker", 1.5, "must be text, not a number"),
        ("region", "Mars", "must be one of the 2 values known from training"),
        ("region", ["EU"], "must be one of the 2 values known from training"),
        ("session", True, "must be one of the 3 values known from training"),
        ("session", "1", "must be one of the 3 values known from training"),
        ("session", 1.5, "must be one of the 3 values known from training"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(name: str, value: Any, problem: str) -> None:
    assert refusal(spec(), {**ROW, name: value}) == f"{name}: {problem}"


@pytest.mark.parametrize("value", ["SECRET", 987654.125, 987654])
def test_no_value_of_the_caller_shows_in_the_message(value: Any) -> None:
    with pytest.raises(FeatureError) as e:
        spec().table([dict.fromkeys(ROW, value) | {"hour": "SECRET", "side": 987654.125, "narrow": True}])
    assert "SECRET" not in str(e.value) + str(e.value.problems)
    assert "987654" not in str(e.value) + str(e.value.problems)


@pytest.mark.parametrize("value", [3, 3.0, np.int32(3), np.float32(3)])
def test_an_integer_may_be_written_as_a_whole_float(value: Any) -> None:
    assert spec("hour").table([{"hour": value}]).tolist() == [[3.0]]
    assert spec("hour").check(pd.DataFrame({"hour": [value]})).tolist() == [[3.0]]


@pytest.mark.parametrize(
    ("name", "column", "problem"),
    [
        ("price", np.array([1 + 2j, 3 + 0j]), "must be a number, not something else"),
        ("price", np.array([True, False]), "must be a number, not a boolean"),
        ("price", np.array(["2012-01-01", "2012-01-02"], dtype="datetime64[ns]"), "must be a number"),
        ("open", np.array([1, 0]), "must be true or false"),
        ("open", np.array([1.0, 0.0]), "must be true or false"),
        ("hour", np.array([2**60, 2**61], dtype="uint64"), "must be an integer from"),
        ("side", np.array([1000, 2000]), "must be an integer from -128 to 127"),
        ("venue", pd.Categorical([1, 2]), "must be text"),
    ],
)
def test_a_column_of_the_wrong_dtype_is_refused_row_by_row(name: str, column: Any, problem: str) -> None:
    with pytest.raises(FeatureError) as e:
        spec(name).check(pd.DataFrame({name: column}))
    assert [(p.row, p.feature) for p in e.value.problems] == [(0, name), (1, name)]
    assert all(p.problem.startswith(problem) for p in e.value.problems)


def test_a_nullable_boolean_may_come_as_floats_as_mlflow_hands_it_over() -> None:
    features = spec("halted")
    handed_over = pd.DataFrame({"halted": [1.0, 0.0, np.nan]})
    assert features.restore(features.check(handed_over))["halted"].tolist() == [True, False, pd.NA]
    with pytest.raises(FeatureError) as e:
        features.check(pd.DataFrame({"halted": [1.0, 0.5, np.nan]}))
    assert [p.row for p in e.value.problems] == [1]


@pytest.mark.parametrize("bad", [[0], [4, 1], [2, 3, 6], list(range(7))])
def test_every_bad_row_of_a_batch_is_named(bad: list[int]) -> None:
    rows = [{"price": None if i in bad else 1.0, "hour": 1} for i in range(7)]
    for read, data in ((spec("price", "hour").table, rows), (spec("price", "hour").check, frame_of(rows))):
        with pytest.raises(FeatureError) as e:
            read(data)  # type: ignore[operator]
        assert e.value.rows == tuple(sorted(bad))
        assert e.value.total == len(bad)


@given(st.integers(1, 400), st.sets(st.sampled_from(["price", "hour", "venue"]), min_size=1))
def test_at_most_a_hundred_problems_are_kept_the_first_by_row_and_all_are_counted(n: int, bad: set[str]) -> None:
    features = spec("price", "hour", "venue", extra="forbid")
    good = {"price": 1.0, "hour": 1, "venue": "EBS"}
    rows = [{**good, **{name: [] for name in bad}, "zz": 0} for _ in range(n)]
    with pytest.raises(FeatureError) as of_rows:
        features.table(rows)
    with pytest.raises(FeatureError) as of_table:
        features.check(frame_of(rows))
    in_order = ["zz", *(name for name in features.names if name in bad)]
    expected = [(i, name) for i in range(n) for name in in_order]
    for error in (of_rows.value, of_table.value):
        assert [(p.row, p.feature) for p in error.problems] == expected[:MAX_PROBLEMS]
        assert error.total == len(expected)
        assert error.rows == tuple(range(n))
    assert str(of_rows.value) == str(of_table.value)


def test_no_rows_make_an_empty_table() -> None:
    assert spec("price", "hour").table([]).shape == (0, 2)
    assert spec("price", "hour").check(TRAINING.iloc[:0]).shape == (0, 2)
    for table in (spec().table([]), spec().check(TRAINING.iloc[:0])):
        assert isinstance(table, pd.DataFrame)
        assert table.shape == (0, 13)
        assert table.dtypes.to_dict() == TRAINING.dtypes.to_dict()


@pytest.mark.parametrize(
    ("column", "says"),
    [
        (pd.Series(pd.to_datetime(["2012-01-01"])), "datetime"),
        (pd.Series(pd.to_timedelta(["1s"])), "timedelta"),
        (pd.Series([1 + 2j]), "complex"),
        (pd.Series([[1]]), "convert it"),
        (pd.Series([None], dtype=object), "convert it"),
        (pd.Series([True, None], dtype=object), "convert it"),
        (pd.Series([1, "a"], dtype=object), "convert it"),
        (pd.Series([b"a"]), "convert it"),
        (pd.Series([1.0, np.inf]), "infinite"),
        (pd.Series([2**53 + 1]), r"±2\*\*53"),
        (pd.Series([-(2**63)]), r"±2\*\*53"),
        (pd.Series([2**63], dtype="uint64"), r"±2\*\*53"),
        (pd.Series(pd.to_datetime(["2012-01-01"])).astype("category"), "categories"),
    ],
)
def test_a_column_that_json_cannot_carry_is_refused_when_inferring(column: pd.Series[Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as e:
        infer(pd.DataFrame({"when": column}))
    assert "'when'" in str(e.value)
    assert infer(pd.DataFrame({"when": column, "x": 1.0}), identifiers=["when"]).names == ["x"]


def test_a_spec_survives_json() -> None:
    import msgspec

    features = spec(extra="forbid", identifiers=["bar_id"])
    encoded = msgspec.json.encode(features)
    assert msgspec.json.decode(encoded, type=FeatureSpec) == features
    assert json.loads(encoded)["features"][0] == {"name": "price", "kind": "number", "dtype": "float64"}


@given(st.sets(st.integers(0, 60), min_size=1))
def test_the_sentence_names_every_bad_row_and_takes_little_room(bad: set[int]) -> None:
    rows = [{"price": None if i in bad else 1.0} for i in range(61)]
    with pytest.raises(FeatureError) as e:
        spec("price").table(rows)
    said = re.match(r"Refused(?: in rows? ([0-9, -]+))?: feature 'price' is null", str(e.value))
    assert said
    spans = [span.split("-") for span in (said[1] or "0").split(", ")]
    assert {i for span in spans for i in range(int(span[0]), int(span[-1]) + 1)} == bad
