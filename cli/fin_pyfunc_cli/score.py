"""`fin-pyfunc score`: a folder of Parquet files in, one of predictions out."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from fin_pyfunc_cli import options

#: Seconds between two lines of progress where there is no terminal.
_LINE_SECONDS = 30.0


@click.command()
@click.option(
    "-m", "--model-uri", metavar="URI", required=True, help="The model: whatever MLflow takes, a local path too."
)
@click.option(
    "-i",
    "--input",
    "source",
    metavar="FOLDER",
    required=True,
    type=click.Path(exists=True, path_type=Path),
    help="Folder of .parquet files, or one file.",
)
@click.option(
    "-o",
    "--output",
    "target",
    metavar="FOLDER",
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to make, or one that this command began.",
)
@click.option(
    "--engine", type=click.Choice(["local", "spark"]), default="local", show_default=True, help="Where to compute."
)
@click.option(
    "--spark-master", metavar="URL", default="local[*]", show_default=True, help="Spark's master, for --engine spark."
)
@click.option("--no-proba", is_flag=True, help="Leave out probabilities.")
@options.backend
@options.tracking_uri
def score(
    model_uri: str,
    source: Path,
    target: Path,
    engine: str,
    spark_master: str,
    no_proba: bool,
    backend: str | None,
    tracking_uri: str | None,
) -> None:
    """Classify every row of a folder of Parquet files, however many there are.

    The output folder gets a file a part (whole row groups, a million rows or more) with the identifier columns that
    the model knows and its answers, _fin_pyfunc.json with what was scored with what, and _SUCCESS at the end. A run
    that was killed goes on when the same command is given again; with another model or other inputs it refuses to.
    Spark's workers must see both folders under the same paths, and have fin_pyfunc installed.

    Example: fin-pyfunc score -m models:/eurusd_rf@champion --input bars/ --output preds/
    """
    options.use_store(tracking_uri, must_exist=model_uri.startswith(("models:/", "runs:/")))
    import mlflow

    from fin_pyfunc.batch.predict import opened
    from fin_pyfunc.batch.score import score as score_folder

    with opened(model_uri, mlflow.get_tracking_uri(), backend) as loaded, _progress() as on_progress:
        n_rows = score_folder(
            loaded,
            source,
            target,
            engine=engine,
            spark_master=spark_master,
            return_proba=not no_proba,
            on_progress=on_progress,
        )
    click.echo(f"{n_rows:,} rows of {source} are in {target}, scored by {loaded.resolved.model_id}", err=True)


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal; elsewhere a line now and then."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def say(done: int, total: int) -> None:
            nonlocal last
            if time.monotonic() - last >= _LINE_SECONDS:
                last = time.monotonic()
                click.echo(f"{done:,} of {total:,} rows", err=True)

        yield say
        return
    with click.progressbar(length=1, label="scoring", file=sys.stderr) as bar:

        def draw(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield draw
