"""DataFrames as Arrow IPC, and back: the same dtypes, the same values, None as None and NaN as NaN.

From a worker to a model host alone, never back: what Arrow does not hold exactly (columns of mixed Python objects,
periods, …) is pickled, and a host may do anything with what it reads, while a worker must not trust a host.
"""

from __future__ import annotations

import math
import pickle
from contextlib import suppress
from typing import Any, Literal, cast

import msgspec
import numpy as np
import pandas as pd
import pyarrow as pa
from pandas.core.arrays.masked import BaseMaskedArray

#: Key in the Arrow schema's metadata.
_KEY = b"fin_pyfunc"
Kind = Literal["numpy", "text", "string", "extension", "arrow", "category", "objects", "array"]


class _Column(msgspec.Struct, frozen=True, array_like=True):
    """How a column was written.

    Parameters
    ----------
    kind : str
        "numpy": values of a NumPy dtype. "text": object dtype with text and `null`. "string": pandas' string dtype.
        "extension": a dtype with nulls. "arrow": an Arrow dtype. "category": codes. "objects" and "array": pickled, a
        list of Python objects or a whole array; the Arrow column is empty.
    dtype : str
    null : float or None, default None
        What stands for null in a column of text: None (of a string dtype: pandas.NA) or NaN.
    pickled : bytes, default b""
    categories : list or None, default None
    categories_dtype : str, default ""
    is_ordered : bool, default False
    """

    kind: Kind
    dtype: str
    null: float | None = None
    pickled: bytes = b""
    categories: list[str | int | float | bool] | None = None
    categories_dtype: str = ""
    is_ordered: bool = False


class _Layout(msgspec.Struct, frozen=True, array_like=True):
    """What Arrow does not hold of a DataFrame.

    Parameters
    ----------
    columns : list of _Column
    names : list of str or None
        None where they are not all text; then they are pickled.
    names_dtype : str
    pickled_names : bytes
    n_rows : int
    pickled_index : bytes
        Empty for one that counts from 0.
    """

    columns: list[_Column]
    names: list[str] | None
    names_dtype: str
    pickled_names: bytes
    n_rows: int
    pickled_index: bytes


_layouts = msgspec.msgpack.Decoder(_Layout)


