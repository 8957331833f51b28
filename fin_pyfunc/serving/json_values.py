"""Columns of a table as JSON can carry them, without losing a digit."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd


def json_values(column: Any) -> list[Any]:
    """One value a row: numbers, text and booleans as they are, what is missing as None, anything else as text.

    Parameters
    ----------
    column : Series or ndarray of shape (n_rows,)
    """
    values = column if isinstance(column, np.ndarray) else pd.Series(column)
    if isinstance(values, np.ndarray) and values.dtype.kind in "iub":
        return values.tolist()  # type: ignore[no-any-return]
    if isinstance(values, np.ndarray) and values.dtype.kind == "f" and np.isfinite(values).all():
        return values.tolist()  # type: ignore[no-any-return]
    return [_value(value) for value in values.tolist()]


def _value(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None if value != value else str(value)  # JSON has no infinity
    if isinstance(value, str | int | float | bool):
        return value
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
