"""Rows of a model that says nothing of its features: neither which there are, nor in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.errors import FeatureError, Problem, ScoringError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec, Row, Table

#: How far probabilities may be apart where columns are only added up in another order.
_ROUNDING = 1e-9
_NO_ORDER = (
    "the model answers otherwise where its columns come in another order, and nothing says in which order it was "
    "trained: send each row as a list of values in training order, or log the model again with a signature"
)


def unnamed_table(rows: Sequence[Row]) -> pd.DataFrame:
    """Rows as a DataFrame: columns named by the keys, or by position where rows are lists.

    Raises
    ------
    FeatureError
        The rows are not all objects of the same keys, nor all lists of one length.
    """
    if not rows:
        return pd.DataFrame()
    first = rows[0]
    if not isinstance(first, Mapping):
        width = len(first)
        if odd := [i for i, row in enumerate(rows) if isinstance(row, Mapping) or len(row) != width]:
            raise FeatureError([], len(odd), odd, "the rows are not all lists of one length: send them alike")
        names, keyed = [str(i) for i in range(width)], [dict(zip(map(str, range(width)), row)) for row in rows]  # noqa: B905
        return _frame(names, keyed).set_axis(range(width), axis=1)
    if odd := [i for i, row in enumerate(rows) if not isinstance(row, Mapping)]:
        raise FeatureError([], len(odd), odd, "the rows are not all objects: send them alike")
    problems = [
        Problem(i, str(name), "missing" if name in first else "unknown in the other rows")
        for i, row in enumerate(rows)
        if isinstance(row, Mapping)
        for name in sorted(row.keys() ^ first.keys(), key=str)
    ]
    if problems:
        raise FeatureError(problems, hint="the rows of a batch must have the same keys")
    return _frame(list(first), rows)


def by_position(frame: pd.DataFrame) -> pd.DataFrame:
    """A table whose columns are named "0", "1", … with these as numbers, as of rows that are lists."""
    width = frame.shape[1]
    return frame.set_axis(range(width), axis=1) if list(frame.columns) == [str(i) for i in range(width)] else frame


def score_named(frame: pd.DataFrame, score: Callable[[Table], tuple[Scores, str]]) -> tuple[Scores, str]:
    """Score rows with names by a model that may go by the order of its columns, which the names do not tell.

    It is asked in two orders that do not depend on how the rows were sent. One that raises there knows its own order,
    and is asked as the rows were sent.

    Raises
    ------
    FeatureError
        The answers differ.
    ScoringError
    """
    ordered = sorted(frame.columns)
    try:
        scored = score(frame[ordered])
        other, _ = score(frame[ordered[::-1]])
    except ScoringError:
        return score(frame)
    if not _is_same(scored[0], other):
        raise FeatureError([], len(frame), range(len(frame)), _NO_ORDER)
    return scored


def _is_same(one: Scores, other: Scores) -> bool:
    labels = ([scores.classes[i] for i in scores.index.tolist()] for scores in (one, other))
    if len({tuple(map(repr, found)) for found in labels}) > 1:
        return False
    if one.probabilities is None or other.probabilities is None:
        return True
    return np.allclose(one.probabilities, other.probabilities, rtol=0, atol=_ROUNDING)


def _frame(names: Sequence[str], rows: Sequence[Row]) -> pd.DataFrame:
    spec = FeatureSpec(features=[Feature(name=name, kind="any", dtype="object") for name in names])
    table: Any = spec.table(rows)
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame(table)
