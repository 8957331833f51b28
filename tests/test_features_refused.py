"""What a model does not take: every refusal names its row and its feature, and nothing of the caller's."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.errors import MAX_PROBLEMS, FeatureError
from fin_pyfunc.model.features import infer
from tests.feature_rows import ROW, frame_of, refusal, spec


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


@pytest.mark.parametrize("name", ["price", "narrow", "hour", "side", "open", "venue", "region"])
def test_null_is_refused_where_training_had_none(name: str) -> None:
    with pytest.raises(FeatureError) as e:
        spec().table([{**ROW, name: None}])
    assert e.value.problems == ((0, name, "null"),)
    for missing in (math.nan, np.float32("nan"), pd.NA, pd.NaT):
        with pytest.raises(FeatureError) as e:
            spec().table([{**ROW, name: missing}])
        assert e.value.problems == ((0, name, "NaN"),)


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


@pytest.mark.parametrize(
    ("column", "says"),
    [
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


@given(st.sets(st.integers(0, 60), min_size=1))
def test_the_sentence_names_every_bad_row_and_takes_little_room(bad: set[int]) -> None:
    rows = [{"price": None if i in bad else 1.0} for i in range(61)]
    with pytest.raises(FeatureError) as e:
        spec("price").table(rows)
    said = re.match(r"Refused(?: in rows? ([0-9, -]+))?: feature 'price' is null", str(e.value))
    assert said
    spans = [span.split("-") for span in (said[1] or "0").split(", ")]
    assert {i for span in spans for i in range(int(span[0]), int(span[-1]) + 1)} == bad
