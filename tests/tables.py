"""Tables as each content type carries them, and what becomes of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
import pytest

from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.content_types import ARROW, CSV, PARQUET
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.tables import read_table
from tests.feature_rows import found

LIMITS = Limits(max_batch_rows=1000)
#: How the columns of `TRAINING` look in Arrow; text as most writers have it.
SCHEMA = pa.schema(
    {
        "price": pa.float64(),
        "gap": pa.float64(),
        "narrow": pa.float32(),
        "hour": pa.int64(),
        "side": pa.int8(),
        "lots": pa.int64(),
        "open": pa.bool_(),
        "halted": pa.bool_(),
        "venue": pa.string(),
        "broker": pa.string(),
        "desk": pa.large_string(),
        "region": pa.dictionary(pa.int8(), pa.string()),
        "session": pa.int64(),
    }
)


def as_arrow(table: pa.Table, compression: str | None = None, rows: int | None = None) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    with pa.ipc.new_stream(sink, table.schema, options=options) as stream:
        stream.write_table(table, max_chunksize=rows)
    return sink.getvalue().to_pybytes()


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink, **options)
    return sink.getvalue().to_pybytes()


def as_csv(table: pa.Table) -> bytes:
    """As CSV; with all the digits of a float32, which would be written with as many as tell it from its neighbours."""
    schema = [
        f.with_type(
            pa.string() if pa.types.is_dictionary(f.type) else pa.float64() if f.type == pa.float32() else f.type
        )
        for f in table.schema
    ]
    sink = pa.BufferOutputStream()
    pyarrow.csv.write_csv(table.cast(pa.schema(schema)), sink)
    return sink.getvalue().to_pybytes()


WRITERS: dict[str, Callable[[pa.Table], bytes]] = {ARROW: as_arrow, PARQUET: as_parquet, CSV: as_csv}
BODIES: dict[str, tuple[str, Callable[[pa.Table], bytes]]] = {
    "arrow": (ARROW, as_arrow),
    "arrow in batches": (ARROW, lambda table: as_arrow(table, rows=3)),
    "arrow, lz4": (ARROW, lambda table: as_arrow(table, "lz4")),
    "arrow, zstd": (ARROW, lambda table: as_arrow(table, "zstd", rows=7)),
    "parquet": (PARQUET, as_parquet),
    "parquet, zstd": (PARQUET, lambda table: as_parquet(table, compression="zstd", row_group_size=4)),
    "parquet, plain": (PARQUET, lambda table: as_parquet(table, compression="none", use_dictionary=False)),
    "parquet, pages 2": (PARQUET, lambda table: as_parquet(table, data_page_version="2.0", data_page_size=64)),
    "parquet, as pandas": (PARQUET, lambda table: as_parquet(table, store_schema=False)),
    "csv": (CSV, as_csv),
}


def table_of(frame: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(frame, preserve_index=False)


def refusal(content_type: str, body: bytes, features: FeatureSpec | None = None, limits: Limits = LIMITS) -> str:
    """The status and sentence of a body that is refused as a whole."""
    with pytest.raises(RequestError) as caught:
        read_table(content_type, body, features, limits)
    sentence = str(caught.value)
    assert sentence.rstrip().endswith(".")
    return f"{caught.value.status} {sentence}"


def problems(content_type: str, body: bytes, features: FeatureSpec) -> list[tuple[int, str, str]]:
    with pytest.raises(FeatureError) as caught:
        features.check(read_table(content_type, body, features, LIMITS))
    return found(caught.value)


def read_back(content_type: str, body: bytes) -> pd.DataFrame:
    if content_type == ARROW:
        return pa.ipc.open_stream(body).read_pandas()
    return pd.read_parquet(io.BytesIO(body)) if content_type == PARQUET else pd.read_csv(io.BytesIO(body))
