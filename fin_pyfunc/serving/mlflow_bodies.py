"""Check the body of a request to `/invocations` before MLflow and pandas read it.

MLflow reads what it is given without bounds, and pandas repairs a malformed table silently: a CSV row with one cell
more than the header shifts every column, and a column named twice gets another name.
"""

from __future__ import annotations

import codecs
import io
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fin_pyfunc.serving import csv_rows
from fin_pyfunc.serving.arrow_columns import is_text, text_bytes
from fin_pyfunc.serving.content_types import CSV, JSON, PARQUET
from fin_pyfunc.serving.decode import too_many_columns
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.expansion import TooLargeError, check_footer, check_pages
from fin_pyfunc.serving.json_keys import decode_unique
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.tables import EXPANSION, MAX_ROW_GROUPS, check_cells, refusing

if TYPE_CHECKING:
    from mlflow.types import Schema

#: Bytes of a list or an object of CPython 3.11, with its entry in the list around it, and of a number and its entry.
_CONTAINER, _ITEM = 88, 32
#: How many times the largest body its decoded JSON may take in memory. Rows of five numbers of six characters take 6.5
#: times their text; `[],[],…` takes 27 times.
_JSON_EXPANSION = 8
#: A lone carriage return after which the tokenizer of pandas loses its place: before a blank it may read the lines
#: before it again (pandas issue 51141), and at the end of an empty line it drops the delimiter that follows.
_MISREAD = (b"\r ", b"\r\t", b"\r\r,", b"\n\r,")


def unreadable(content_type: str) -> RequestError:
    """The 422 for a body that is not what its content type says, or not in MLflow's protocol."""
    return RequestError(
        422,
        f"The body could not be read as {content_type}: JSON has one of the keys dataframe_split, "
        "dataframe_records, instances or inputs; CSV has a header line; see /docs.",
    )


def read_json(body: bytes, max_columns: int, schema: Schema | None, limits: Limits) -> dict[str, Any]:
    """Decode a JSON body, as MLflow does.

    Parameters
    ----------
    body : bytes
    max_columns : int
        Columns of a table in it, however it is written; keys of an object.
    schema : mlflow.types.Schema or None
        Of the model's input: says whether a list is a row or a value.
    limits : Limits
        `max_body_bytes`: the decoded body and its table may take some times as much.

    Returns
    -------
    dict

    Raises
    ------
    RequestError
        413: it would take too much memory. 422: it is not a JSON object, an object in it names a key twice, it has too
        many columns, a column is named twice, or rows are of different lengths.
    """
    containers = body.count(b"[") + body.count(b"{")
    if containers * _CONTAINER + body.count(b",") * _ITEM > _JSON_EXPANSION * limits.max_body_bytes:
        raise RequestError(
            413,
            "The decoded JSON takes more memory than this server gives to one body: send fewer rows at a time, or "
            "raise deployment.api.limits.max_body_bytes.",
        )
    try:
        decoded = decode_unique(body, max_columns)
    except ValueError:
        raise unreadable(JSON) from None
    if not isinstance(decoded, dict):
        raise unreadable(JSON)
    with refusing(JSON, limits):
        split = decoded.get("dataframe_split")
        if isinstance(split, dict):
            _check_split(split, max_columns, limits)
        if isinstance(records := decoded.get("dataframe_records"), list):
            _check_rows(records, None, max_columns, limits)
        widest = _most_items(schema, max_columns)
        for key in ("instances", "inputs"):
            _check_tensor(decoded.get(key), max_columns, widest, limits)
    return decoded


