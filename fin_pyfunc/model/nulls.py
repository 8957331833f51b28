"""Which nulls an estimator failed on, where nobody has said which it takes: a foreign model's signature does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.errors import FeatureError, Problem, ScoringError
from fin_pyfunc.model.feature import NUMERIC
from fin_pyfunc.model.features import FeatureSpec, Table

#: Sets of null features that are tried, and features of one set that are tried one by one.
MAX_SETS, MAX_ALONE = 8, 8


def refused_nulls(
    table: Table, spec: FeatureSpec | None, score: Callable[[Table], Any], good: Table | None
) -> FeatureError | None:
    """Find the nulls that a failure is due to.

    Parameters
    ----------
    table : ndarray of shape (n_rows, n_features) or DataFrame
        The rows that failed.
    spec : FeatureSpec or None
    score : callable
        Raises ScoringError where it fails.
    good : table of shape (1, n_features) or None
        A row that was answered.

    Returns
    -------
    FeatureError or None
        None where nulls are not to blame.
    """
    if spec is not None:
        table, good = spec.decode(table), None if good is None else spec.decode(good)
    null = np.isnan(table) if isinstance(table, np.ndarray) else table.isna().to_numpy()
    if not null.any():
        return None
    names = [str(name) for name in (pd.DataFrame(table).columns if spec is None else spec.names)]
    sets, first, of = np.unique(null, axis=0, return_index=True, return_inverse=True)
    problems: list[Problem] = []
    of, tried = of.reshape(-1), [k for k in range(len(sets)) if sets[k].any()][:MAX_SETS]
    for k in tried:
        blamed = _blamed(table[first[k] : first[k] + 1], np.flatnonzero(sets[k]).tolist(), score, spec, good)
        problems += [
            Problem(row, names[i], "null, which the model does not take")
            for row in np.flatnonzero(of == k).tolist()
            for i in blamed
        ]
    return FeatureError(sorted(problems, key=lambda problem: problem.row)) if problems else None


def _blamed(
    row: Table, nulls: list[int], score: Callable[[Table], Any], spec: FeatureSpec | None, good: Table | None
) -> list[int]:
    if _is_answered(row, score):
        return []
    filled = _filled(row, nulls, spec, good)
    if filled is None:
        return nulls
    if not _is_answered(filled, score):
        return []  # it fails for another reason
    if len(nulls) == 1 or len(nulls) > MAX_ALONE:
        return nulls
    others = {i: _filled(row, [j for j in nulls if j != i], spec, good) for i in nulls}
    return [i for i, one in others.items() if one is not None and not _is_answered(one, score)] or nulls


def _is_answered(row: Table, score: Callable[[Table], Any]) -> bool:
    try:
        score(row)
    except ScoringError:
        return False
    return True


def _filled(row: Table, nulls: Sequence[int], spec: FeatureSpec | None, good: Table | None) -> Table | None:
    """The row with values in place of these nulls; None where nobody knows any."""
    if isinstance(row, np.ndarray):
        filled = row.copy()
        filled[0, nulls] = good[0, nulls] if isinstance(good, np.ndarray) else 0.0
        return filled
    columns: dict[Any, Any] = {name: row[name].reset_index(drop=True) for name in row.columns}
    for i in nulls:
        name, feature = row.columns[i], None if spec is None else spec.features[i]
        if isinstance(good, pd.DataFrame) and name in good:
            columns[name] = good[name].reset_index(drop=True)
        elif feature is not None and (feature.known or feature.kind in NUMERIC):
            columns[name] = feature.restore([feature.known[0] if feature.known else 0.0])
        else:
            return None
    return pd.DataFrame(columns)
