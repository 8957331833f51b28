"""From the text of CSV cells to values: every column is read as text, and then as what its feature is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from fin_pyfunc.model.feature import Feature

#: What stands for a missing number or boolean. A cell of text is missing only where it is empty.
NULLS = ("", "nan", "na", "n/a", "null", "none")
_TRUE, _FALSE = ("true", "1"), ("false", "0")


def read(cells: Any, feature: Feature) -> pd.Series[Any]:
    """Read a column of cells as a feature takes it.

    Parameters
    ----------
    cells : pyarrow.Array or ChunkedArray of strings
    feature : Feature

    Returns
    -------
    Series
        What could not be read is still the text it was, and a missing value is None, so that `FeatureSpec.check` names
        both. Booleans may be written as true, false, 1 and 0, in any case.
    """
    if feature.kind in ("number", "integer"):
        return _numbers(cells, feature.nullable)
    if feature.kind == "boolean":
        return _objects(_boolean(cell) for cell in cells.to_pylist())
    if feature.kind == "category":
        return _objects(_category(cell, feature) for cell in cells.to_pylist())
    if feature.kind == "any":
        return _any(cells)
    return _text(cells)


def _numbers(cells: Any, nullable: bool) -> pd.Series[Any]:
    trimmed = pc.utf8_trim_whitespace(cells)
    null = pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(NULLS))
    known = pc.if_else(null, pa.scalar(None, pa.string()), trimmed)
    if nullable or not pc.any(null, min_count=0).as_py():
        try:
            return pd.Series(np.asarray(pc.cast(known, pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64))
        except pa.ArrowInvalid:
            pass  # at least one cell is no number
    return _objects(None if cell is None else _number(cell) for cell in known.to_pylist())


def _number(cell: str) -> float | str:
    try:
        return cell if "_" in cell else float(cell)  # Python alone takes 1_000 for a number
    except ValueError:
        return cell


def _boolean(cell: str) -> bool | str | None:
    word = cell.strip().lower()
    return True if word in _TRUE else False if word in _FALSE else None if word in NULLS else cell


def _category(cell: str, feature: Feature) -> Any:
    known = feature.categories or []
    if cell in known:
        return cell
    if not cell:
        return None
    if any(isinstance(category, bool) for category in known) and isinstance(found := _boolean(cell), bool):
        return found
    if any(isinstance(category, int | float) for category in known):
        return None if cell.strip().lower() in NULLS else _number(cell.strip())
    return cell


def _any(cells: Any) -> pd.Series[Any]:
    """A column of a model that says no types: each cell is a number, else a boolean, else text."""
    numbers = _numbers(cells, nullable=True)
    if numbers.dtype != object:
        return numbers
    values = [_untyped(cell) for cell in cells.to_pylist()]
    return pd.Series(values) if all(isinstance(value, bool) for value in values) else _objects(values)


def _untyped(cell: str) -> Any:
    number = _number(cell.strip())
    if isinstance(number, float):
        return None if number != number else number
    word = cell.strip().lower()
    return word == "true" if word in ("true", "false") else cell or None


def _text(cells: Any) -> pd.Series[Any]:
    return _objects(cell or None for cell in cells.to_pylist())


def _objects(values: Any) -> pd.Series[Any]:
    return pd.Series(list(values), dtype=object)
