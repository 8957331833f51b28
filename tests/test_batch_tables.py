"""Batches as tables: Arrow IPC stream, Parquet and CSV are read as JSON rows are, and answered alike."""

from __future__ import annotations

import datetime
import io
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.decision import Decisions, Scores, Thresholds
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.serving import csv_rows
from fin_pyfunc.serving.content_types import ARROW, CSV, PARQUET, TABLE_TYPES
from fin_pyfunc.serving.tables import read_table, write_table
from tests.feature_rows import TRAINING, same_table, spec
from tests.models import bars, quotes
from tests.tables import (
    BODIES,
    LIMITS,
    SCHEMA,
    WRITERS,
    as_arrow,
    as_parquet,
    problems,
    read_back,
    refusal,
    table_of,
)
from tests.test_codes import coded_spec

# what is read


@pytest.mark.parametrize("form", BODIES)
def test_numbers_come_through_to_the_last_bit_whatever_the_order_of_the_columns(form: str) -> None:
    content_type, write = BODIES[form]
    frame = bars().assign(bar_id=range(len(bars())), note='a, "b"\nc')
    features = infer(bars())
    read = read_table(content_type, write(table_of(frame[frame.columns[::-1]])), features, LIMITS)
    assert set(read.columns) == set(features.names)  # the others are not even read
    np.testing.assert_array_equal(features.check(read), bars().to_numpy())


values = {
    "number": st.floats(-1e300, 1e300),
    "integer": st.integers(-100, 100),
    "boolean": st.booleans(),
    "string": st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1, max_size=5),
}


@st.composite
def some_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    kinds = spec().features
    column = {
        f.name: st.sampled_from(f.categories or [])
        if f.kind == "category"
        else st.floats(-(2.0**100), 2.0**100, width=32)
        if f.dtype == "float32"
        else values[f.kind]
        for f in kinds
    }
    row = st.fixed_dictionaries({f.name: column[f.name] | st.none() if f.nullable else column[f.name] for f in kinds})
    return draw(st.lists(row, min_size=1, max_size=20))


@pytest.mark.parametrize("form", BODIES)
@given(rows=some_rows())
@settings(max_examples=15, deadline=None)
def test_every_kind_of_feature_is_read_as_the_same_rows_in_json(form: str, rows: list[dict[str, Any]]) -> None:
    content_type, write = BODIES[form]
    body = write(pa.Table.from_pylist(rows, SCHEMA))
    same_table(spec().check(read_table(content_type, body, spec(), LIMITS)), spec().table(rows))


@pytest.mark.parametrize("form", BODIES)
@given(rows=some_rows())
@settings(max_examples=15, deadline=None)
def test_text_with_codes_is_read_as_the_same_rows_in_json(form: str, rows: list[dict[str, Any]]) -> None:
    """A matrix where every text of the table has a code, and the text itself where one has none."""
    content_type, write = BODIES[form]
    body = write(pa.Table.from_pylist(rows, SCHEMA))
    texts = {name: [row[name] for row in rows if row[name] is not None] for name in ("venue", "broker", "desk")}
    for given_ in (texts, {**texts, "venue": texts["venue"][1:]}):
        features = coded_spec(**{name: [*dict.fromkeys(of)] for name, of in given_.items()})
        table = features.check(read_table(content_type, body, features, LIMITS))
        same_table(table, features.table(rows))
        same_table(features.restore(table), spec().restore(spec().table(rows)))


@pytest.mark.parametrize("content_type", WRITERS)
def test_a_null_text_and_a_column_of_the_wrong_type_are_named_where_text_has_codes(content_type: str) -> None:
    features = spec("venue", "region")
    coded = msgspec.structs.replace(
        features,
        features=[msgspec.structs.replace(f, codes=f.categories or ["EBS"]) for f in features.features],
    )
    nulls = pa.table({"venue": pa.array(["EBS", None]), "region": pa.array(["EU", "Mars"]).dictionary_encode()})
    wrong = pa.table({"venue": pa.array([1, 2]), "region": pa.array([True, False])})
    for table in (nulls, wrong):
        body = WRITERS[content_type](table)
        assert problems(content_type, body, coded) == problems(content_type, body, features)


def test_a_dictionary_with_a_null_or_a_text_twice_is_read_value_by_value() -> None:
    coded = coded_spec(venue=["EBS", "LMAX"])
    alone = msgspec.structs.replace(coded, features=[coded.features[coded.names.index("venue")]])
    for held, index in ((["EBS", "LMAX", "EBS"], [0, 2, 1]), (["EBS", None, "LMAX"], [0, 0, 2])):
        column = pa.DictionaryArray.from_arrays(pa.array(index, pa.int8()), pa.array(held))
        read = read_table(ARROW, as_arrow(pa.table({"venue": column})), alone, LIMITS)
        np.testing.assert_array_equal(alone.check(read), [[0], [0], [1]])