def encode_frame(frame: pd.DataFrame) -> pa.Buffer:
    """Write a DataFrame."""
    arrays, columns = [], []
    for i in range(frame.shape[1]):
        array, column = _encode(frame.iloc[:, i])
        arrays.append(array)
        columns.append(column)
    labels, index = frame.columns, frame.index
    are_text = labels.nlevels == 1 and labels.name is None and set(map(type, labels)) == {str}
    layout = _Layout(
        columns=columns,
        names=labels.tolist() if are_text else None,
        names_dtype=str(labels.dtype) if are_text else "object",
        pickled_names=b"" if are_text else pickle.dumps(labels, 5),
        n_rows=len(frame),
        pickled_index=b"" if _counts_rows(index) else pickle.dumps(index, 5),
    )
    fields = [pa.field(str(i), array.type) for i, array in enumerate(arrays)]
    schema = pa.schema(fields, {_KEY: msgspec.msgpack.encode(layout)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return sink.getvalue()


def decode_frame(buffer: Any) -> pd.DataFrame:
    """Read a DataFrame that a worker has written.

    Parameters
    ----------
    buffer : bytes-like
        Must stay as it is: columns may be views of it.
    """
    with pa.ipc.open_stream(buffer) as reader:
        layout = _layouts.decode(reader.schema.metadata[_KEY])
        batch = reader.read_next_batch()
    columns = {i: _decode(batch.column(i), column) for i, column in enumerate(layout.columns)}
    index: Any = pickle.loads(layout.pickled_index) if layout.pickled_index else pd.RangeIndex(layout.n_rows)  # noqa: S301
    frame = pd.DataFrame(columns, index=None if columns else index)
    frame.index = index
    if layout.names is None:
        frame.columns = pickle.loads(layout.pickled_names)  # noqa: S301
    else:
        frame.columns = pd.Index(layout.names, dtype=cast(Any, layout.names_dtype))
    return frame


def _counts_rows(index: pd.Index[Any]) -> bool:
    return isinstance(index, pd.RangeIndex) and index.start == 0 and index.step == 1 and index.name is None


def _encode(series: pd.Series[Any]) -> tuple[pa.Array, _Column]:
    dtype: Any = series.dtype
    array: Any = series.array
    with suppress(pa.ArrowException, UnicodeEncodeError):  # text that is no Unicode, a dtype that Arrow lacks
        if isinstance(dtype, np.dtype) and dtype.kind in "biuf" and dtype.isnative:
            return pa.array(series.to_numpy(), from_pandas=False), _Column("numpy", dtype.str)
        if isinstance(dtype, np.dtype) and dtype.kind in "mM":
            return pa.array(series.to_numpy().view(np.int64)), _Column("numpy", dtype.str)
        if dtype == np.dtype(object) and (found := _text(series.to_numpy())) is not None:
            return found
        if isinstance(dtype, pd.StringDtype):
            null = None if dtype.na_value is pd.NA else math.nan
            return _flat(pa.array(array, pa.large_string())), _Column("string", dtype.storage, null)
        if isinstance(dtype, pd.ArrowDtype):
            return _flat(pa.array(array)), _Column("arrow", str(dtype))
        if isinstance(dtype, pd.CategoricalDtype):
            known = dtype.categories
            if known.name is None and set(map(type, known.tolist())) <= {str, int, float, bool}:
                column = _Column(
                    "category",
                    array.codes.dtype.str,
                    categories=known.tolist(),
                    categories_dtype=str(known.dtype),
                    is_ordered=bool(dtype.ordered),
                )
                return pa.array(array.codes), column
        elif isinstance(array, BaseMaskedArray):
            return pa.array(array), _Column("extension", str(dtype))
    if dtype == np.dtype(object):
        return pa.nulls(len(series)), _Column("objects", "object", pickled=pickle.dumps(series.tolist(), 5))
    return pa.nulls(len(series)), _Column("array", str(dtype), pickled=pickle.dumps(array, 5))


def _text(values: np.ndarray[Any, Any]) -> tuple[pa.Array, _Column] | None:
    """A column of text, in which nothing but None, or nothing but NaN, stands for null; None for any other."""
    types = set(map(type, values))
    if types <= {str, type(None)}:
        null = None
    elif types <= {str, float} and all(value != value for value in values if type(value) is float):
        null = math.nan
    else:
        return None
    return pa.array(values, pa.large_string(), from_pandas=True), _Column("text", "object", null)


def _decode(array: pa.Array, column: _Column) -> Any:
    kind = column.kind
    if kind == "numpy":
        return array.to_numpy(zero_copy_only=False).view(column.dtype)
    if kind == "text":
        values = np.empty(len(array), dtype=object)
        values[:] = array.to_pylist()
        if column.null is not None:
            values[pd.isna(values)] = math.nan
        return pd.Series(values, dtype=object)
    if kind == "string":
        return _string_dtype(column).__from_arrow__(array)
    if kind == "arrow":
        return cast(Any, pd.ArrowDtype(array.type)).__from_arrow__(array)
    if kind == "extension":
        return cast(Any, pd.api.types.pandas_dtype(column.dtype)).__from_arrow__(array)
    if kind == "category":
        categories = pd.Index(column.categories or [], dtype=cast(Any, column.categories_dtype))
        codes = array.to_numpy(zero_copy_only=False)
        return pd.Categorical.from_codes(codes, categories=categories, ordered=column.is_ordered)
    unpickled = pickle.loads(column.pickled)  # noqa: S301
    if kind == "array":
        return unpickled
    values = np.empty(len(array), dtype=object)
    values[:] = unpickled
    return pd.Series(values, dtype=object)


def _string_dtype(column: _Column) -> Any:
    storage: Any = column.dtype
    if column.null is None:
        return pd.StringDtype(storage)
    return pd.StringDtype(storage, na_value=math.nan)


def _flat(array: pa.Array | pa.ChunkedArray) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array
