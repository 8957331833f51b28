"""Tables in files: a CSV or Parquet file in, chunk by chunk, and one out that is there whole or not at all."""

from __future__ import annotations

import csv
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TextIO

import pandas as pd
import pyarrow as pa

from fin_pyfunc.batch import cells
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec

CSV, PARQUET = (".csv",), (".parquet", ".pq")
#: Bytes of CSV that are parsed at a time; Arrow reads up to 32 such blocks ahead.
BLOCK_BYTES = 1 << 18
_ODD_ROW = re.compile(r"Row #(\d+): Expected (\d+) columns, got (\d+)")


class FileError(FinPyfuncError):
    """A file that cannot be read, or one that cannot be written."""


class Chunk(NamedTuple):
    """Some rows of a table.

    Parameters
    ----------
    features : DataFrame of shape (n_rows, n_features)
        What the model looks at.
    identifiers : DataFrame of shape (n_rows, n_identifiers)
        What goes through untouched.
    """

    features: pd.DataFrame
    identifiers: pd.DataFrame


class Table(Protocol):
    """A file of rows."""

    #: Names in the file's order.
    columns: list[str]
    #: How much there is to read, in bytes (CSV) or rows (Parquet).
    size: int

    def chunks(self, n_rows: int) -> Iterator[Chunk]:
        """All rows, at most `n_rows` at a time; one empty chunk where there are none."""

    def position(self) -> int:
        """How much of `size` has been read."""


def check_paths(source: Path, target: Path | None, overwrite: bool = False) -> None:
    """Refuse what cannot be read or written before anything slow is done.

    Parameters
    ----------
    source : Path
    target : Path, optional
        Default: no file.
    overwrite : bool, default False
        Whether `target` may be there.

    Raises
    ------
    FileError
    """
    if not source.is_file():
        raise FileError(f"There is no file {source}: name a CSV or Parquet file.")
    if target is None:
        return
    if target.suffix.lower() not in (*CSV, *PARQUET):
        raise FileError(f"{target.name} is neither CSV nor Parquet: let its name end in .csv or .parquet.")
    if not target.parent.is_dir():
        raise FileError(f"There is no folder {target.parent}: make it first.")
    if target.is_dir() or (target.exists() and not overwrite):
        raise FileError(f"{target} is there already: name another file, or overwrite it with --force.")


def open_table(path: Path, spec: FeatureSpec | None) -> Table:
    """Open a CSV or Parquet file, by its suffix.

    Parameters
    ----------
    path : Path
    spec : FeatureSpec or None
        How CSV text is to be read, and which columns are needed; None for a model that says nothing of its features,
        which gets every column.

    Raises
    ------
    FileError
        It is neither, cannot be read, or has no usable header.
    """
    table: Table
    try:
        if path.suffix.lower() in CSV:
            table = CsvTable(path, spec)
        elif path.suffix.lower() in PARQUET:
            table = ParquetTable(path, spec)
        else:
            raise FileError(f"{path.name} is neither CSV nor Parquet: name a file that ends in .csv or .parquet.")
    except OSError as e:
        raise FileError(f"{path} cannot be read ({(e.strerror or str(e)).lower()}).") from e
    repeated = next((name for name in table.columns if table.columns.count(name) > 1), None)
    if repeated is not None:
        raise FileError(f"{path.name} has the column {repeated!r} more than once: rename or drop one of them.")
    return table


class CsvTable:
    """Rows of a CSV file: UTF-8, commas, a header; blank lines do not count."""

    def __init__(self, path: Path, spec: FeatureSpec | None) -> None:
        self._name, self._spec = path.name, spec
        self.size = path.stat().st_size
        with path.open(encoding="utf-8-sig", newline="") as header:
            try:
                self.columns = next((row for row in csv.reader(header) if row), [])
            except (UnicodeDecodeError, csv.Error):
                raise FileError(f"{path.name} is not CSV text in UTF-8: save it as such.") from None
        if not self.columns:
            raise FileError(f"{path.name} is empty: expected a header with the names of the columns.")
        self._file = path.open("rb")

    def position(self) -> int:
        """Bytes read so far, those read ahead included."""
        return self.size if self._file.closed else self._file.tell()

    def chunks(self, n_rows: int) -> Iterator[Chunk]:
        """All rows, at most `n_rows` at a time; one empty chunk where there are none."""
        wanted = _wanted(self.columns, self._spec)
        features = _by_name(self._spec, wanted)
        with self._file:
            for table in _rechunk(self._batches(wanted), n_rows, pa.schema([(name, pa.string()) for name in wanted])):
                read = {name: cells.read(table[name], feature) for name, feature in features.items()}
                others = [name for name in wanted if name not in features]
                yield Chunk(pd.DataFrame(read, index=range(len(table))), _untouched(table, others))

    def _batches(self, wanted: list[str]) -> Iterator[Any]:
        import pyarrow.csv

        try:
            yield from pyarrow.csv.open_csv(
                self._file,
                # one thread: only then does Arrow know the number of a bad row
                read_options=pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    include_columns=wanted,
                    column_types=dict.fromkeys(self.columns, pa.string()),
                    strings_can_be_null=False,
                ),
            )
        except pa.ArrowInvalid as e:
            if found := _ODD_ROW.search(str(e)):
                number, expected, got = map(int, found.groups())  # Arrow counts rows from 1, with the header
                raise FileError(
                    f"{self._name}, row {number - 2} (data rows are counted from 0), has {got} cells, but the header "
                    f"names {expected} columns: mend the file."
                ) from e
            raise FileError(f"{self._name} cannot be read as CSV in UTF-8 ({str(e).partition(':')[0]}).") from e


