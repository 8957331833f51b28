"""Concurrent single rows of a slow model, joined into one call of it, each with its own answer or error.

Nothing waits for company: a row that finds the model idle is scored at once, and those that come meanwhile go together
in the next call. (Batching by a timer, as others do it, costs a lone caller the timer.)
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Decisions, Scores, Thresholds
from fin_pyfunc.model.errors import ScoringError
from fin_pyfunc.model.features import FeatureSpec, Table


class _Waiting(NamedTuple):
    """One caller's row, and where its answer goes."""

    row: Table
    answer: asyncio.Future[Decided]


class Decided(NamedTuple):
    """A row's answer, and when its scoring began, in the seconds of ``time.perf_counter``."""

    decisions: Decisions
    started: float


class Joined(NamedTuple):
    """What a row was computed together with: the last bit of an answer may depend on how many rows a call has.

    Parameters
    ----------
    call : str
        The same for all rows of one call.
    row : int
        Position of this row in it.
    of : int
        How many there were.
    """

    call: str
    row: int
    of: int


class JoinedDecisions(Decisions):
    """The decision on a row that was joined with others."""

    __slots__ = ("joined",)

    def __init__(self, scores: Scores, thresholds: Thresholds, backend: str, joined: Joined) -> None:
        super().__init__(scores, thresholds, backend)
        self.joined = joined


class Joiner:
    """Scores single rows on threads. Everything but the scoring happens on the event loop, so no locks.

    Parameters
    ----------
    threads : Executor
        Where models are asked, one call a model at a time.
    """

    def __init__(self, threads: Executor) -> None:
        self._threads = threads
        self._waiting: dict[Classifier, deque[_Waiting]] = {}
        self._at_work: set[asyncio.Task[None]] = set()

    async def decide(self, model: Classifier, row: Table) -> Decided:
        """Classify one checked row, together with whatever other rows wait for the same model.

        Raises
        ------
        ScoringError
            The estimator failed on this row; other callers' rows are not in it.
        """
        answer: asyncio.Future[Decided] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(model)
        if waiting is None:
            self._waiting[model] = waiting = deque()
            task = asyncio.ensure_future(self._work(model, waiting))
            self._at_work.add(task)  # the loop itself keeps no hold of a task
            task.add_done_callback(self._at_work.discard)
        waiting.append(_Waiting(row, answer))
        return await answer

    async def _work(self, model: Classifier, waiting: deque[_Waiting]) -> None:
        """Ask the model until nobody waits for it."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0)  # whoever came in the same turn of the loop comes along
        try:
            while waiting:
                together = [w for w in waiting if not w.answer.done()]  # a caller who has gone is not waited on
                waiting.clear()
                if not together:
                    break
                try:
                    rows = [w.row for w in together]
                    started, answers = await loop.run_in_executor(self._threads, _decide_now, model, rows)
                except (
                    Exception
                ) as e:  # a defect of ours, or the pool is closed: everyone is told, nobody waits for ever
                    started, answers = 0.0, [e] * len(together)
                for w, answered in zip(together, answers, strict=True):
                    if w.answer.done():
                        continue
                    if isinstance(answered, Exception):
                        w.answer.set_exception(answered)
                    else:
                        w.answer.set_result(Decided(answered, started))
        finally:
            del self._waiting[model]
            for w in waiting:
                w.answer.cancel()


def _decide_now(model: Classifier, rows: list[Table]) -> tuple[float, list[Decisions | Exception]]:
    return time.perf_counter(), _decide(model, rows)


def _decide(model: Classifier, rows: list[Table]) -> list[Decisions | Exception]:
    """Each row's answer: from one call for all, or from one call each where that fails."""
    if len(rows) == 1 or model.features is None:  # rows of unknown features need not fit together
        return [_alone(model, row) for row in rows]
    if model.features.is_untyped and len(kinds := _by_types(rows)) > 1:
        answers: dict[int, Decisions | Exception] = {}
        for alike in kinds:
            answers |= zip(alike, _decide(model, [rows[i] for i in alike]), strict=True)
        return [answers[i] for i in range(len(rows))]
    try:
        all_of_them = model.decide_table(stacked(rows, model.features), is_joined=True)
    except ScoringError:  # of one row's doing, perhaps
        return [_alone(model, row) for row in rows]
    return list(_apart(all_of_them))


def _by_types(rows: list[Table]) -> list[list[int]]:
    """Positions of rows by the types of their columns: stacked with others, an integer would become a float."""
    found: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        found.setdefault(tuple(row.dtypes) if isinstance(row, pd.DataFrame) else None, []).append(i)
    return list(found.values())


def _alone(model: Classifier, row: Table) -> Decisions | Exception:
    try:
        return model.decide_table(row)
    except Exception as e:
        return e


def stacked(rows: Sequence[Table], features: FeatureSpec | None) -> Table:
    """Rows of one model as one table, as they are joined: a DataFrame where one of them is."""
    if any(isinstance(row, pd.DataFrame) for row in rows) and features is not None:
        rows = [features.decode(row) for row in rows]
    frames = [row for row in rows if isinstance(row, pd.DataFrame)]
    return pd.concat(frames, ignore_index=True) if frames else np.concatenate(rows)


def _apart(decisions: Decisions) -> list[JoinedDecisions]:
    """Decisions on n rows as n decisions on one."""
    scores, p, call = decisions.scores, decisions.scores.probabilities, os.urandom(8).hex()
    return [
        JoinedDecisions(
            Scores(
                classes=scores.classes,
                index=scores.index[i : i + 1],
                probabilities=None if p is None else p[i : i + 1],
            ),
            decisions.thresholds,
            decisions.backend,
            Joined(call, i, len(decisions)),
        )
        for i in range(len(decisions))
    ]
