"""Rows that hold values of several types in one column, scored apart: none may change how its neighbours are read.

pandas gives a column one type: a text beside numbers makes objects of them, and a null beside text is another null than
alone. An estimator may answer that otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.features import Table

Index = np.ndarray[Any, np.dtype[np.intp]]


def score_alike(table: Table, score: Callable[[Any], Scores]) -> Scores:
    """Score a table as `score` scores rows whose columns have one type each.

    Parameters
    ----------
    table : ndarray or DataFrame
    score : callable
        Table -> Scores.
    """
    if not isinstance(table, pd.DataFrame) or len(table) < 2 or not (groups := _groups(table)):
        return score(table)
    return _merged([(rows, score(_typed(table.iloc[rows]))) for rows in groups], len(table))


def _groups(frame: pd.DataFrame) -> list[Index]:
    """Rows by the types of their values; nothing where they are all alike."""
    mixed = [codes for _, column in frame.items() if (codes := _codes(column)) is not None]
    if not mixed:
        return []
    _, of = np.unique(np.column_stack(mixed), axis=0, return_inverse=True)
    of = of.reshape(-1)
    return [np.flatnonzero(of == group) for group in range(of.max() + 1)]


def _codes(column: pd.Series[Any]) -> Index | None:
    """A number for the type of each value; None where they are of one."""
    if isinstance(column.dtype, pd.StringDtype):
        types = column.isna().to_numpy().astype(np.intp)
    elif column.dtype == object:
        known: dict[Any, int] = {}
        types = np.array([known.setdefault(_type(value), len(known)) for value in column.tolist()], dtype=np.intp)
    else:
        return None
    return types if (types != types[0]).any() else None


def _type(value: Any) -> Any:
    if value is None or value is pd.NA or value != value:
        return None
    return type(value), getattr(value, "tzinfo", None)


def _typed(frame: pd.DataFrame) -> pd.DataFrame:
    """The same with the columns typed as they are where these rows are alone."""
    columns = [
        pd.Series(column.tolist(), index=frame.index)
        if column.dtype == object or isinstance(column.dtype, pd.StringDtype)
        else column
        for _, column in frame.items()
    ]
    typed = pd.concat(columns, axis=1)
    return typed.set_axis(frame.columns, axis=1)


def _merged(parts: list[tuple[Index, Scores]], n_rows: int) -> Scores:
    first = parts[0][1]
    if all(list(scores.classes) == list(first.classes) for _, scores in parts):
        classes: list[Label] = list(first.classes)
        positions = [np.arange(len(classes))] * len(parts)
    else:  # labels of a model that does not say which there are
        known: dict[tuple[type, Label], int] = {}
        positions = [
            np.array([known.setdefault((type(label), label), len(known)) for label in scores.classes], dtype=np.intp)
            for _, scores in parts
        ]
        classes = [label for _, label in known]
    index = np.empty(n_rows, dtype=np.intp)
    p = None if first.probabilities is None else np.empty((n_rows, len(classes)))
    for (rows, scores), position in zip(parts, positions, strict=True):
        index[rows] = position[scores.index]
        if p is not None:
            p[rows] = scores.probabilities
    return Scores(classes=classes, index=index, probabilities=p)
