"""Rows that a model answered, as its shadow's process works on them."""

from __future__ import annotations

import pickle
from bisect import bisect
from collections.abc import Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.motion.shadow.messages import Answered, Rows


class Seen(NamedTuple):
    """Rows of requests that one model answered, with what it answered.

    Parameters
    ----------
    answered : Answered
        By what.
    requests : sequence of (str, int)
        Each one's id, and how many rows it had.
    scores : Scores
        Of all rows.
    tables : ndarray of shape (n_rows, n_features), or sequence
        The table of all rows as it was scored; or of each request its rows as the client sent them, JSON (bytes), or
        its table.
    """

    answered: Answered
    requests: Sequence[tuple[str, int]]
    scores: Scores
    tables: np.ndarray[Any, np.dtype[np.float64]] | Sequence[Any]

    @property
    def n_rows(self) -> int:
        """How many they are."""
        return len(self.scores.index)

    def is_like(self, other: Seen) -> bool:
        """Whether both were answered by one model, and came in one form."""
        return (
            self.answered is other.answered
            and (self.scores.probabilities is None) == (other.scores.probabilities is None)
            and type(self.tables) is type(other.tables)
            and (isinstance(self.tables, np.ndarray) or type(self.tables[0]) is type(other.tables[0]))
        )

    def within(self, n_rows: int) -> int:
        """How many requests, from the first one on, have so many rows at most together."""
        return bisect(list(accumulate(n for _, n in self.requests)), n_rows)

    def cut(self, k: int) -> tuple[Seen, Seen]:
        """The first k requests, and the others."""
        at = sum(n for _, n in self.requests[:k])
        return self._part(slice(k), slice(at)), self._part(slice(k, None), slice(at, None))

    def _part(self, requests: slice, rows: slice) -> Seen:
        p = self.scores.probabilities
        return Seen(
            self.answered,
            self.requests[requests],
            Scores(
                classes=self.scores.classes,
                index=self.scores.index[rows],
                probabilities=None if p is None else p[rows],
            ),
            self.tables[rows if isinstance(self.tables, np.ndarray) else requests],
        )

    def where(self, rows: Sequence[int]) -> list[tuple[str, int]]:
        """Of each of these rows the request's id, and which of its rows it is."""
        starts = [0, *accumulate(n for _, n in self.requests)]
        requests = [bisect(starts, row) - 1 for row in rows]
        return [(self.requests[k][0], row - starts[k]) for k, row in zip(requests, rows, strict=True)]

    def table(self, model: Classifier) -> Table:
        """The rows as a model takes them.

        Raises
        ------
        FeatureError
            It does not.
        """
        ours, theirs = model.features, self.answered.features
        if isinstance(self.tables, np.ndarray):
            if ours is not None:
                ours.check_matrix(self.tables)  # the model that answered may take what this one does not
            return self.tables
        if isinstance(self.tables[0], bytes):
            sent = map(msgspec.json.decode, self.tables)
            return model.table(list(chain.from_iterable(each if _is_rows(each) else [each] for each in sent)))
        table = _stacked(self.tables)
        if ours is None or (theirs is not None and ours.features == theirs.features):
            return table
        # a table that came as a table: what the model that answered looked at is what there is
        return ours.check(pd.DataFrame(table, columns=None if theirs is None else theirs.names))


def seen(answered: Answered, rows: Rows) -> Seen:
    """A message's rows."""
    index = np.frombuffer(rows.index, np.intp)
    p = None if rows.probabilities is None else np.frombuffer(rows.probabilities).reshape(len(index), -1)
    tables: Any = rows.sent
    if rows.matrix is not None:
        tables = np.frombuffer(rows.matrix).reshape(len(index), -1)
    elif rows.pickled is not None:
        tables = pickle.loads(rows.pickled)  # noqa: S301 - of the worker whose child this is
    scores = Scores(classes=answered.classes, index=index, probabilities=p)
    return Seen(answered, rows.requests, scores, tables)


def joined(parts: Sequence[Seen]) -> Seen:
    """Rows that are alike, as `Seen.is_like` says, as one."""
    if len(parts) == 1:
        return parts[0]
    first, p = parts[0], [part.scores.probabilities for part in parts if part.scores.probabilities is not None]
    scores = Scores(
        classes=first.scores.classes,
        index=np.concatenate([part.scores.index for part in parts]),
        probabilities=np.concatenate(p) if p else None,
    )
    tables = [part.tables for part in parts]
    return Seen(
        first.answered,
        list(chain.from_iterable(part.requests for part in parts)),
        scores,
        np.concatenate(tables) if isinstance(first.tables, np.ndarray) else list(chain.from_iterable(tables)),
    )


def _is_rows(sent: Any) -> bool:
    """Whether it is a list of rows; a row may be a list itself."""
    return isinstance(sent, list) and isinstance(next(iter(sent), None), list | dict)


def _stacked(tables: Sequence[Table]) -> Table:
    frames = [table for table in tables if isinstance(table, pd.DataFrame)]
    return pd.concat(frames, ignore_index=True) if frames else np.concatenate(tables)
