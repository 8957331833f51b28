"""The record as one Parquet file, a line a row that was asked for."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from fin_pyfunc.serving.record.reading import Entry, entries
from fin_pyfunc.serving.record.verify import Place, RecordError

#: Rows that are held in memory, and written, at a time.
CHUNK_ROWS = 20_000


def export_parquet(folder: Path, target: Path, *, overwrite: bool = False, damaged: list[Place] | None = None) -> int:
    """Write every row of a record to a Parquet file, which is there whole or not at all.

    Parameters
    ----------
    folder : Path
    target : Path
    overwrite : bool, default False
        Whether `target` may be there.
    damaged : list of Place, optional
        Given the place of each line that is no record any more, whose rows are not in the file.

    Returns
    -------
    int
        Number of rows.

    Raises
    ------
    RecordError
        There is no record, or `target` cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet

    if target.exists() and not overwrite:
        raise RecordError(f"{target} is there already: name another file, or overwrite it with --force.")
    schema, count = _schema(), 0
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))  # as private as the record
        with pyarrow.parquet.ParquetWriter(part, schema, compression="zstd") as writer:
            for rows in _chunked(row for entry in entries(folder, damaged=damaged) for row in _rows(entry)):
                writer.write_table(pa.Table.from_pylist(rows, schema))
                count += len(rows)
        part.replace(target)
    except OSError as e:
        raise RecordError(f"{target} cannot be written ({(e.strerror or str(e)).lower()}).") from e
    finally:
        part.unlink(missing_ok=True)
    return count


def _schema() -> Any:
    import pyarrow as pa

    text, when = pa.string(), pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            *(("request_id", text), ("client_request_id", text), ("row", pa.int32())),
            *(("received", when), ("decided", when), ("principal", text), ("route", text)),
            *(("status", pa.int16()), ("error", text)),
            *(("model_uri", text), ("default_model", pa.bool_()), ("model_id", text), ("run_id", text)),
            *(("artifact_sha256", text), ("feature_order_sha256", text), ("backend", text)),
            *(("features", text), ("features_hmac_sha256", text), ("identifiers", text)),
            *(("prediction", text), ("probability", pa.float64())),
            *(("probabilities", pa.map_(text, pa.float64())), ("confidence", text)),
            *(("threshold_high", pa.float64()), ("threshold_medium", pa.float64())),
            *(("host", text), ("pid", pa.int64()), ("machine", text), ("libraries", pa.map_(text, text))),
            *(("chain", pa.int32()), ("segment", pa.int32()), ("line", pa.int64()), ("seq", pa.int64())),
        ]
    )


def _rows(entry: Entry) -> Iterator[dict[str, Any]]:
    place, record, process = entry
    of_all = {
        name: getattr(record, name)
        for name in (
            *("request_id", "client_request_id", "received", "decided", "principal", "route", "status", "error"),
            *("model_uri", "default_model", "model_id", "run_id", "artifact_sha256", "feature_order_sha256"),
            *("backend", "seq"),
        )
    }
    of_all |= {"chain": place.chain, "segment": place.segment, "line": place.line}
    of_all |= {"threshold_high": record.thresholds.high, "threshold_medium": record.thresholds.medium}
    if process is not None:
        of_all |= {"host": process.host, "pid": process.pid, "machine": process.machine}
        of_all["libraries"] = list(process.libraries.items())
    answers, features = record.answers or [], record.features or []
    digests, identifiers = record.features_hmac_sha256 or [], record.identifiers or []
    for i in range(max(record.n_rows, len(answers))):  # a model of other people's may answer more or fewer
        row = {**of_all, "row": i}
        if i < len(features):
            row["features"] = bytes(features[i]).decode()
        if i < len(digests):
            row["features_hmac_sha256"] = digests[i]
        if i < len(identifiers):
            row["identifiers"] = msgspec.json.encode(identifiers[i]).decode()
        if i < len(answers):
            answer = answers[i]
            # a column has one type, and labels of several models have several: their JSON tells them apart
            row["prediction"] = msgspec.json.encode(answer.prediction).decode()
            row["probability"], row["confidence"] = answer.probability, answer.confidence
            row["probabilities"] = None if answer.probabilities is None else list(answer.probabilities.items())
        yield row


def _chunked(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    chunk: list[dict[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == CHUNK_ROWS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
