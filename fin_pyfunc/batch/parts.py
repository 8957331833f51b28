"""A folder of Parquet files as parts: runs of row groups of one file, each scored and written by itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from fin_pyfunc.batch.tables import PARQUET, FileError, ParquetWriter, whole_or_nothing

#: Rows of a part, at least, where a file has as many: what is lost at a kill is at most one part.
PART_ROWS = 1_000_000


class Part(NamedTuple):
    """Some row groups of one file.

    Parameters
    ----------
    source : Path
    row_groups : sequence of int
    first_row : int
        The part's first row in the file.
    n_rows : int
    name : str
        Of the file that its predictions go to, relative to the output folder.
    """

    source: Path
    row_groups: Sequence[int]
    first_row: int
    n_rows: int
    name: str


class Input(NamedTuple):
    """A Parquet file, as it was when it was first looked at.

    Parameters
    ----------
    name : str
        Relative to the input folder.
    n_bytes, n_rows : int
    footer_sha256 : str
        Of the file's last bytes, which hold the place and the statistics of every column of every row group.
    """

    name: str
    n_bytes: int
    n_rows: int
    footer_sha256: str


def list_files(folder: Path) -> list[Path]:
    """The Parquet files below a folder (or the one file), sorted; hidden ones and those that begin with _ do not count.

    Raises
    ------
    FileError
        There is none.
    """
    if folder.is_file():
        return [folder]
    found = [path for path in folder.rglob("*") if path.suffix.lower() in PARQUET and path.is_file()]
    shown = sorted(path for path in found if not any(p.startswith((".", "_")) for p in path.relative_to(folder).parts))
    if not shown:
        raise FileError(f"There is no Parquet file in {folder}: name a folder that holds some, or a file.")
    return shown


def describe(path: Path, folder: Path) -> Input:
    """A file as the record keeps it.

    Raises
    ------
    FileError
        It is no Parquet file.
    """
    try:
        n_rows = pa.parquet.read_metadata(path).num_rows
        with path.open("rb") as file:
            n_bytes = file.seek(0, 2)
            file.seek(-8, 2)
            length = int.from_bytes(file.read(4), "little")  # of the footer, before its 8 last bytes
            file.seek(-min(length + 8, n_bytes), 2)
            digest = hashlib.sha256(file.read()).hexdigest()
    except (pa.ArrowInvalid, OSError) as e:
        raise FileError(f"{path.name} is not a Parquet file, or is damaged.") from e
    return Input(_relative(path, folder), n_bytes, n_rows, digest)


def split(path: Path, folder: Path, part_rows: int = PART_ROWS) -> Iterator[Part]:
    """A file's parts: whole row groups, at least `part_rows` rows each but for the last."""
    metadata = pa.parquet.read_metadata(path)
    stem = _relative(path, folder).removesuffix(path.suffix)
    groups: list[int] = []
    first, n_rows, number = 0, 0, 0
    for group in range(metadata.num_row_groups):
        groups.append(group)
        n_rows += metadata.row_group(group).num_rows
        if n_rows >= part_rows or group == metadata.num_row_groups - 1:
            yield Part(path, tuple(groups), first, n_rows, f"{stem}-{number:05d}.parquet")
            groups, first, n_rows, number = [], first + n_rows, 0, number + 1
    if not metadata.num_row_groups:
        yield Part(path, (), 0, 0, f"{stem}-00000.parquet")


def write(output: Path, frames: Iterable[pd.DataFrame]) -> Iterator[int]:
    """Write a part's predictions, and say after each frame how many rows it had; the file is whole or not there."""
    output.parent.mkdir(parents=True, exist_ok=True)
    with whole_or_nothing(output) as unfinished, closing(ParquetWriter(unfinished)) as writer:
        for frame in frames:
            writer.write(frame)
            yield len(frame)


def _relative(path: Path, folder: Path) -> str:
    return path.name if path == folder else path.relative_to(folder).as_posix()
