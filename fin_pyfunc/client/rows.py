"""Rows as callers have them (dicts, lists, Series, DataFrames, arrays) as what is sent; anything else is a sentence."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

_TAKEN = (
    "a DataFrame (pandas, Polars, Arrow), dicts of feature name to value, Series, or, in the model's order of "
    "features, lists of values or a NumPy array"
)
#: pandas' own nulls, by the names of their types: pandas need not be there.
_NULLS = frozenset({"NAType", "NaTType"})


class Unnamed:
    """Rows of values without names: the model says which feature is where.

    Parameters
    ----------
    values : list of list
        One list a row.
    """

    def __init__(self, values: list[list[Any]]) -> None:
        self.values = values

    def named(self, names: Sequence[str] | None) -> list[dict[str, Any]]:
        """The rows by name.

        Parameters
        ----------
        names : sequence of str or None
            The model's features in training order; None where it says nothing of them.

        Raises
        ------
        ValueError
        """
        if names is None:
            raise ValueError("The model says nothing of its features: send a DataFrame, or dicts of name to value.")
        for i, row in enumerate(self.values):
            if len(row) != len(names):
                raise ValueError(
                    f"Row {i} has {len(row)} values and no names, and the model takes {len(names)} features: "
                    f"{', '.join(names[:20])}{', …' if len(names) > 20 else ''}. Send them in this order, or by name."
                )
        return [dict(zip(names, row, strict=True)) for row in self.values]


def one_row(data: Any) -> Mapping[str, Any] | Unnamed:
    """The row of a caller that has one.

    Parameters
    ----------
    data : mapping, Series, namedtuple, DataFrame of one row, list or array of values, or list of one of these

    Returns
    -------
    mapping of str to object, or Unnamed

    Raises
    ------
    ValueError
        There are several rows, or none.
    TypeError
        It is nothing that has rows.
    """
    rows = all_rows(data, is_one=True)
    found = rows.values if isinstance(rows, Unnamed) else rows if isinstance(rows, list) else frame_rows(rows)
    if len(found) != 1:
        raise ValueError(f"predict takes one row, and these are {len(found)}: call predict_batch.")
    return rows if isinstance(rows, Unnamed) else found[0]  # type: ignore[return-value]


def all_rows(data: Any, *, is_one: bool = False) -> pd.DataFrame | list[Mapping[str, Any]] | Unnamed:
    """The rows of a caller, whatever holds them.

    Parameters
    ----------
    data : object
        A DataFrame; a mapping of name to value (one row) or to a list of values (columns); a Series (one row); a list
        of mappings, Series or lists of values; an array.
    is_one : bool, default False
        A flat list or array is one row, and the lists in a mapping are values of one.

    Raises
    ------
    ValueError, TypeError
    """
    if _is_named(data):
        row = _mapping(data)
        columns = [value for value in row.values() if _is_listed(value)]
        return _from_columns(row) if columns and not is_one else [row]
    if (frame := _frame(data)) is not None:
        return frame
    if getattr(getattr(data, "dtype", None), "names", None):  # a structured array of NumPy
        names = data.dtype.names
        return [dict(zip(names, each, strict=True)) for each in data.reshape(-1).tolist()]
    values = data.tolist() if hasattr(data, "tolist") else data
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise TypeError(f"Rows are {_TAKEN}, not {type(data).__name__}.")
    listed = list(values)
    if all(_is_named(each) for each in listed):
        return [_mapping(each) for each in listed]
    if all(_is_listed(each) for each in listed):
        return Unnamed([list(each) for each in listed])
    if is_one and not any(_is_listed(each) or _is_named(each) for each in listed):
        return Unnamed([listed])
    if any(_is_listed(each) or _is_named(each) for each in listed):
        raise TypeError("The rows are not all of one kind: send dicts only, or lists only.")
    raise TypeError("These are values of one row, or of one column: call predict for a row, or send a list of rows.")


def part_of(rows: Any, first: int, n_rows: int) -> Any:
    """Some of the rows of a DataFrame or list, by position."""
    return (rows.iloc if hasattr(rows, "iloc") else rows)[first : first + n_rows]


def frame_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a DataFrame by name, null as None."""
    cells = frame.astype(object).where(frame.notna(), None)
    names = [str(name) for name in frame.columns]
    return [dict(zip(names, row, strict=True)) for row in cells.itertuples(index=False, name=None)]


def plain(name: str, value: Any) -> float | int | str | bool | None:
    """One value as JSON has it: NumPy's numbers and Decimal as numbers, NaN as null, times as text.

    Raises
    ------
    ValueError
        It is infinite.
    TypeError
        It is a list, a dict or something else that no feature can be.
    """
    if hasattr(value, "item") and getattr(value, "size", 1) == 1:
        value = value.item()
    if isinstance(value, Decimal):
        value = float(value)
    if value is None or type(value).__name__ in _NULLS or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and math.isinf(value):
        raise ValueError(f"Feature {name!r} is infinite: send a finite number, or null.")
    if isinstance(value, bool | int | float | str):
        return value
    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    raise TypeError(f"Feature {name!r} is a {type(value).__name__}: send a number, text, a boolean, a time or null.")


def _is_named(data: Any) -> bool:
    """Whether it is one row with names: a mapping, a Series of pandas by names, a namedtuple."""
    if isinstance(data, Mapping) or hasattr(data, "_asdict"):
        return True
    return _is_series(data) and all(isinstance(name, str) for name in data.index)


def _is_series(data: Any) -> bool:
    return type(data).__name__ == "Series" and hasattr(data, "index") and hasattr(data, "to_dict")


def _is_listed(value: Any) -> bool:
    """Whether it holds values without names."""
    if isinstance(value, list | tuple):
        return True
    return getattr(value, "ndim", 0) >= 1 or _is_series(value)


def _mapping(data: Any) -> dict[str, Any]:
    items = data._asdict() if hasattr(data, "_asdict") else data if isinstance(data, Mapping) else data.to_dict()
    return {str(name): value for name, value in items.items()}


def _frame(data: Any) -> pd.DataFrame | None:
    """A DataFrame of pandas with text for names; None for what is no table."""
    if not hasattr(data, "columns"):
        return None
    if hasattr(data, "to_pandas"):  # of Polars, Arrow, cuDF
        frame = data.to_pandas()
    elif hasattr(data, "iloc"):
        frame = data
    else:
        return None
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"The column {twice!r} is there more than once: send each feature once.")
    found: pd.DataFrame = frame if names == list(frame.columns) else frame.set_axis(names, axis="columns")
    return found


def _from_columns(columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    try:
        return pd.DataFrame({name: list(of) if _is_listed(of) else of for name, of in columns.items()})
    except ValueError:
        raise ValueError("The columns are not of one length: send as many values of each feature.") from None