def check_csv(body: bytes, max_columns: int, limits: Limits, known: Sequence[str] = ()) -> int:
    """Refuse a CSV body that is malformed, or that pandas would read in another way than it is written.

    Parameters
    ----------
    body : bytes
    max_columns : int
    limits : Limits
        `max_body_bytes`: the table may take some times as much.
    known : sequence of str, default ()
        Features of the model.

    Returns
    -------
    int
        How many rows there are. pandas leaves out a row of a single blank cell, so that this must be compared with
        what it reads.

    Raises
    ------
    RequestError
        413: it would take too much memory. 422: it is not UTF-8 with a header, has too many columns or one named twice,
        or a row has more or fewer cells than the header.
    """
    if body[:5].removeprefix(codecs.BOM_UTF8).startswith(b"\r,") or any(part in body for part in _MISREAD):
        raise misread()
    n_rows = 0
    with refusing(CSV, limits):
        names = csv_rows.columns(body)
        csv_rows.require_commas(names, known)
        _require_text(body)
        if len(names) > max_columns:
            raise too_many_columns(max_columns)
        _require_once(name or f"Unnamed: {i}" for i, name in enumerate(names))  # as pandas names a column without one
        with csv_rows.batches(body, names, names[:1]) as stream:
            for batch in stream:
                n_rows += batch.num_rows
                check_cells(n_rows, len(names), limits)
    return n_rows


def csv_as_json(body: bytes, schema: Schema | None) -> dict[str, Any] | None:
    """A CSV body as JSON, where MLflow has no type to read a column as: dates and times, of which it reads JSON.

    Parameters
    ----------
    body : bytes
        Checked by `check_csv`.
    schema : mlflow.types.Schema or None

    Returns
    -------
    dict or None
        None where MLflow reads it.
    """
    if schema is None or schema.is_tensor_spec() or not schema.has_input_names():
        return None
    import pandas as pd
    from mlflow.types import DataType

    kinds = {str(column.name): column.type for column in schema.inputs}
    texts = {name for name, kind in kinds.items() if kind == DataType.datetime or not isinstance(kind, DataType)}
    if not texts:
        return None
    try:
        frame = pd.read_csv(
            io.BytesIO(body),
            dtype={name: "object" if name in texts else kind.to_pandas() for name, kind in kinds.items()},
        )
    except (ValueError, TypeError):
        raise unreadable(CSV) from None
    rows = frame.astype(object).where(frame.notna(), None).to_numpy().tolist()
    return {"dataframe_split": {"columns": list(frame.columns), "data": rows}}


def misread() -> RequestError:
    """The 422 for a CSV body that pandas reads in another way than it is written."""
    return RequestError(
        422,
        "The CSV body can be read in two ways: end each line with a line feed, leave no blank lines, and have no "
        "carriage return within a cell.",
    )


def plain_parquet(body: bytes, max_columns: int, limits: Limits) -> bytes:
    """Write a Parquet body anew, for a reader that trusts what it is given: a damaged footer may end the process.

    Parameters
    ----------
    body : bytes
    max_columns : int
    limits : Limits
        `max_body_bytes`: the table may take some times as much.

    Returns
    -------
    bytes
        The same columns, types and pandas metadata.

    Raises
    ------
    RequestError
        413: it would take too much memory. 422: damaged, with nested columns, too many, or one named twice.
    """
    import pyarrow as pa
    import pyarrow.parquet

    limit = EXPANSION * limits.max_body_bytes
    with refusing(PARQUET, limits):
        check_footer(body)
        file = pyarrow.parquet.ParquetFile(pa.BufferReader(body))
        metadata = file.metadata
        if metadata.num_columns > max_columns:
            raise too_many_columns(max_columns)
        schema = file.schema_arrow
        _require_once(schema.names)
        leaves = list(range(metadata.num_columns))
        check_cells(metadata.num_rows, len(leaves), limits)
        if metadata.num_row_groups > MAX_ROW_GROUPS:
            raise TooLargeError
        table = schema.empty_table()
        if metadata.num_rows and leaves:
            check_pages(body, leaves, len(leaves), limit)
            texts = [name for name in schema.names if is_text(schema.field(name).type)]
            file = pyarrow.parquet.ParquetFile(pa.BufferReader(body), metadata=metadata, read_dictionary=texts)
            table = file.reader.read_all(column_indices=leaves, use_threads=False)
            table.validate(full=True)
            if table.num_rows != metadata.num_rows:
                raise ValueError("not as many rows as the file says")
            chunks = (chunk for column in table.unify_dictionaries().columns for chunk in column.chunks)
            if sum(map(text_bytes, chunks)) > limit:
                raise TooLargeError
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table.cast(schema), sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow has no types


