"""Columns as Arrow holds them, turned into what a DataFrame holds; a text that many rows share stays one object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

Values = np.ndarray[Any, Any]


def is_readable(kind: Any, any_kind: bool) -> bool:
    """Whether a feature could hold a column of this Arrow type.

    Parameters
    ----------
    kind : pyarrow.DataType
    any_kind : bool
        The model says no types, so that dates and times may be what it wants.
    """
    from pyarrow import types

    if types.is_dictionary(kind):
        return is_readable(kind.value_type, any_kind=False)
    plain = (types.is_integer, types.is_floating, types.is_boolean, types.is_decimal, types.is_null)
    return is_text(kind) or any(is_kind(kind) for is_kind in plain) or (any_kind and types.is_temporal(kind))


def is_text(kind: Any) -> bool:
    """Whether it is text, in any of Arrow's layouts."""
    return str(kind) in ("string", "large_string", "string_view")  # the last is younger than the oldest pyarrow allowed


def text_bytes(array: Any) -> int:
    """How long the texts of a column of views are in all; many of them may be views of the same bytes."""
    if str(array.type) != "string_view":
        return 0
    # a view has 16 bytes, of which the first four are its length (Arrow's columnar format)
    views = np.frombuffer(array.buffers()[1], np.int32).reshape(-1, 4)[array.offset : array.offset + len(array), 0]
    return int(views[array.is_valid().to_numpy(zero_copy_only=False)].sum(dtype=np.int64))


def values(array: Any) -> Values:
    """A column that is readable, as NumPy holds it.

    Parameters
    ----------
    array : pyarrow.Array
        One chunk, fully validated.

    Returns
    -------
    ndarray of shape (n_rows,)
        Numbers without nulls as they are, without a copy; with nulls as float64 and NaN; text, and booleans with
        nulls, as objects and None; times as `Array.to_pandas` gives them.
    """
    import pyarrow as pa
    from pyarrow import types

    if types.is_dictionary(array.type):
        return _looked_up(array)
    if types.is_decimal(array.type):
        array = array.cast(pa.float64())
    if types.is_temporal(array.type):
        return array.to_pandas()  # type: ignore[no-any-return] # pyarrow has no types
    return array.to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def categories(array: Any) -> pd.Categorical | None:
    """A column of text as its dictionary, and where each row is in it: no row needs a text of its own.

    Parameters
    ----------
    array : pyarrow.Array
        One chunk, fully validated.

    Returns
    -------
    Categorical of shape (n_rows,), or None
        None where it is not text, or its own dictionary has a null or a text twice.
    """
    import pandas as pd
    from pyarrow import types

    if types.is_string(array.type) or types.is_large_string(array.type):
        array = array.dictionary_encode()
    if not types.is_dictionary(array.type) or not is_text(array.type.value_type):
        return None
    texts = pd.Index(array.dictionary.to_pylist(), dtype=object)
    if texts.hasnans or not texts.is_unique:
        return None
    return pd.Categorical.from_codes(array.indices.cast("int64").fill_null(-1).to_numpy(), texts)


def odd_values(kind: Any, n_rows: int) -> Values:
    """What stands for a column that is not readable: one object a row, by which a check tells what it was."""
    from pyarrow import types

    held = np.empty(n_rows, dtype=object)
    is_list = types.is_nested(kind) and not (types.is_struct(kind) or types.is_map(kind) or types.is_union(kind))
    held.fill([] if is_list else {} if types.is_struct(kind) or types.is_map(kind) else ())
    return held


def _looked_up(array: Any) -> Values:
    """The values that a dictionary's indices stand for; a text that many rows have is one object."""
    import pyarrow as pa

    known, index = values(array.dictionary), array.indices.cast(pa.int64())
    if index.null_count:
        numeric = known.dtype.kind in "iuf"
        null = np.array([np.nan if numeric else None], dtype=np.float64 if numeric else object)
        known, index = np.concatenate([known.astype(null.dtype), null]), index.fill_null(len(known))
    return known[index.to_numpy()]  # type: ignore[no-any-return] # an index array gives an array
