"""`fin-pyfunc predict`: a table in, predictions out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fin_pyfunc_cli import options


@click.command()
@click.argument("source", metavar="INPUT", type=click.Path(path_type=Path))
@click.option(
    "-m", "--model-uri", metavar="URI", required=True, help="The model: whatever MLflow takes, a local path too."
)
@click.option(
    "-o",
    "--output",
    metavar="OUTPUT",
    type=click.Path(path_type=Path),
    help="File to make, .csv or .parquet. Default: CSV on stdout.",
)
@click.option("--force", is_flag=True, help="Overwrite OUTPUT.")
@click.option("--no-proba", is_flag=True, help="Leave out probabilities.")
@click.option(
    "--chunk-rows", type=click.IntRange(1), default=10_000, show_default=True, help="Rows in memory at a time."
)
@options.backend
@options.tracking_uri
def predict(
    source: Path,
    model_uri: str,
    output: Path | None,
    force: bool,
    no_proba: bool,
    chunk_rows: int,
    backend: str | None,
    tracking_uri: str | None,
) -> None:
    """Classify the rows of INPUT, a .csv or .parquet file of any length.

    The output has the identifier columns that the model knows, then prediction, probability, confidence, and one
    probability_<label> a class. A CSV file is UTF-8 with commas and a header; an empty cell is a missing value. An
    error names the data row, counted from 0 without the header; OUTPUT is written whole or not at all, while rows on
    stdout before that chunk are out already. Loading a model runs the code in it.

    Example: fin-pyfunc predict -m models:/eurusd_rf@champion bars.csv -o predictions.parquet
    """
    from fin_pyfunc.batch.tables import check_paths

    check_paths(source, output, force)
    options.use_store(tracking_uri, must_exist=model_uri.startswith(("models:/", "runs:/")))
    import mlflow

    from fin_pyfunc.batch import predict as batch

    with batch.opened(model_uri, mlflow.get_tracking_uri(), backend) as loaded, _bar(output) as on_progress:
        batch.predict_file(
            loaded.model,
            source,
            output or sys.stdout,
            chunk_rows=chunk_rows,
            return_proba=not no_proba,
            overwrite=force,
            on_progress=on_progress,
        )


@contextmanager
def _bar(output: Path | None) -> Iterator[Callable[[int, int], None] | None]:
    """A progress bar, where somebody is there to see it and no rows go to the same screen."""
    if not sys.stderr.isatty() or (output is None and sys.stdout.isatty()):
        yield None
        return
    with click.progressbar(length=1, label="predicting", file=sys.stderr) as bar:

        def on_progress(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield on_progress