def _require_text(body: bytes) -> None:
    """Raise ValueError for what is not UTF-8 or holds a NUL, in constant memory."""
    if b"\0" in body:
        raise ValueError("a NUL")
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(body), csv_rows.BLOCK_BYTES):
        decoder.decode(body[start : start + csv_rows.BLOCK_BYTES])
    decoder.decode(b"", final=True)


def _require_once(names: Iterable[Any]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise RequestError(422, "A column of the table is there more than once: send each feature once.")
        seen.add(name)


def _check_split(split: dict[str, Any], max_columns: int, limits: Limits) -> None:
    """Rows, and beside them the names of their columns and an index."""
    columns, data = split.get("columns"), split.get("data")
    n_columns, expected = 1, None
    if isinstance(columns, list):
        levels = _lists(columns)  # of a MultiIndex of pandas
        n_columns = max([len(columns), *map(len, levels)])
        if n_columns > max_columns:
            raise too_many_columns(max_columns)
        if not levels and not any(isinstance(name, dict) for name in columns):
            _require_once(columns)
            expected = n_columns
    if isinstance(data, list):
        _check_rows(data, expected, max_columns, limits)
    elif isinstance(data, dict):
        _check_columns(data, n_columns, limits)
    if isinstance(index := split.get("index"), list):  # pandas makes a row for each of it, whatever the data
        check_cells(max([len(index), *map(len, _lists(index))]), n_columns, limits)


def _check_rows(rows: list[Any], expected: int | None, max_columns: int, limits: Limits) -> None:
    """Rows that are objects, or lists of one length."""
    lists = _lists(rows)
    widths = set(map(len, lists))
    n_columns = max([_count_keys(rows, max_columns), expected or 0, *widths])
    if n_columns > max_columns:
        raise too_many_columns(max_columns)
    check_cells(len(rows), n_columns, limits)
    width = expected or max(widths, default=0)
    if widths - {width} and len(lists) == len(rows):  # else pandas takes each for the value of a single column
        odd = next(i for i, row in enumerate(lists) if len(row) != width)
        raise RequestError(
            422,
            f"Row {odd} of the table (rows are counted from 0) has {len(rows[odd])} values, but there are {width} "
            "columns: send one value a column, null where there is none.",
        )


def _check_columns(columns: dict[str, Any], n_columns: int, limits: Limits) -> None:
    """Columns by their names; pandas makes a row of each key of those that are objects."""
    n_rows = max(map(len, _lists(columns.values())), default=1)
    n_rows += sum(len(column) for column in columns.values() if isinstance(column, dict))
    check_cells(n_rows, max(len(columns), n_columns), limits)


def _check_tensor(value: Any, max_columns: int, widest: int, limits: Limits) -> None:
    """What TensorFlow Serving calls `instances` and `inputs`: rows, or columns by their names."""
    if isinstance(value, dict):
        _check_columns(value, 1, limits)
    elif isinstance(value, list):
        check_cells(len(value), _count_keys(value, max_columns), limits)
        if max(map(len, _lists(value)), default=0) > widest:
            raise too_many_columns(max_columns)


def _count_keys(rows: Sequence[Any], max_columns: int) -> int:
    """How many different keys rows have that are objects: pandas makes a column of each."""
    keys: set[str] = set()
    for row in rows:
        if isinstance(row, dict):
            keys.update(row)
            if len(keys) > max_columns:
                raise too_many_columns(max_columns)
    return len(keys)


def _lists(values: Iterable[Any]) -> list[list[Any]]:
    return [value for value in values if isinstance(value, list)]


def _most_items(schema: Schema | None, max_columns: int) -> int:
    """How long a list may be that stands for a row: any length where the model takes lists as values."""
    if schema is None:
        return max_columns
    if schema.is_tensor_spec():
        sizes: list[int] = [2 * math.prod(map(abs, spec.shape)) for spec in schema.inputs]
        return max([max_columns, *sizes])
    from mlflow.types import DataType

    return max_columns if all(isinstance(kind, DataType) for kind in schema.input_types()) else sys.maxsize
