"""Rows of a CSV body: UTF-8, commas, a header line; every column is read as text, and then as what its feature is.

An empty cell is null. Stricter than a CSV file on the command line: what JSON refuses (NaN, infinity) is refused here.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from fin_pyfunc.model.errors import FeatureError, Problem
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.serving.arrow_columns import categories
from fin_pyfunc.serving.content_types import refuse_utf_16
from fin_pyfunc.serving.errors import RequestError

if TYPE_CHECKING:
    import pandas as pd

#: Bytes that are parsed at a time, and so the longest row.
BLOCK_BYTES = 1 << 20
#: A number as JSON writes it, and besides +1, 01, 1. and .5, which other writers of CSV have.
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_NAN = re.compile(r"[+-]?nan", re.IGNORECASE)
_INFINITE = re.compile(r"[+-]?inf(inity)?", re.IGNORECASE)
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}
#: What other writers put between cells: of countries whose numbers have a decimal comma, and of spreadsheets.
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_ODD_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")

Values = np.ndarray[Any, Any]


def columns(body: bytes) -> list[str]:
    """The names in the header line.

    Raises
    ------
    ValueError
        There is no header, or it is not UTF-8.
    RequestError
        415: it is UTF-16 or UTF-32.
    """
    refuse_utf_16(body)
    text = codecs.getincrementaldecoder("utf-8-sig")().decode(body[:BLOCK_BYTES])  # it may end within a character
    try:
        found = next((row for row in csv.reader(io.StringIO(text, newline="")) if row), None)
    except csv.Error as e:
        raise ValueError("not CSV") from e
    if found is None:
        raise ValueError("no header")
    return found


def require_commas(names: Sequence[str], known: Sequence[str]) -> None:
    """Refuse cells that are parted by something else than commas, which would be read as one column.

    Parameters
    ----------
    names : sequence of str
        Of the header.
    known : sequence of str
        Features of the model; a model that says nothing of its features takes any column.

    Raises
    ------
    RequestError
        422.
    """
    if not known or len(names) != 1 or names[0] in known:
        return
    if separator := next((word for sign, word in _SEPARATORS.items() if sign in names[0]), None):
        raise RequestError(
            422,
            f"The CSV body has one column, whose name holds {separator}: write it with commas between cells (in "
            "pandas, frame.to_csv(index=False)) and a point in numbers.",
        )


def batches(body: bytes, names: Sequence[str], wanted: Sequence[str]) -> Any:
    """The wanted columns as text, block by block, as a pyarrow.csv.CSVStreamingReader; an empty cell is null.

    Raises
    ------
    RequestError
        422: a row has more or fewer cells than the header.
    pyarrow.ArrowException
        It is no CSV.
    """
    import pyarrow as pa
    import pyarrow.csv

    if len(body) <= BLOCK_BYTES and not body.endswith((b"\n", b"\r")):
        body += b"\n"  # Arrow does not read a header that ends with the file
    return pyarrow.csv.open_csv(
        pa.BufferReader(body),
        # one thread: only then does Arrow know the number of a bad row
        read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
        convert_options=pyarrow.csv.ConvertOptions(
            include_columns=list(wanted),
            column_types=dict.fromkeys(names, pa.string()),
            null_values=[""],
            strings_can_be_null=True,
        ),
    )


def odd_row(error: Exception) -> RequestError | None:
    """The refusal of a row with too many or too few cells, where that is what Arrow's error says."""
    found = _ODD_ROW.search(str(error))
    if found is None:
        return None
    number, expected, got = map(int, found.groups())  # Arrow counts rows from 1, with the header
    return RequestError(
        422,
        f"Row {number - 2} of the CSV body (data rows are counted from 0) has {got} cells, but the header names "
        f"{expected} columns: mend the row, and quote cells that hold commas or quotes.",
    )


