"""What a model takes: rows and DataFrames are read alike, and come back as training had them."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.feature import MAX_EXACT_INTEGER, Feature
from fin_pyfunc.model.features import FeatureSpec, infer
from tests.feature_rows import NUMBERS, ROW, TRAINING, frame_of, outcome, refusal, same_table, spec

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


@pytest.mark.parametrize("name", ["gap", "lots", "halted", "broker", "desk", "session"])
@pytest.mark.parametrize("missing", [None, math.nan, np.float32("nan"), pd.NA, pd.NaT])
def test_null_is_taken_where_training_had_some(name: str, missing: Any) -> None:
    table = spec().table([{**ROW, name: missing}])
    assert isinstance(table, pd.DataFrame)
    assert table[name].isna().all()
    same_table(table, spec().check(frame_of([{**ROW, name: missing}])))


@pytest.mark.parametrize("value", [3, 3.0, np.int32(3), np.float32(3)])
def test_an_integer_may_be_written_as_a_whole_float(value: Any) -> None:
    assert spec("hour").table([{"hour": value}]).tolist() == [[3.0]]
    assert spec("hour").check(pd.DataFrame({"hour": [value]})).tolist() == [[3.0]]


def test_a_nullable_boolean_may_come_as_floats_as_mlflow_hands_it_over() -> None:
    features = spec("halted")
    handed_over = pd.DataFrame({"halted": [1.0, 0.0, np.nan]})
    assert features.restore(features.check(handed_over))["halted"].tolist() == [True, False, pd.NA]
    with pytest.raises(FeatureError) as e:
        features.check(pd.DataFrame({"halted": [1.0, 0.5, np.nan]}))
    assert [p.row for p in e.value.problems] == [1]


def test_no_rows_make_an_empty_table() -> None:
    assert spec("price", "hour").table([]).shape == (0, 2)
    assert spec("price", "hour").check(TRAINING.iloc[:0]).shape == (0, 2)
    for table in (spec().table([]), spec().check(TRAINING.iloc[:0])):
        assert isinstance(table, pd.DataFrame)
        assert table.shape == (0, 13)
        assert table.dtypes.to_dict() == TRAINING.dtypes.to_dict()


def test_a_spec_survives_json() -> None:
    import msgspec

    features = spec(extra="forbid", identifiers=["bar_id"])
    encoded = msgspec.json.encode(features)
    assert msgspec.json.decode(encoded, type=FeatureSpec) == features
    assert json.loads(encoded)["features"][0] == {"name": "price", "kind": "number", "dtype": "float64"}


DTYPES = {"number": ["float64", "float32"], "integer": ["int64", "int8"], "boolean": ["bool"]}


@given(st.data())
def test_a_matrix_that_other_features_read_is_checked_as_its_rows_are(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(st.sampled_from(list(DTYPES)), min_size=1, max_size=3))

    def features() -> FeatureSpec:
        return FeatureSpec(
            features=[
                Feature(
                    name=f"f{i}",
                    kind=kind,  # type: ignore[arg-type]
                    dtype=data.draw(st.sampled_from(DTYPES[kind])),
                    nullable=data.draw(st.booleans()),
                    single=kind == "number" and data.draw(st.booleans()),
                )
                for i, kind in enumerate(kinds)
            ]
        )

    theirs, ours = features(), features()
    assert ours.reads_as(theirs)
    values = {
        "number": st.none() | st.sampled_from([0.5, -1e39, 1e39, 2]),
        "integer": st.none() | st.sampled_from([0, 127, 128, -129, 3.0]),
        "boolean": st.none() | st.booleans(),
    }
    row = st.fixed_dictionaries({f"f{i}": values[kind] for i, kind in enumerate(kinds)})
    rows = data.draw(st.lists(row, min_size=1, max_size=3))
    matrix = outcome(theirs.table, rows)
    assume(isinstance(matrix, np.ndarray))
    wanted = outcome(ours.table, rows)
    if isinstance(wanted, np.ndarray):
        ours.check_matrix(matrix)
        same_table(wanted, matrix)
    else:
        with pytest.raises(FeatureError) as raised:
            ours.check_matrix(matrix)
        expected = {(i, f.name) for i, row in enumerate(rows) for f in ours.features if not _takes(f, row[f.name])}
        assert {(problem.row, problem.feature) for problem in raised.value.problems} == expected


def _takes(feature: Feature, value: Any) -> bool:
    return not isinstance(outcome(FeatureSpec(features=[feature]).table, [{feature.name: value}]), tuple)


def test_features_of_other_names_orders_or_kinds_read_otherwise() -> None:
    a, b = (Feature(name=name, kind="number", dtype="float64") for name in "ab")
    whole, text = Feature(name="b", kind="integer", dtype="int64"), Feature(name="b", kind="string", dtype="object")
    ours = FeatureSpec(features=[a, b])
    for other in ([b, a], [a], [a, whole], [a, text]):
        assert not ours.reads_as(FeatureSpec(features=other))
        assert not FeatureSpec(features=other).reads_as(ours)
    assert not FeatureSpec(features=[text]).reads_as(FeatureSpec(features=[text]))  # which is no matrix


@pytest.mark.parametrize("dtype", ["datetime64[ns, dateutil//etc/hosts]", "datetime64[ns, dateutil/../x]", "O" * 200])
def test_a_dtype_that_names_a_file_is_refused_before_pandas_reads_it(dtype: str) -> None:
    with pytest.raises(ValueError, match="the dtype of a feature"):
        Feature(name="x", kind="any", dtype=dtype)
