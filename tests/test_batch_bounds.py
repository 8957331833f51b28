"""Tables that would take too much, and damaged ones: refused in a sentence before they do any harm."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.errors import MAX_PROBLEMS, FeatureError
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.serving.content_types import ARROW, PARQUET, TABLE_TYPES
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.tables import read_table
from fin_pyfunc.serving.thrift import BINARY, DOUBLE, FALSE, I32, I64, LIST, TRUE, read_struct
from tests.feature_rows import spec
from tests.models import bars, bars_with_gaps
from tests.tables import (
    BODIES,
    LIMITS,
    WRITERS,
    as_arrow,
    as_parquet,
    refusal,
    table_of,
)

# bounds


@pytest.mark.parametrize("form", BODIES)
def test_more_rows_than_allowed_are_refused_and_as_many_are_not(form: str) -> None:
    content_type, write = BODIES[form]
    body = write(table_of(bars().head(21)))
    assert len(read_table(content_type, body, infer(bars()), Limits(max_batch_rows=21))) == 21
    said = refusal(content_type, body, infer(bars()), Limits(max_batch_rows=20))
    assert said.startswith("413 The batch has more rows than this server takes (20)")


LONG = "a" * (64 << 20)
SMALL = Limits(max_body_bytes=1 << 20)
#: What is said of a file of which a part is missing.
CUT_OFF = ("422 The body cannot be read", "422 The body is not a Parquet file")


@pytest.mark.parametrize("codec", ["zstd", "lz4"])
@pytest.mark.parametrize("content_type", [ARROW, PARQUET])
def test_a_body_that_unpacks_to_too_much_is_refused_before_it_is_unpacked(content_type: str, codec: str) -> None:
    bomb = pa.table({"venue": [LONG]})
    body = as_arrow(bomb, codec) if content_type == ARROW else as_parquet(bomb, compression=codec)
    del bomb
    assert len(body) < SMALL.max_body_bytes
    held = pa.total_allocated_bytes()
    said = refusal(content_type, body, spec("venue"), SMALL)
    assert said.startswith("413 The table takes more memory than this server gives to one (4194304 bytes)")
    assert pa.total_allocated_bytes() - held < 1 << 20


def test_a_dictionary_is_measured_too() -> None:
    body = as_arrow(pa.table({"venue": pa.array([LONG]).dictionary_encode()}), "zstd")
    assert refusal(ARROW, body, spec("venue"), SMALL).startswith("413 ")


@pytest.mark.parametrize("content_type", [ARROW, PARQUET])
def test_a_long_text_that_every_row_has_is_held_once(content_type: str) -> None:
    rows = pa.DictionaryArray.from_arrays(np.zeros(1000, dtype="int32"), ["a" * (1 << 20)])
    body = WRITERS[content_type](pa.table({"venue": rows}))  # 1 GiB if every row had its own
    texts = read_table(content_type, body, spec("venue"), Limits(max_body_bytes=2 << 20))["venue"].tolist()
    assert len(texts) == 1000
    assert all(text is texts[0] for text in texts)


def test_views_of_the_same_bytes_are_counted_as_often_as_they_are_there() -> None:
    text = "a" * (1 << 20)
    view = np.zeros((1000, 4), dtype=np.int32)
    view[:] = [len(text), int.from_bytes(b"aaaa", "little"), 0, 0]  # length, prefix, buffer, offset
    column = pa.Array.from_buffers(pa.string_view(), 1000, [None, pa.py_buffer(view), pa.py_buffer(text.encode())])
    assert refusal(ARROW, as_arrow(pa.table({"venue": column})), spec("venue"), SMALL).startswith("413 ")


@pytest.mark.parametrize("content_type", [ARROW, PARQUET])
def test_columns_that_take_nothing_in_the_body_are_counted(content_type: str) -> None:
    body = WRITERS[content_type](pa.table({f"x{i}": pa.nulls(1000) for i in range(600)}))
    assert refusal(content_type, body, None, Limits(max_body_bytes=1 << 20)).startswith("413 ")
    assert read_table(content_type, body, spec("price"), Limits(max_body_bytes=1 << 20)).shape == (1000, MAX_PROBLEMS)


def test_a_parquet_body_of_very_many_row_groups_is_refused() -> None:
    body = as_parquet(pa.table({"price": np.zeros(1001)}), row_group_size=1)
    assert "row groups" in refusal(PARQUET, body, spec("price"), Limits())


# damage


WHOLE = {
    form: write(table_of(bars_with_gaps().head(12).assign(venue=["EBS", "LMAX"] * 6)))
    for form, (_, write) in BODIES.items()
}


def outcome(content_type: str, body: bytes, features: FeatureSpec) -> RequestError | FeatureError | None:
    """Whatever a body turned into, it is read or refused, never anything else."""
    try:
        read = read_table(content_type, body, features, LIMITS)
        assert features.check(read).shape == (len(read), len(features.features))
    except (RequestError, FeatureError) as error:
        return error
    return None


def survives(content_type: str, body: bytes) -> None:
    refused = outcome(content_type, body, infer(bars_with_gaps().assign(venue="EBS")))
    assert refused is None or str(refused).endswith(".")
    assert not isinstance(refused, RequestError) or refused.status in (413, 415, 422)


@pytest.mark.parametrize("form", BODIES)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_body_that_is_cut_off_is_refused(form: str, data: st.DataObject) -> None:
    body = WHOLE[form]
    cut = data.draw(st.integers(0, len(body) - 1))
    survives(BODIES[form][0], body[:cut])
    if BODIES[form][0] == PARQUET:
        assert refusal(PARQUET, body[:cut], infer(bars_with_gaps())).startswith(CUT_OFF)


@pytest.mark.parametrize("form", BODIES)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_body_with_wrong_bytes_is_refused_or_read_and_harms_nobody(form: str, data: st.DataObject) -> None:
    body = bytearray(WHOLE[form])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    survives(BODIES[form][0], bytes(body))


@pytest.mark.parametrize("content_type", TABLE_TYPES)
@given(body=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_at_all_are_refused_in_a_sentence(content_type: str, body: bytes) -> None:
    survives(content_type, body)


def test_an_arrow_file_is_told_from_a_stream() -> None:
    sink = pa.BufferOutputStream()
    table = table_of(bars().head(3))
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    assert "rather than a stream" in refusal(ARROW, sink.getvalue().to_pybytes(), infer(bars()))
    assert refusal(PARQUET, as_arrow(table)).startswith("422 ")
    assert refusal(ARROW, as_parquet(table)).startswith("422 ")


def test_the_encodings_of_text_that_share_beginnings_are_refused() -> None:
    body = as_parquet(
        pa.table({"venue": ["a", "ab"]}), use_dictionary=False, column_encoding={"venue": "DELTA_BYTE_ARRAY"}
    )
    assert "write them plain or as dictionaries" in refusal(PARQUET, body, spec("venue"))


@pytest.mark.parametrize(
    "octets",
    [
        b"",
        b"\x15\x02",  # no end
        b"\x15\x80\x80\x80\x80\x10\x00",  # more than 32 bits
        b"\x16" + b"\xff" * 10 + b"\x01\x00",  # more than ten bytes
        b"\x15\x02\x05\x02\x02\x00",  # field 1 again
        b"\x18\x05ab\x00",  # text beyond the end
        b"\x19\x25\x02\x02\x00",  # a list of integers where structs belong
        b"\x19\xf6\xff\xff\xff\xff\x07",  # a list beyond the end
        b"\x1b\x00\x00",  # a map
        b"\x1c" * 99,  # structs in structs
        b"\x49" + b"\x19" * 99,  # lists in lists
    ],
)
def test_what_thrift_would_read_otherwise_is_not_read(octets: bytes) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        read_struct(octets, 0, len(octets), {1: {}})


def test_thrift_as_parquet_writes_it() -> None:
    octets = b"\x15\x03\x16\x04\x18\x02ab\x11\x12\x17" + b"\0" * 8 + b"\x19\x1c\x15\x02\x00\x05\x64\x06\x00"
    assert read_struct(b"\x19\x00\x00", 0, 3, {1: {}}) == ({(1, LIST): []}, 3)  # as fastparquet writes an empty list
    fields, end = read_struct(octets + b"more", 0, 99, {7: {}})
    expected = {(1, I32): -2, (2, I64): 2, (3, BINARY): b"ab", (4, TRUE): True, (5, FALSE): False}
    expected |= {(6, DOUBLE): b"\0" * 8, (7, LIST): [{(1, I32): 1}], (50, I32): 3}
    assert (fields, end) == (expected, len(octets))