@pytest.mark.parametrize(
    "column",
    [
        pa.array([3, 1], pa.uint16()),
        pa.array([3.0, 1.0], pa.float32()),
        pa.array([3.0, 1.0], pa.float16()),
        pa.array([3, 1]).cast(pa.decimal128(25, 3)),
        pa.array([3, 1]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
@pytest.mark.parametrize("write", [as_arrow, as_parquet])
def test_any_type_of_number_is_a_number(column: pa.Array, write: Callable[[pa.Table], bytes]) -> None:
    content_type = ARROW if write is as_arrow else PARQUET
    features = spec("price", "hour")
    read = read_table(content_type, write(pa.table({"price": column, "hour": column})), features, LIMITS)
    np.testing.assert_array_equal(features.check(read), [[3, 3], [1, 1]])


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
@pytest.mark.parametrize("content_type", [ARROW, PARQUET])
def test_any_layout_of_text_is_text(kind: str, content_type: str) -> None:
    texts = ["007", None, "a text of more than twelve bytes", "007"]
    column = pa.array(texts).dictionary_encode() if kind == "dictionary" else pa.array(texts, getattr(pa, kind)())
    read = read_table(content_type, WRITERS[content_type](pa.table({"broker": column})), spec("broker"), LIMITS)
    assert spec("broker").check(read)["broker"].tolist() == texts  # type: ignore[call-overload] # text: a DataFrame


def test_dictionaries_that_grow_from_batch_to_batch_are_followed() -> None:
    first, second = pa.array(["a", "b"]).dictionary_encode(), pa.array(["a", None, "c"]).dictionary_encode()
    column = pa.chunked_array([first, second])
    read = read_table(ARROW, as_arrow(pa.table({"broker": column}).unify_dictionaries()), spec("broker"), LIMITS)
    assert read["broker"].tolist() == ["a", "b", "a", None, "c"]


def test_a_name_with_a_dot_is_no_part_of_another() -> None:
    frame = pd.DataFrame({"close": [1.0, 2.0], "close.1": [3.0, 4.0], "close.text": ["a", "b"]})
    features = infer(frame[["close"]])
    for content_type, write in WRITERS.items():
        assert read_table(content_type, write(table_of(frame)), features, LIMITS).to_dict("list") == {
            "close": [1.0, 2.0]
        }


def test_a_model_that_says_no_types_gets_every_column_and_may_write_into_it() -> None:
    frame = quotes().head(5)
    for content_type, write in WRITERS.items():
        read = read_table(content_type, write(table_of(frame)), None, LIMITS)
        pd.testing.assert_frame_equal(read, frame, check_dtype=content_type != CSV)
        read["spread"].to_numpy().flags.writeable = True  # raises where the memory is the body's own
    named = FeatureSpec(features=[Feature(name=name, kind="any", dtype="object") for name in frame])
    pd.testing.assert_frame_equal(read_table(ARROW, as_arrow(table_of(frame)), named, LIMITS), frame)


def test_times_are_for_models_that_say_no_types() -> None:
    times = pa.table({"price": pa.array([datetime.datetime(2012, 2, 1)], pa.timestamp("us"))})
    assert read_table(ARROW, as_arrow(times), None, LIMITS)["price"][0] == pd.Timestamp(2012, 2, 1)
    assert problems(ARROW, as_arrow(times), spec("price")) == [(0, "price", "must be a number, not something else")]
    lists = pa.table({"price": [[1.0]]})
    assert refusal(ARROW, as_arrow(lists)).startswith("422 A column of the table is of a type that no model takes")


# what is refused, value by value


@pytest.mark.parametrize("content_type", [ARROW, PARQUET])
@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (pa.array(["1.5", "2"]), "must be a number, not text"),
        (pa.array([True, False]), "must be a number, not a boolean"),
        (pa.array([[1.0], [2.0]]), "must be a number, not a list"),
        (pa.array([{"a": 1.0}, {"a": 2.0}]), "must be a number, not an object"),
        (pa.array([b"1", b"2"]), "must be a number, not something else"),
        (pa.array([datetime.date(2012, 2, 1)] * 2), "must be a number, not something else"),
        (pa.nulls(2), "null"),
        (pa.array([math.nan, math.nan]), "null"),
        (pa.array([math.inf, -math.inf]), "infinite or too large for float64"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_a_column_of_the_wrong_type_is_named_row_by_row(content_type: str, column: pa.Array, problem: str) -> None:
    body = WRITERS[content_type](pa.table({"price": column}))
    assert problems(content_type, body, spec("price")) == [(0, "price", problem), (1, "price", problem)]


def test_missing_and_forbidden_columns_are_named() -> None:
    strict = infer(TRAINING[["price", "hour"]], identifiers=["bar_id"], extra="forbid")
    for content_type, write in WRITERS.items():
        body = write(pa.table({"price": [1.5], "bar_id": [7], "tip": ["x"]}))
        assert sorted(problems(content_type, body, strict)) == [
            (0, "hour", "missing"),
            (0, "tip", "unknown to this model"),
        ]
        none = write(pa.table({"bar_id": [7, 8]}))
        assert len(problems(content_type, none, strict)) == 4


@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_a_column_that_is_there_twice_is_refused_if_it_matters(content_type: str) -> None:
    twice = pa.table([pa.array([1.0]), pa.array([2.0])], names=["price", "price"])
    assert "more than once" in refusal(content_type, WRITERS[content_type](twice), spec("price"))
    other = pa.table([pa.array([1.0]), pa.array([2.0]), pa.array([3])], names=["price", "other", "other"])
    assert len(read_table(content_type, WRITERS[content_type](other), spec("price"), LIMITS)) == 1


@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_a_table_without_rows_is_refused(content_type: str) -> None:
    body = WRITERS[content_type](table_of(bars().head(0)))
    assert refusal(content_type, body, infer(bars())) == "422 The table must hold at least one row."


# CSV


def test_an_empty_cell_is_null_where_training_had_nulls_and_refused_elsewhere() -> None:
    text = "price,gap,lots,halted,broker,session,venue\r\n1.5,,,,,,EBS\r\n,1,2,true,a,3,\r\n"
    features = spec("price", "gap", "lots", "halted", "broker", "session", "venue")
    assert problems(CSV, text.encode(), features) == [(1, "price", "null"), (1, "venue", "null")]
    features = spec("gap", "lots", "halted", "broker", "session")
    table = features.check(read_table(CSV, text.encode(), features, LIMITS))
    rows = [dict.fromkeys(features.names), {"gap": 1, "lots": 2, "halted": True, "broker": "a", "session": 3}]
    same_table(table, features.table(rows))


WORDS = ["NaN", "nan", "-NaN", "inf", "-Infinity", "1e999", "1_000", "0x10", "1,5", "٣", "1 2"]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("name", ["price", "gap", "hour", "lots", "session"])
def test_text_that_json_has_no_number_for_is_refused_in_csv(word: str, name: str) -> None:
    body = f'{name}\n1\n"{word}"\n2\n'.encode()
    [(row, feature, _)] = problems(CSV, body, spec(name))
    assert (row, feature) == (1, name)


@pytest.mark.parametrize("cell", ["1", "1.0", "+1", " 1 ", "1e0", "01", "1.", "100E-2"])
def test_a_number_in_csv_is_the_same_beside_any_other(cell: str) -> None:
    alone = f"price,hour\n{cell},{cell}\n"
    features = spec("price", "hour")
    np.testing.assert_array_equal(features.check(read_table(CSV, alone.encode(), features, LIMITS)), [[1, 1]])
    read = read_table(CSV, (alone + "x,1.5\n").encode(), features, LIMITS)
    assert read["price"].tolist() == [1.0, "x"]


def test_text_in_csv_stays_as_it_is() -> None:
    body = '\ufeffvenue,region\n007,EU\n 1.50 ,US\n"a,""b""\nc",EU\nNaN,EU\n'.encode()
    features = spec("venue", "region")
    read = features.check(read_table(CSV, body, features, LIMITS))
    assert read["venue"].tolist() == ["007", " 1.50 ", 'a,"b"\nc', "NaN"]  # type: ignore[call-overload] # text: a DataFrame


def test_csv_of_a_model_that_says_no_types_is_read_by_the_look_of_each_cell() -> None:
    body = b"a,b,c,d\n1,true,x,\n2.5,False,007,\n,true,,\n"
    read = read_table(CSV, body, None, LIMITS)
    assert read["a"].tolist()[:2] == [1.0, 2.5]
    assert read["b"].tolist() == [True, False, True]
    assert read["c"].tolist()[:2] == ["x", 7.0]  # as it is without a neighbour
    assert read.drop(columns="b").iloc[2].isna().all()
    with pytest.raises(FeatureError, match=r"row 1: feature 'a' is NaN"):
        read_table(CSV, b"a\n1\nnan\n", None, LIMITS)


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"", "cannot be read as CSV"),
        (b"\n\n", "cannot be read as CSV"),
        (b"price,hour\n1,2\n1\n", "Row 1 of the CSV body (data rows are counted from 0) has 1 cells"),
        (b"price,hour\n1,2\n1,2\n1,2,3\n", "Row 2 of the CSV body"),
        (b"price,venue\n1,\xff\n", "cannot be read as CSV"),
        (b"\xff\xfe\n1\n", "is not UTF-8"),
        ("price\n1\n".encode("utf-16"), "is not UTF-8"),
        (b"price,hour\n", "must hold at least one row"),
        (b"price,hour\n1," + b"9" * 2 * csv_rows.BLOCK_BYTES + b"\n1,2" * 9, "cannot be read as CSV"),
    ],
)
def test_what_is_no_csv_is_refused_in_a_sentence(body: bytes, sentence: str) -> None:
    said = refusal(CSV, body, spec("price", "hour", "venue"))
    assert said.startswith("415 " if "UTF-8" in sentence else "422 ")
    assert sentence in said


# answers


def decisions(classes: list[Any], n: int = 50, with_proba: bool = True) -> Decisions:
    p = np.random.default_rng(0).dirichlet(np.ones(len(classes)) / 2, n)
    scores = Scores(classes=classes, index=p.argmax(axis=1), probabilities=p if with_proba else None)
    return Decisions(scores, Thresholds(), "native")


@pytest.mark.parametrize("classes", [[-1, 0, 1], ["down", "up"], ["a,b", 'c"', "d\ne"], [False, True], [0.5, 1.5]])
@pytest.mark.parametrize("return_proba", [False, True])
@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_a_table_answers_with_the_columns_of_decisions(
    content_type: str, return_proba: bool, classes: list[Any]
) -> None:
    answers = decisions(classes)
    read = read_back(content_type, write_table(content_type, answers, return_proba))
    wanted = answers.frame(return_proba)
    text = [name for name in read if isinstance(read[name].dtype, pd.StringDtype)]  # of dtype object in the frame
    typed = read.astype(dict.fromkeys(text, object))
    pd.testing.assert_frame_equal(typed, wanted, check_dtype=content_type != CSV, rtol=1e-15)
    expected = ["prediction", "probability", "confidence"] if return_proba else ["prediction", "confidence"]
    assert list(read.columns[: len(expected)]) == expected


@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_a_model_without_probabilities_answers_unknown(content_type: str) -> None:
    read = read_back(content_type, write_table(content_type, decisions([0, 1], with_proba=False), True))
    assert list(read.columns) == ["prediction", "confidence"]
    assert set(read["confidence"]) == {"unknown"}


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        ([12345, None], [12345, None]),
        (["007", 'a, "b"\nc'], ["007", 'a, "b"\nc']),
        ([2**53 + 1, 2**60], [2**53 + 1, 2**60]),
        ([2**64, 1], [str(2**64), "1"]),
        ([1, 2.5], ["1", "2.5"]),
        ([True, "x"], ["true", "x"]),
        ([{"a": [1]}, None], ['{"a":[1]}', None]),
        ([None, None], [None, None]),
    ],
)
@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_identifiers_come_first_each_with_its_value_or_its_text(
    content_type: str, held: list[Any], expected: list[Any]
) -> None:
    kept = {"bar_id": held, "prediction": [8, 9]}  # an answer's column is the answer's
    body = write_table(content_type, decisions([0, 1], 2), False, kept)
    if content_type == CSV:
        read = pd.read_csv(io.BytesIO(body), dtype=str, keep_default_na=False, na_values=[""])
        expected = [None if value is None else str(value) for value in expected]
    else:
        read = read_back(content_type, body).astype({"bar_id": object})
    assert list(read.columns) == ["bar_id", "prediction", "confidence"]
    assert [None if pd.isna(value) else value for value in read["bar_id"]] == expected
    assert read["prediction"].astype(int).tolist() == decisions([0, 1], 2).predictions


@pytest.mark.parametrize("content_type", TABLE_TYPES)
def test_labels_of_several_types_are_told_as_text(content_type: str) -> None:
    read = read_back(content_type, write_table(content_type, decisions(["flat", 1, True]), False))
    assert set(read["prediction"]) == {"flat", "1", "true"}