class ParquetTable:
    """Rows of a Parquet file, or of some of its row groups."""

    def __init__(self, path: Path, spec: FeatureSpec | None, row_groups: Sequence[int] | None = None) -> None:
        import pyarrow.parquet

        self._name, self._spec = path.name, spec
        try:
            self._file = pyarrow.parquet.ParquetFile(path)
        except pa.ArrowInvalid as e:
            raise FileError(f"{path.name} is not a Parquet file, or is damaged.") from e
        self.columns = list(self._file.schema_arrow.names)
        metadata = self._file.metadata
        self._row_groups = range(metadata.num_row_groups) if row_groups is None else row_groups
        self.size = sum(metadata.row_group(group).num_rows for group in self._row_groups)
        self._position = 0

    def position(self) -> int:
        """Rows read so far."""
        return self._position

    def chunks(self, n_rows: int) -> Iterator[Chunk]:
        """All rows, at most `n_rows` at a time; one empty chunk where there are none."""
        wanted = _wanted(self.columns, self._spec)
        features = _by_name(self._spec, wanted)
        try:
            with self._file:
                schema = pa.schema([self._file.schema_arrow.field(name) for name in wanted])
                batches = self._file.iter_batches(n_rows, self._row_groups, wanted)
                for table in _rechunk(batches, n_rows, schema):
                    self._position += len(table)
                    known = pa.table({name: _plain(table[name]) for name in features})
                    others = [name for name in wanted if name not in features]
                    yield Chunk(known.to_pandas(), _untouched(table, others))
        except (pa.ArrowInvalid, OSError) as e:
            raise FileError(f"{self._name} is damaged: it cannot be read to its end.") from e


@contextmanager
def whole_or_nothing(path: Path) -> Iterator[Path]:
    """A path to write to, beside the one that it becomes if all goes well.

    Yields
    ------
    Path
        Does not exist yet; it is gone afterwards, whatever happens.
    """
    target = path.resolve()  # what a link leads to is replaced, not the link
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        yield part
        settle(part, target)
    finally:
        part.unlink(missing_ok=True)


def settle(part: Path, path: Path) -> None:
    """Give a finished file its name once its bytes are on the disk, so that a name never stands for half a file."""
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


class CsvWriter:
    """Writes chunks as CSV, with one header."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._header = stream, True

    def write(self, frame: pd.DataFrame) -> None:
        """Append rows."""
        frame.to_csv(self._stream, index=False, header=self._header, lineterminator="\n")
        self._header = False


class ParquetWriter:
    """Writes chunks as Parquet; the first one's types are those of the file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._writer: Any = None

    def write(self, frame: pd.DataFrame) -> None:
        """Append rows."""
        import pyarrow.parquet

        try:
            schema = None if self._writer is None else self._writer.schema
            table = pa.Table.from_pandas(frame, schema, preserve_index=False).replace_schema_metadata()
        except (pa.ArrowInvalid, pa.ArrowTypeError) as e:
            raise FileError("The predictions are of several types, which Parquet cannot hold: write CSV.") from e
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, table.schema)
        self._writer.write_table(table)

    def close(self) -> None:
        """Finish the file."""
        if self._writer is not None:
            self._writer.close()


def _wanted(columns: Sequence[str], spec: FeatureSpec | None) -> list[str]:
    if spec is None:
        return list(columns)
    return [name for name in columns if name in spec.identifiers or spec.feature_of(name) is not None]


def _by_name(spec: FeatureSpec | None, wanted: Iterable[str]) -> dict[str, Feature]:
    if spec is None:
        return {name: Feature(name=name, kind="any", dtype="object") for name in wanted}
    return {name: feature for name in wanted if (feature := spec.feature_of(name)) is not None}


def _rechunk(batches: Iterable[Any], n_rows: int, schema: Any) -> Iterator[Any]:
    """Arrow's batches, which are as long as it likes, as tables of `n_rows`; one without rows where there is none."""
    pending: list[Any] = []
    count, empty = 0, True
    for batch in batches:
        rest = batch
        while count + len(rest) >= n_rows:
            taken = n_rows - count
            yield pa.Table.from_batches([*pending, rest.slice(0, taken)])
            pending, count, empty, rest = [], 0, False, rest.slice(taken)
        if len(rest):
            pending.append(rest)
            count += len(rest)
    if pending or empty:
        yield pa.Table.from_batches(pending) if pending else schema.empty_table()


def _untouched(table: Any, names: Sequence[str]) -> pd.DataFrame:
    """Columns as they are in the file: an integer with gaps stays one."""
    if not names:
        return pd.DataFrame(index=range(len(table)))
    return table.select(names).to_pandas(types_mapper=pd.ArrowDtype, ignore_metadata=True)  # type: ignore[no-any-return]


def _plain(column: Any) -> Any:
    """A column without Arrow's encodings that pandas would make objects of."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    return column.cast(pa.float64()) if pa.types.is_decimal(column.type) else column
