"""Tables of other libraries as pandas DataFrames."""

from __future__ import annotations

from typing import Any

import pandas as pd


def as_frame(table: Any) -> pd.DataFrame | None:
    """A table as a DataFrame; None where it is no table.

    Parameters
    ----------
    table : object
        A DataFrame, or what makes itself one: of Polars, PyArrow, cuDF, Modin.
    """
    if isinstance(table, pd.DataFrame):
        return table
    convert = getattr(table, "to_pandas", None)
    frame = convert() if callable(convert) else None
    if not isinstance(frame, pd.DataFrame):
        return None
    frame = frame.copy(deep=False)
    for name, dtype in frame.dtypes.items():
        if isinstance(
            dtype, pd.StringDtype
        ):  # these libraries have None for a missing text, which encoders tell from NaN
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame
