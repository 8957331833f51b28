"""The same predictions by Spark's workers, through `mlflow.pyfunc.spark_udf`."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet

from fin_pyfunc.batch import ledger, parts
from fin_pyfunc.batch.predict import CHUNK_ROWS
from fin_pyfunc.batch.tables import ParquetTable
from fin_pyfunc.model.choice import VARIABLE
from fin_pyfunc.model.errors import ArtifactError, FinPyfuncError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.loaded_model import LoadedModel

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Where Spark writes before its files get their names in the output folder.
_STAGED = ".spark.part"
_ROW = "__row__"


def score_on_spark(
    loaded: LoadedModel,
    files: Sequence[Path],
    source: Path,
    target: Path,
    record: ledger.Ledger,
    master: str,
    on_progress: Callable[[int, int], None],
) -> None:
    """Let Spark score all files, each to a file of the name that the local engine's parts have.

    Every file is one job: a run that was killed goes on at the file that it was at. Identifiers do not pass through
    Spark, which has fewer types than Parquet: its answers carry the number of their row and are joined to them here.

    Parameters
    ----------
    loaded : LoadedModel
    files : sequence of Path
        Seen under the same paths by every worker.
    source, target : Path
        The input and the output folder.
    record : Ledger
    master : str
    on_progress : callable
        Called after each file with the rows that are done, and all there are.

    Raises
    ------
    FinPyfuncError
        There is no pyspark or no Java, or a job failed.
    """
    spec = loaded.model.features
    if not loaded.has_pyfunc or spec is None:
        raise ArtifactError(
            "Spark scores MLflow models that say what their features are: log it with 'fin-pyfunc log'."
        )
    example = _example(loaded, record.return_proba)
    n_rows, done = sum(known.n_rows for known in record.inputs), 0
    spark = _session(master, record.backend)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of pandas 3, which its Arrow path takes as it is
            predict = _udf(spark, loaded, record, example)
        for file in files:
            cut = list(parts.split(file, source, record.part_rows))
            if not all((target / part.name).exists() for part in cut):
                _stage(spark, predict, spec, file, target / _STAGED)
                _gather(_Answers(target / _STAGED, example), spec, cut, target)
            done += sum(part.n_rows for part in cut)
            on_progress(done, n_rows)
    finally:
        spark.stop()
        shutil.rmtree(target / _STAGED, ignore_errors=True)


def _gather(answers: _Answers, spec: FeatureSpec, cut: Sequence[parts.Part], target: Path) -> None:
    """Write the parts of a file, as the local engine does, from what Spark answered."""
    for part in cut:
        chunks = ParquetTable(part.source, spec, part.row_groups).chunks(CHUNK_ROWS)
        frames = (pd.concat([chunk.identifiers, answers.take(len(chunk.features))], axis=1) for chunk in chunks)
        for _ in parts.write(target / part.name, frames):
            pass


def _session(master: str, backend: str) -> SparkSession:
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as e:
        raise FinPyfuncError("The engine spark needs pyspark: pip install 'fin_pyfunc[spark]'.") from e
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else whatever python3 is first on PATH
    builder = SparkSession.builder.master(master).appName("fin-pyfunc score")
    options: dict[str, str | int | bool | float | None] = {
        f"spark.executorEnv.{VARIABLE}": backend,  # the one that is in the record, whatever is set there
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",  # on_progress is told
        "spark.log.level": "OFF",  # it logs a failure as Java's trace; the sentence in it is raised
        "spark.sql.legacy.parquet.nanosAsLong": "true",  # or a file with pandas' timestamps is not read at all
    }
    try:
        session: SparkSession = builder.config(map=options).getOrCreate()
    except (PySparkRuntimeError, OSError) as e:
        raise FinPyfuncError("Spark did not start: it needs Java 17 or newer, found by JAVA_HOME or PATH.") from e
    return session


def _udf(spark: SparkSession, loaded: LoadedModel, record: ledger.Ledger, example: pd.DataFrame) -> Any:
    import mlflow.pyfunc

    logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)  # that the environment is this one is meant
    resolved = loaded.resolved
    uri = resolved.model_id if resolved.model_id.startswith(("models:/", "runs:/")) else resolved.location
    return mlflow.pyfunc.spark_udf(
        spark,
        uri,
        result_type=_result_type(example),
        env_manager="local",
        params={"return_proba": record.return_proba},
        model_config={"backend": record.backend},
    )


def _example(loaded: LoadedModel, return_proba: bool) -> pd.DataFrame:
    """The answer to the model's own example: it has the columns and types of every answer."""
    manifest = loaded.model.manifest
    if manifest is None:
        raise ArtifactError("Spark scores models that fin_pyfunc logged: log it with 'fin-pyfunc log' first.")
    return loaded.model.predict(pd.DataFrame([manifest.example.features]), {"return_proba": return_proba})


