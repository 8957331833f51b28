"""Rows of a batch as a table: Arrow IPC stream, Parquet or CSV in, any of them out.

Only the columns that the model looks at are read, and nothing is unpacked before its size is known. What comes out is
a DataFrame for `FeatureSpec.check`, which tells wrong types and nulls.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fin_pyfunc.model.decision import Decisions, label_names
from fin_pyfunc.model.errors import MAX_PROBLEMS
from fin_pyfunc.model.feature import Feature, Kind
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving import csv_rows
from fin_pyfunc.serving.arrow_columns import Values, categories, is_readable, is_text, odd_values, text_bytes, values
from fin_pyfunc.serving.content_types import ARROW, CSV, PARQUET
from fin_pyfunc.serving.decode import too_many_columns, too_many_rows
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.expansion import NotParquetError, TooLargeError, check_footer, check_pages, check_stream
from fin_pyfunc.serving.http import encode
from fin_pyfunc.serving.json_values import json_values
from fin_pyfunc.serving.settings import Limits

if TYPE_CHECKING:
    import pandas as pd

#: How many times the largest body a table may take in memory. The objects that a JSON body of that size is decoded to
#: take about as much, so that a table does no more harm than JSON, and one that is not compressed always fits.
EXPANSION = 4
#: Row groups of a Parquet body: each is read by itself, and is meant to hold thousands of rows.
MAX_ROW_GROUPS = 1000
#: Bytes that a cell takes as a number, or as a reference to its text.
_CELL = 8


class _Read(NamedTuple):
    """What a body holds: how many rows, the names of all its columns, and the values of those that are wanted."""

    n_rows: int
    names: Sequence[str]
    columns: Mapping[str, Values | pd.Categorical]


def read_table(content_type: str, body: bytes, spec: FeatureSpec | None, limits: Limits) -> pd.DataFrame:
    """The rows of a body that is not JSON.

    Parameters
    ----------
    content_type : str
        One of `content_types.TABLE_TYPES`.
    body : bytes
    spec : FeatureSpec or None
        Which columns are needed, and how CSV text is to be read; None for a model that says nothing of its features,
        which gets every column.
    limits : Limits
        `max_batch_rows`, and `max_body_bytes`, of which the table takes at most `EXPANSION` times as much.

    Returns
    -------
    DataFrame of shape (n_rows, n_columns)
        Not checked yet. A column that no feature could hold (a list, a time) has one odd object a row, by which the
        check names it; one that the spec does not know has no values, and is there only where it matters to the check.

    Raises
    ------
    RequestError
        413: too many rows, or too much memory. 422: damaged, without rows, or with a column that is there twice or
        that no model takes.
    FeatureError
        422: NaN or infinity in a CSV column of a model that says no types.
    """
    import pandas as pd

    with refusing(content_type, limits):
        read = _READERS[content_type](body, spec, limits)
    if not read.n_rows:
        raise RequestError(422, "The table must hold at least one row.")
    columns: dict[str, Any] = dict(read.columns)
    for name, held in read.columns.items():
        feature = None if spec is None else spec.feature_of(name)
        if held.dtype == object and feature is not None and feature.kind != "any":
            columns[name] = pd.Series(held, dtype=object)  # else pandas looks at every text
    if spec is not None and (spec.extra == "forbid" or not set(spec.names) <= set(read.names)):
        # for the check to name them: as unknown, or as a missing feature that is misspelt
        known = {*spec.names, *spec.identifiers}
        columns |= dict.fromkeys([name for name in read.names if name not in known][:MAX_PROBLEMS])
    # a model that says nothing may write into what it gets, and Arrow's memory is read-only
    return pd.DataFrame(columns, index=pd.RangeIndex(read.n_rows), copy=spec is None)


@contextmanager
def refusing(content_type: str, limits: Limits) -> Iterator[None]:
    """Say what is wrong with a body that cannot be read."""
    import pyarrow as pa

    try:
        yield
    except TooLargeError:
        raise RequestError(
            413,
            f"The table takes more memory than this server gives to one ({EXPANSION * limits.max_body_bytes} bytes): "
            "send fewer rows or columns at a time, or raise deployment.api.limits.max_body_bytes.",
        ) from None
    except NotParquetError:
        raise RequestError(
            422,
            "The body is not a Parquet file: send the bytes of one as they are, or name what it is in Content-Type.",
        ) from None
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError) as e:
        refusal = csv_rows.odd_row(e) if content_type == CSV else None
        raise refusal or RequestError(422, _UNREADABLE[content_type]) from None


def read_identifiers(content_type: str, body: bytes, spec: FeatureSpec | None, limits: Limits) -> dict[str, list[Any]]:
    """The columns that the model accepts and never scores, for a table that answers, and for those who record them.

    Parameters
    ----------
    content_type, body, spec, limits
        As `read_table` takes them.

    Returns
    -------
    dict of str to list
        Name to one JSON value a row, of CSV its text; what cannot be read is left out, and refuses nothing.
    """
    names = [] if spec is None else spec.identifiers
    try:
        return _untouched(content_type, body, names, limits)
    except Exception:  # whatever it is: they are not needed to answer
        found: dict[str, list[Any]] = {}
        for name in names:
            with suppress(Exception):
                found |= _untouched(content_type, body, [name], limits)
        return found


def _untouched(content_type: str, body: bytes, names: Sequence[str], limits: Limits) -> dict[str, list[Any]]:
    if not names:
        return {}
    kind: Kind = "string" if content_type == CSV else "any"
    spec = FeatureSpec(features=[Feature(name=name, kind=kind, dtype="object", nullable=True) for name in names])
    return {name: json_values(held) for name, held in _READERS[content_type](body, spec, limits).columns.items()}


def write_table(
    content_type: str, decisions: Decisions, return_proba: bool, identifiers: Mapping[str, Sequence[Any]] | None = None
) -> bytes:
    """The answer for each row, in the order of the request.

    Parameters
    ----------
    content_type : str
        One of `content_types.TABLE_TYPES`.
    decisions : Decisions
    return_proba : bool
        Whether there are columns `probability` and `probability_<label>` beside `prediction` and `confidence`.
    identifiers : mapping of str to sequence, optional
        As `read_identifiers` returns them; these columns come first. One that has the name of an answer's column is
        left out.

    Returns
    -------
    bytes
    """
    import pyarrow as pa

    answers = _answers(decisions, return_proba)
    kept = {name: _identifier(held) for name, held in (identifiers or {}).items() if name not in answers}
    table, sink = pa.table({**kept, **answers}), pa.BufferOutputStream()
    if content_type == ARROW:
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
    elif content_type == PARQUET:
        import pyarrow.parquet

        pyarrow.parquet.write_table(table, sink)
    else:
        return csv_rows.write(table)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return] # pyarrow has no types


def _identifier(held: Sequence[Any]) -> Any:
    """JSON values as an Arrow column: of their own type where all are of one, else as text."""
    import pyarrow as pa

    kinds = {type(value) for value in held if value is not None}
    if len(kinds) == 1 and kinds <= {str, int, float, bool}:
        with suppress(pa.ArrowException, OverflowError):  # an integer beyond 64 bits
            return pa.array(held)
    texts = [value if value is None or isinstance(value, str) else encode(value).decode() for value in held]
    return pa.array(texts, pa.string())


def _answers(decisions: Decisions, return_proba: bool) -> dict[str, Any]:
    """The columns of `Decisions.frame` as Arrow takes them, without a Python object a number."""
    import pyarrow as pa

    scores = decisions.scores
    names, kinds = label_names(scores.classes), {type(label) for label in scores.classes}
    # a column holds one type: labels of several become the text that JSON has for them
    labels = np.array(scores.classes if len(kinds) == 1 or kinds <= {int, float} else names)
    columns: dict[str, Any] = {"prediction": pa.array(labels).take(pa.array(scores.index))}
    p = scores.probabilities if return_proba else None
    if p is not None:
        columns["probability"] = decisions.chosen
    columns["confidence"] = pa.array(decisions.confidences, pa.string())
    if p is not None:
        columns |= {f"probability_{name}": p[:, i] for i, name in enumerate(names)}
    return columns


def _arrow(body: bytes, spec: FeatureSpec | None, limits: Limits) -> _Read:
    import pyarrow as pa

    limit = EXPANSION * limits.max_body_bytes
    check_stream(body, limit)
    with pa.ipc.open_stream(pa.BufferReader(body)) as stream:
        schema = stream.schema
    readable, odd = _wanted(schema, spec, limits)
    # without any, Arrow would read them all
    fields = [schema.get_field_index(name) for name in readable or schema.names[:1]]
    options = pa.ipc.IpcReadOptions(included_fields=fields, use_threads=False)
    n_rows, batches = 0, []
    with pa.ipc.open_stream(pa.BufferReader(body), options=options) as stream:
        for batch in stream:
            n_rows += batch.num_rows
            _check_size(n_rows, len(readable) + len(odd), limits)
            batch.validate(full=True)  # what follows trusts offsets, indices and text
            if batch.num_rows:
                batches.append(batch)
        table = pa.Table.from_batches(batches, stream.schema).select(readable)
    if table.nbytes > limit:  # columns may lie over each other
        raise TooLargeError
    return _Read(n_rows, schema.names, _columns(table, spec, limit) | _odd(odd, n_rows))


def _parquet(body: bytes, spec: FeatureSpec | None, limits: Limits) -> _Read:
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    limit = EXPANSION * limits.max_body_bytes
    check_footer(body)
    file = ParquetFile(pa.BufferReader(body))
    schema, metadata = file.schema_arrow, file.metadata
    readable, odd = _wanted(schema, spec, limits)
    n_rows = metadata.num_rows
    _check_size(n_rows, len(readable) + len(odd), limits)
    if metadata.num_row_groups > MAX_ROW_GROUPS:
        raise RequestError(
            413, f"The Parquet body has more than {MAX_ROW_GROUPS} row groups: write it with more rows in each."
        )
    if not n_rows:
        return _Read(0, schema.names, {})
    leaves = _leaves(metadata, readable)
    check_pages(body, leaves, metadata.num_columns, limit)
    # as dictionaries, so that a long text that every row has is unpacked once
    texts = [name for name in readable if is_text(schema.field(name).type)]
    if texts:
        file = ParquetFile(pa.BufferReader(body), metadata=metadata, read_dictionary=texts)
    # by position: by name, pyarrow reads "close.1" with "close"
    table = file.reader.read_all(column_indices=leaves, use_threads=False) if readable else pa.table({})
    if readable and table.num_rows != n_rows:
        raise ValueError("not as many rows as the file says")
    table.validate(full=True)
    return _Read(n_rows, schema.names, _columns(table, spec, limit) | _odd(odd, n_rows))


def _csv(body: bytes, spec: FeatureSpec | None, limits: Limits) -> _Read:
    import pyarrow as pa

    names = csv_rows.columns(body)
    csv_rows.require_commas(names, [] if spec is None else spec.names)
    wanted = _once(names, spec, limits)
    n_rows, batches = 0, []
    # without a wanted column there are still rows to count
    with csv_rows.batches(body, names, wanted or names[:1]) as stream:
        for batch in stream:
            n_rows += batch.num_rows
            _check_size(n_rows, len(wanted), limits)
            batches.append(batch)
        table = pa.Table.from_batches(batches, stream.schema)
    features = {name: None if spec is None else spec.feature_of(name) for name in wanted}
    untyped = {name: Feature(name=name, kind="any", dtype="object") for name in wanted}
    return _Read(
        n_rows, names, {name: csv_rows.read(table[name], features[name] or untyped[name]) for name in wanted}
    )  # fmt: skip


_READERS = {ARROW: _arrow, PARQUET: _parquet, CSV: _csv}
_UNREADABLE = {
    ARROW: "The body cannot be read as an Arrow IPC stream: it is cut off or damaged, an Arrow or Feather file rather "
    "than a stream, or written before Arrow 1.0.",
    PARQUET: "The body cannot be read as Parquet: it is cut off or damaged, encrypted, or has columns in an encoding "
    "that is not read here; write them plain or as dictionaries.",
    CSV: "The body cannot be read as CSV: send a header line and one line a row, with commas and in UTF-8.",
}


def _once(names: Sequence[str], spec: FeatureSpec | None, limits: Limits) -> list[str]:
    """The names that the model looks at, each of which must be there once."""
    if spec is None and len(names) > limits.max_row_keys:
        raise too_many_columns(limits.max_row_keys)
    wanted = [name for name in names if spec is None or spec.feature_of(name) is not None]
    meant = [name if spec is None else getattr(spec.feature_of(name), "name", name) for name in wanted]
    if len(set(meant)) < len(meant):
        raise RequestError(422, "A column of the table is there more than once: send each feature once.")
    return wanted


def _wanted(schema: Any, spec: FeatureSpec | None, limits: Limits) -> tuple[list[str], dict[str, Any]]:
    """Names of the columns to read, and the types of those that are wanted and no feature could hold."""
    readable: list[str] = []
    odd: dict[str, Any] = {}
    for name in _once(schema.names, spec, limits):
        kind = schema.field(name).type
        feature = None if spec is None else spec.feature_of(name)
        if is_readable(kind, feature is None or feature.kind in ("any", "datetime")):
            readable.append(name)
        elif feature is None or feature.kind == "any":
            raise RequestError(
                422, "A column of the table is of a type that no model takes: send numbers, booleans, text or times."
            )
        else:
            odd[name] = kind
    return readable, odd


def _check_size(n_rows: int, n_columns: int, limits: Limits) -> None:
    """Refuse what is too much however it is packed: an index or a run of equal values takes next to nothing."""
    if n_rows > limits.max_batch_rows:
        raise too_many_rows(limits.max_batch_rows)
    check_cells(n_rows, n_columns, limits)


def check_cells(n_rows: int, n_columns: int, limits: Limits) -> None:
    """Refuse a table that takes too much memory even if each cell is a number; raises TooLargeError."""
    if n_rows * n_columns * _CELL > EXPANSION * limits.max_body_bytes:
        raise TooLargeError


def _leaves(metadata: Any, names: Sequence[str]) -> list[int]:
    """Where a Parquet file has these columns, none of which is nested."""
    wanted = set(names)
    paths = {i: path for i in range(metadata.num_columns) if (path := metadata.schema.column(i).path) in wanted}
    if len(paths) != len(wanted) or wanted.difference(paths.values()):
        raise ValueError("a column is not what its name says")
    return list(paths)


def _columns(table: Any, spec: FeatureSpec | None, limit: int) -> dict[str, Values | pd.Categorical]:
    """Readable columns as DataFrames hold them; text that has codes as its dictionary."""
    whole = table.unify_dictionaries().combine_chunks()
    columns: dict[str, Values | pd.Categorical] = {}
    for name, column in zip(whole.column_names, whole.columns, strict=True):
        chunks = column.chunks
        if sum(map(text_bytes, chunks)) > limit:
            raise TooLargeError
        feature = None if spec is None else spec.feature_of(name)
        if (
            feature is not None
            and feature.is_coded_text
            and len(chunks) == 1
            and (held := categories(chunks[0])) is not None
        ):
            columns[name] = held
            continue
        parts = [values(chunk) for chunk in chunks]
        columns[name] = parts[0] if len(parts) == 1 else np.concatenate(parts) if parts else np.empty(0)
    return columns


def _odd(kinds: Mapping[str, Any], n_rows: int) -> dict[str, Values]:
    return {name: odd_values(kind, n_rows) for name, kind in kinds.items()}
