"""The same predictions by Spark's workers, through `mlflow.pyfunc.spark_udf`."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fin_pyfunc.batch import ledger, parts
from fin_pyfunc.batch.tables import FileError
from fin_pyfunc.model.errors import ArtifactError, FinPyfuncError
from fin_pyfunc.serving.loader import LoadedModel

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

#: Where Spark writes before its files get their names in the output folder.
_STAGE = ".spark.part"


def score_on_spark(
    loaded: LoadedModel, files: Sequence[Path], source: Path, target: Path, record: ledger.Ledger, master: str
) -> None:
    """Let Spark score all files, each to a file of the name that the local engine's parts have.

    Every file is one job, which Spark commits as a whole or not at all: a run that was killed goes on at the file that
    it was at. A file's rows keep their order.

    Parameters
    ----------
    loaded : LoadedModel
    files : sequence of Path
        Seen under the same paths by every worker.
    source, target : Path
        The input and the output folder.
    record : Ledger
    master : str

    Raises
    ------
    FinPyfuncError
        There is no pyspark or no Java, or a job failed.
    """
    if not loaded.has_pyfunc:
        raise ArtifactError("Spark scores MLflow models, not bare files: log it with 'fin-pyfunc log' first.")
    waiting = [(file, next(iter(parts.split(file, source, 1 << 62)))) for file in files]
    waiting = [(file, part) for file, part in waiting if not (target / part.name).exists()]
    if not waiting:
        return
    spark = _session(master)
    try:
        predict = _udf(spark, loaded, record)
        for file, part in waiting:
            _score_file(spark, predict, loaded, file, target / part.name, target / _STAGE)
    finally:
        spark.stop()
        shutil.rmtree(target / _STAGE, ignore_errors=True)


def _session(master: str) -> SparkSession:
    try:
        from pyspark.errors import PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as e:
        raise FinPyfuncError("The engine spark needs pyspark: pip install 'fin_pyfunc[spark]'.") from e
    builder = SparkSession.builder.master(master).appName("fin-pyfunc score")
    try:
        session: SparkSession = builder.config("spark.ui.enabled", "false").getOrCreate()
    except (PySparkRuntimeError, OSError) as e:
        raise FinPyfuncError("Spark did not start: it needs Java 17 or newer, found by JAVA_HOME or PATH.") from e
    session.sparkContext.setLogLevel("ERROR")
    return session


def _udf(spark: SparkSession, loaded: LoadedModel, record: ledger.Ledger) -> Any:
    import mlflow.pyfunc

    resolved = loaded.resolved
    uri = resolved.model_id if resolved.model_id.startswith(("models:/", "runs:/")) else resolved.location
    return mlflow.pyfunc.spark_udf(
        spark,
        uri,
        result_type=_result_type(loaded, record.return_proba),
        env_manager="local",
        params={"return_proba": record.return_proba},
        model_config={"backend": record.backend},
    )


def _result_type(loaded: LoadedModel, return_proba: bool) -> str:
    """The answer's columns as Spark types, read off an answer to the model's own example."""
    manifest = loaded.model.manifest
    if manifest is None:
        raise ArtifactError("Spark scores models that fin_pyfunc logged: log it with 'fin-pyfunc log' first.")
    import pandas as pd

    answered = loaded.model.predict(pd.DataFrame([manifest.example.features]), {"return_proba": return_proba})
    kinds = {"i": "long", "u": "long", "f": "double", "b": "boolean"}
    fields = [f"`{name}` {kinds.get(answered[name].dtype.kind, 'string')}" for name in answered.columns]
    return f"struct<{', '.join(field.replace('` ', '`: ') for field in fields)}>"


def _score_file(
    spark: SparkSession, predict: Any, loaded: LoadedModel, file: Path, output: Path, stage: Path
) -> None:
    from pyspark.errors import PySparkException
    from pyspark.sql.functions import col, struct

    spec = loaded.model.features
    assert spec is not None  # noqa: S101 - a model with a manifest has one
    frame = spark.read.parquet(file.resolve().as_uri())
    kept = [name for name in frame.columns if name in spec.identifiers]
    row = struct(*(col(f"`{name}`") for name in spec.names))
    answered = frame.select(*(col(f"`{name}`") for name in kept), predict(row).alias("answer"))
    shutil.rmtree(stage, ignore_errors=True)
    try:
        answered.select(*(f"`{name}`" for name in kept), "answer.*").write.parquet(stage.resolve().as_uri())
    except PySparkException as e:
        raise FinPyfuncError(f"{file.name}: Spark could not score it ({_reason(e)}).") from e
    output.parent.mkdir(parents=True, exist_ok=True)
    _gather(stage, output)


def _gather(stage: Path, output: Path) -> None:
    """One file of the parts that Spark wrote, in their order, whole or not at all."""
    import pyarrow.parquet

    pieces = sorted(stage.glob("part-*.parquet"))
    if not pieces:
        raise FileError(f"Spark wrote nothing to {stage}: every worker must see the folder under this path.")
    unfinished = output.with_name(f".{output.name}.part")
    schema = pyarrow.parquet.read_schema(pieces[0]).remove_metadata()
    with pyarrow.parquet.ParquetWriter(unfinished, schema) as writer:
        for piece in pieces:
            for batch in pyarrow.parquet.ParquetFile(piece).iter_batches():
                writer.write_batch(batch.cast(schema))
    ledger.settle(unfinished, output)


def _reason(e: Exception) -> str:
    """The last line that says what happened in a worker, without Java's trace."""
    lines = [line.strip() for line in str(e).splitlines() if line.strip()]
    named = [line for line in lines if "Error: " in line]
    return (named or lines or [type(e).__name__])[-1][:500]