def _result_type(example: pd.DataFrame) -> str:
    kinds = {"i": "long", "u": "long", "f": "double", "b": "boolean"}
    fields = (f"`{name}`: {kinds.get(dtype.kind, 'string')}" for name, dtype in example.dtypes.items())
    return f"struct<{', '.join(fields)}>"


def _stage(spark: SparkSession, predict: Any, spec: FeatureSpec, file: Path, stage: Path) -> None:
    """Let Spark write the answers of a file, each with the number of its row."""
    from pyspark.errors import PySparkException
    from pyspark.sql.functions import col, struct

    frame = spark.read.parquet(file.resolve().as_uri())
    answer = predict(struct(*(col(f"`{name}`") for name in spec.names)))
    numbered = frame.select(col("_metadata.row_index").alias(_ROW), answer.alias("answer"))
    shutil.rmtree(stage, ignore_errors=True)
    try:
        numbered.select(_ROW, "answer.*").write.parquet(stage.resolve().as_uri())
    except PySparkException as e:
        raise FinPyfuncError(
            f"{file.name}: Spark could not score it ({_reason(e)}). Rows are counted within Spark's own batches here: "
            f"--engine local names the row of the file."
        ) from e


class _Answers:
    """The answers that Spark wrote for one file, taken in the order of its rows."""

    def __init__(self, stage: Path, example: pd.DataFrame) -> None:
        self._batches = self._read(sorted(stage.glob("part-*.parquet")))
        self._rest = pa.table({})
        self._example = example
        self._position = 0

    def take(self, n_rows: int) -> pd.DataFrame:
        """The next `n_rows` answers, of the types that the model itself answers in.

        Raises
        ------
        FinPyfuncError
            Spark's answers are too few or in another order.
        """
        pending = [self._rest] if len(self._rest) else []
        while sum(map(len, pending)) < n_rows and (batch := next(self._batches, None)) is not None:
            pending.append(batch)
        joined = pa.concat_tables(pending) if pending else self._rest
        taken, self._rest = joined.slice(0, n_rows), joined.slice(n_rows)
        expected = range(self._position, self._position + n_rows)
        if n_rows and (len(taken) < n_rows or not np.array_equal(taken[_ROW].to_numpy(), expected)):
            raise FinPyfuncError(
                f"Spark's answers from row {self._position} on are missing or in another order: nothing was written "
                f"of this part. Every worker must see the input and the output folder under the same paths."
            )
        self._position += n_rows
        if not n_rows:
            return self._example.head(0)
        answers: pd.DataFrame = taken.drop_columns(_ROW).to_pandas().astype(self._example.dtypes)
        return answers

    def _read(self, pieces: Sequence[Path]) -> Iterator[Any]:
        for piece in pieces:
            with pyarrow.parquet.ParquetFile(piece) as file:
                for batch in file.iter_batches(CHUNK_ROWS):
                    yield pa.Table.from_batches([batch])


def _reason(e: Exception) -> str:
    """The last line that says what happened in a worker, without Java's trace."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]
    return (named or lines or [type(e).__name__])[-1][:500]