def read(cells: Any, feature: Feature) -> Values | pd.Categorical:
    """A column of cells as `FeatureSpec.check` takes it.

    Parameters
    ----------
    cells : pyarrow.ChunkedArray of strings
        Empty ones are null.
    feature : Feature

    Returns
    -------
    ndarray of shape (n_rows,), float64 or object; or Categorical, where text has codes
        What cannot be read as the feature is still the text it was, and null is None, so that the check names both.
        Booleans may be written as true, false, 1 and 0, in any case.

    Raises
    ------
    FeatureError
        A column of numbers of a feature of any kind, which no check looks at, holds NaN or infinity.
    """
    if feature.kind in ("number", "integer"):
        return _numbers(cells, feature.nullable)
    if feature.is_coded_text:
        held = categories(cells.dictionary_encode().unify_dictionaries().combine_chunks())
        return _objects(cells.to_pylist()) if held is None else held
    if feature.kind == "boolean":
        return _objects([None if cell is None else _boolean(cell) for cell in cells.to_pylist()])
    if feature.kind == "category":
        return _objects([None if cell is None else _category(cell, feature) for cell in cells.to_pylist()])
    if feature.kind == "any":
        return _any(cells, feature.name)
    return _objects(cells.to_pylist())


def write(table: Any) -> bytes:
    """A pyarrow.Table as CSV with a header line; numbers in as few digits as tell them from every other."""
    import pyarrow as pa
    import pyarrow.csv

    for style in ("none", "needed"):  # "needed" quotes every text, so only where one has a comma, quote or line break
        sink = pa.BufferOutputStream()
        try:
            pyarrow.csv.write_csv(table, sink, pyarrow.csv.WriteOptions(quoting_style=style))
        except pa.ArrowInvalid:
            continue
        return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow has no types
    raise AssertionError("Arrow quotes every text")


def _numbers(cells: Any, nullable: bool) -> Values:
    import pyarrow as pa
    import pyarrow.compute as pc

    trimmed = pc.utf8_trim_whitespace(cells)
    known = pc.if_else(pc.equal(trimmed, ""), pa.scalar(None, pa.string()), trimmed)
    if nullable or not known.null_count:
        try:
            values = np.asarray(pc.cast(known, pa.float64()).to_numpy(), dtype=np.float64)
            if np.isfinite(values).sum() == len(known) - known.null_count:
                return values
        except pa.ArrowInvalid:
            pass  # at least one cell is no number
    # a table's NaN is a null, so where that is allowed the word stays text, and is refused as text
    return _objects([None if cell is None else _number(cell, nullable) for cell in known.to_pylist()])


def _number(cell: str, nullable: bool) -> float | str:
    if _NUMBER.fullmatch(cell) or _INFINITE.fullmatch(cell) or (_NAN.fullmatch(cell) and not nullable):
        return float(cell)
    return cell


def _boolean(cell: str) -> bool | str:
    return _BOOLEANS.get(cell.strip().lower(), cell)


def _category(cell: str, feature: Feature) -> Any:
    known = feature.categories or []
    if cell in known:
        return cell
    if any(isinstance(category, bool) for category in known) and isinstance(found := _boolean(cell), bool):
        return found
    if any(isinstance(category, int | float) for category in known):
        return _number(cell.strip(), nullable=True)
    return cell


def _any(cells: Any, name: str) -> Values:
    """A column of a model that says no types: each cell is a number, else a boolean, else text."""
    numbers = _numbers(cells, nullable=True)
    if numbers.dtype != object:
        return numbers
    values = [None if cell is None else _untyped(cell) for cell in cells.to_pylist()]
    bad = [(i, value) for i, value in enumerate(values) if isinstance(value, float) and not math.isfinite(value)]
    if bad:
        words = {True: "NaN", False: "infinite or too large for float64"}
        raise FeatureError([Problem(i, name, words[value != value]) for i, value in bad])
    return np.array(values) if all(isinstance(value, bool) for value in values) else _objects(values)


def _untyped(cell: str) -> float | bool | str | None:
    trimmed = cell.strip()
    if not trimmed:
        return cell
    number = _number(trimmed, nullable=False)
    if isinstance(number, float):
        return number
    return trimmed.lower() == "true" if trimmed.lower() in ("true", "false") else cell


def _objects(values: list[Any]) -> Values:
    held = np.empty(len(values), dtype=object)
    held[:] = values
    return held
