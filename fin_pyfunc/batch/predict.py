"""Predictions for the rows of a file, chunk by chunk: what ``fin-pyfunc predict`` does."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

import pandas as pd

from fin_pyfunc.batch.tables import (
    CSV,
    Chunk,
    CsvWriter,
    FileError,
    ParquetWriter,
    Table,
    check_paths,
    open_table,
    whole_or_nothing,
)
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import FeatureError, ScoringError
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver

#: Rows that are read, scored and written at a time.
CHUNK_ROWS = 10_000
_MAX_NAMES = 5


class RowError(FileError):
    """A row of the file was refused; `problems` holds what was found, by row of the file."""

    def __init__(self, name: str, error: FeatureError, offset: int) -> None:
        problems = [problem._replace(row=problem.row + offset) for problem in error.problems]
        rows = [row + offset for row in error.rows]
        shifted = FeatureError(problems, error.total, rows, error.hint, error.misspelt)
        self.problems = shifted.problems
        super().__init__(f"{name}, row {problems[0].row} (data rows are counted from 0): {shifted}")


@contextmanager
def opened(uri: str, tracking_uri: str | None = None, backend: str | None = None) -> Iterator[LoadedModel]:
    """Load the model that an argument names, whatever MLflow takes and local paths, as the server's ``-m`` does.

    Parameters
    ----------
    uri : str
        Such as ``models:/eurusd_rf@champion``, ``./model`` or ``model.skops``. Loading a model runs the code in it.
    tracking_uri : str, optional
        Default: MLflow's own.
    backend : str, optional
        Default: the model's own.

    Raises
    ------
    ModelNotFoundError, ArtifactError, BackendError, StoreUnavailableError
    """
    resolver = Resolver(tracking_uri)
    try:
        yield load(resolver, resolver.resolve_argument(uri), backend)
    finally:
        resolver.close()


def predict_file(
    model: Classifier,
    source: Path,
    target: Path | TextIO,
    *,
    chunk_rows: int = CHUNK_ROWS,
    return_proba: bool = True,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Classify every row of a file, in memory for `chunk_rows` rows however many there are.

    Parameters
    ----------
    model : Classifier
    source : Path
        ``.csv`` or ``.parquet``.
    target : Path or text stream
        A ``.csv`` or ``.parquet`` file, which is there whole or not at all; a stream gets CSV. Its columns are the
        model's identifiers, as far as `source` has them, then those of `Classifier.predict`.
    chunk_rows : int, default 10000
    return_proba : bool, default True
        Write probabilities too.
    overwrite : bool, default False
        Whether the file `target` may be there.
    on_progress : callable, optional
        Called after each chunk with how much has been read, and how much there is: bytes of CSV, rows of Parquet.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    RowError
        Features of a row were refused; it names the row of the file, counted from 0 without the header.
    FileError
        A file cannot be read or written, or lacks a column.
    ScoringError
        The estimator itself failed.
    """
    check_paths(source, target if isinstance(target, Path) else None, overwrite)
    table = open_table(source, model.features)
    model.dispatch.pin(chunk_rows)
    check_columns(model, table, source.name)
    with ExitStack() as stack:
        answers = predicted(model, table, source.name, chunk_rows=chunk_rows, return_proba=return_proba)
        write, n_rows = _writer(target, stack), 0
        for answered in answers:
            write(answered)
            n_rows += len(answered)
            if on_progress is not None:
                on_progress(table.position(), table.size)
    return n_rows


def predicted(
    model: Classifier, table: Table, name: str, *, chunk_rows: int, return_proba: bool, first_row: int = 0
) -> Iterator[pd.DataFrame]:
    """A table's identifiers and answers, chunk by chunk.

    Parameters
    ----------
    model : Classifier
    table : Table
    name : str
        Of the file, for messages.
    chunk_rows : int
    return_proba : bool
    first_row : int, default 0
        The table's first row in the file, for messages.

    Raises
    ------
    RowError, FileError, ScoringError
        As `predict_file` raises them.
    """
    for chunk in table.chunks(chunk_rows):
        yield _answered(model, chunk, return_proba, name, first_row)
        first_row += len(chunk.features)


def _writer(target: Path | TextIO, stack: ExitStack) -> Callable[[pd.DataFrame], None]:
    if not isinstance(target, Path):
        return CsvWriter(target).write
    part = stack.enter_context(whole_or_nothing(target))
    if target.suffix.lower() in CSV:
        return CsvWriter(stack.enter_context(part.open("x", encoding="utf-8", newline=""))).write
    parquet = ParquetWriter(part)
    stack.callback(parquet.close)
    return parquet.write


def check_columns(model: Classifier, table: Table, name: str) -> None:
    """Refuse a table that lacks a feature, or has a column that the model forbids.

    Raises
    ------
    FileError
    """
    spec = model.features
    if spec is None:
        return
    found = {feature.name for column in table.columns if (feature := spec.feature_of(column)) is not None}
    if missing := [feature for feature in spec.names if feature not in found]:
        if spec.naming == "positions":
            raise FileError(f"{name} has other columns than the model: {spec.in_order}.")
        raise FileError(f"{name} lacks {_listed(missing)}, which the model needs; it has {_listed(table.columns)}.")
    if spec.extra == "forbid" and (more := [c for c in table.columns if c not in (*spec.names, *spec.identifiers)]):
        raise FileError(f"{name} has {_listed(more)}, which the model does not know and refuses: leave it out.")


def _answered(model: Classifier, chunk: Chunk, return_proba: bool, name: str, offset: int) -> pd.DataFrame:
    try:
        answers = model.predict(chunk.features, {"return_proba": return_proba})
    except FeatureError as e:
        raise RowError(name, e, offset) from None
    except ScoringError as e:
        cause = f" ({' '.join(str(e.__cause__).split())})" if e.__cause__ else ""
        last = offset + len(chunk.features) - 1
        raise ScoringError(f"{name}, rows {offset} to {last} (data rows are counted from 0): {e}{cause}.") from e
    return pd.concat([chunk.identifiers, answers], axis=1)


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"column{'s' * (len(names) > 1)} " + ", ".join(map(repr, names[:_MAX_NAMES])) + more
