"""Rows are read in one pass, and exactly as they are value by value."""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec

KINDS = {"number": "float64", "integer": "int64", "boolean": "bool"}
VALUES = (
    st.floats() | st.integers(-(2**54), 2**54) | st.booleans() | st.none() | st.sampled_from(["3", "", "x"])
    | st.sampled_from([-0.0, 3.0, 3.5, 1e308, 2.0**53, 5e-324, 1e30, [], {}, [1.5]])
)  # fmt: skip


@st.composite
def specs(draw: st.DrawFn) -> FeatureSpec:
    features = []
    for i in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(sorted(KINDS)))
        dtype = draw(st.sampled_from(["float64", "float32"])) if kind == "number" else KINDS[kind]
        nullable = draw(st.booleans())
        optional = nullable and draw(st.booleans())
        name = ["a", "b b", "def", 'ü"'][i]
        features.append(Feature(name=name, kind=kind, dtype=dtype, nullable=nullable, optional=optional))  # type: ignore[arg-type]
    identifiers, extra = draw(st.sampled_from([[], ["bar_id"]])), draw(st.sampled_from(["ignore", "forbid"]))
    return FeatureSpec(features=features, identifiers=identifiers, extra=extra)  # type: ignore[arg-type]


@st.composite
def questions(draw: st.DrawFn) -> tuple[FeatureSpec, list[dict[str, Any]]]:
    spec = draw(specs())
    names = [*spec.names, "bar_id", "other"]
    good = {f.name: {"number": 1.5, "integer": 3, "boolean": True}[f.kind] for f in spec.features}
    rows = []
    for _ in range(draw(st.sampled_from([1, 2, 12]))):
        row = dict(good)
        for name in draw(st.lists(st.sampled_from(names), max_size=2, unique=True)):
            row[name] = draw(VALUES)
        for name in draw(st.lists(st.sampled_from(names), max_size=1)):
            row.pop(name, None)
        rows.append(row)
    return spec, rows


def value_by_value(spec: FeatureSpec, rows: list[dict[str, Any]]) -> np.ndarray[Any, Any] | None:
    slow = FeatureSpec(features=spec.features, identifiers=spec.identifiers, extra=spec.extra)
    slow.__dict__["reader"] = None
    try:
        return np.asarray(slow.table(rows))
    except FeatureError:
        return None


@given(questions())
def test_dicts_are_read_in_one_pass_as_they_are_value_by_value(
    question: tuple[FeatureSpec, list[dict[str, Any]]],
) -> None:
    spec, rows = question
    if spec.reader is None:
        return
    quick, slow = spec.reader.convert(rows), value_by_value(spec, rows)
    if quick is not None:
        assert slow is not None
        assert quick.dtype == np.float64
        np.testing.assert_array_equal(quick, slow)


@given(questions())
def test_json_is_read_in_one_pass_as_it_is_value_by_value(question: tuple[FeatureSpec, list[dict[str, Any]]]) -> None:
    spec, rows = question
    if spec.reader is None:
        return
    try:
        encoded = json.dumps(rows, allow_nan=False).encode()
    except ValueError:
        return  # JSON has no NaN
    slow = value_by_value(spec, msgspec.json.decode(encoded))
    for quick in (spec.reader.many(encoded), np_or_none([spec.reader.one(json.dumps(row)) for row in rows])):  # type: ignore[arg-type]
        if quick is not None:
            assert slow is not None
            np.testing.assert_array_equal(quick, slow)


def np_or_none(rows: list[Any]) -> np.ndarray[Any, Any] | None:
    return None if any(row is None for row in rows) else np.concatenate(rows)


def test_ordinary_rows_take_the_quick_way() -> None:
    features = [
        Feature(name="x y", kind="number", dtype="float64", nullable=True),
        Feature(name="n", kind="integer", dtype="int64"),
        Feature(name="b", kind="boolean", dtype="bool"),
    ]
    reader = FeatureSpec(features=features, identifiers=["bar_id"]).reader
    assert reader is not None
    row = b'{"b": true, "n": 3.0, "bar_id": "k7", "x y": null, "more": 1}'
    expected = np.array([[math.nan, 3, 1]])
    np.testing.assert_array_equal(reader.one(row), expected)  # type: ignore[arg-type]
    np.testing.assert_array_equal(reader.many(b"[" + b",".join([row] * 30) + b"]"), expected.repeat(30, axis=0))  # type: ignore[arg-type]
    np.testing.assert_array_equal(reader.convert([{"x y": 1, "n": 3, "b": False}]), [[1.0, 3, 0]])  # type: ignore[arg-type]


def test_a_name_that_json_escapes_is_left_to_the_other_way() -> None:
    spec = FeatureSpec(features=[Feature(name='x"', kind="number", dtype="float64")])
    assert spec.reader is None
    np.testing.assert_array_equal(np.asarray(spec.table([{'x"': 1.5}])), [[1.5]])


@pytest.mark.parametrize("kind", ["string", "category", "any"])
def test_what_is_no_number_and_has_no_codes_is_left_to_the_other_way(kind: Any) -> None:
    assert FeatureSpec(features=[Feature(name="x", kind=kind, dtype="object", categories=["a"])]).reader is None
