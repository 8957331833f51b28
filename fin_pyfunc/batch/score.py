"""Predictions for a folder of Parquet files: what ``fin-pyfunc score`` does, on this machine or on Spark."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fin_pyfunc import __version__
from fin_pyfunc.batch import ledger, parts
from fin_pyfunc.batch.predict import CHUNK_ROWS, check_columns, predicted
from fin_pyfunc.batch.tables import FileError, ParquetTable
from fin_pyfunc.serving.loaded_model import LoadedModel

#: Called with the rows that are done, and all there are.
OnProgress = Callable[[int, int], None]


def _nobody(done: int, n_rows: int) -> None:
    """Nobody asks how far it is."""


def score(
    loaded: LoadedModel,
    source: Path,
    target: Path,
    *,
    engine: str = "local",
    spark_master: str = "local[*]",
    return_proba: bool = True,
    part_rows: int = parts.PART_ROWS,
    on_progress: OnProgress = _nobody,
) -> int:
    """Classify every row of a folder of Parquet files; one that was killed goes on where it was.

    The answers are the same bytes on either engine: one backend is chosen beforehand, computes everything, and is in
    the record.

    Parameters
    ----------
    loaded : LoadedModel
    source : Path
        A folder of ``.parquet`` files, or one file.
    target : Path
        A folder that is missing or empty, or one that the same call began.
    engine : {"local", "spark"}
    spark_master : str, default "local[*]"
        Spark's master, where `engine` is ``spark``.
    return_proba : bool, default True
        Write probabilities too.
    part_rows : int, default 1000000
        Rows of a part, at least: what a kill costs.
    on_progress : callable, optional

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    RowError
        Features of a row were refused; it names the file and the row.
    FileError
        A file cannot be read or written, lacks a column, or `target` holds something else.
    ScoringError
        The estimator itself failed.
    """
    files = parts.list_files(source)
    if target.resolve() == source.resolve() or (source.is_dir() and target.resolve().is_relative_to(source.resolve())):
        raise FileError("The output folder is not to be the input folder or in it: name another.")
    for file in files:
        check_columns(loaded.model, ParquetTable(file, loaded.model.features), file.name)
    loaded.model.dispatch.pin(CHUNK_ROWS)
    record = _record(loaded, files, source, engine, return_proba, part_rows)
    n_rows = sum(known.n_rows for known in record.inputs)
    if record.begin(target):
        on_progress(n_rows, n_rows)
        return n_rows
    _sweep(target)
    if engine == "spark":
        from fin_pyfunc.batch.spark import score_on_spark

        score_on_spark(loaded, files, source, target, record, spark_master, on_progress)
    else:
        _score_here(loaded, files, source, target, record, on_progress)
    record.end(target)
    return n_rows


def _record(
    loaded: LoadedModel, files: Sequence[Path], source: Path, engine: str, return_proba: bool, part_rows: int
) -> ledger.Ledger:
    manifest = loaded.model.manifest
    return ledger.Ledger(
        model_id=loaded.resolved.model_id,
        run_id=loaded.resolved.run_id,
        files={} if manifest is None else {name: known.sha256 for name, known in sorted(manifest.files.items())},
        backend=loaded.model.dispatch.backends[0].name,
        return_proba=return_proba,
        engine=engine,
        part_rows=part_rows,
        inputs=[parts.describe(file, source) for file in files],
        version=__version__,
    )


def _score_here(
    loaded: LoadedModel,
    files: Sequence[Path],
    source: Path,
    target: Path,
    record: ledger.Ledger,
    on_progress: OnProgress,
) -> None:
    n_rows, done = sum(known.n_rows for known in record.inputs), 0
    for file in files:
        for part in parts.split(file, source, record.part_rows):
            output = target / part.name
            if output.exists():  # a part has its name only when it is whole
                done += part.n_rows
                on_progress(done, n_rows)
                continue
            table = ParquetTable(file, loaded.model.features, part.row_groups)
            options: dict[str, Any] = {"return_proba": record.return_proba, "first_row": part.first_row}
            answers = predicted(loaded.model, table, file.name, chunk_rows=CHUNK_ROWS, **options)
            for count in parts.write(output, answers):
                done += count
                on_progress(done, n_rows)


def _sweep(target: Path) -> None:
    """Remove what a killed run left unfinished."""
    for leftover in target.rglob(".*.part"):
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()
