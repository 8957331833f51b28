"""The process of a shadow: it scores what its worker has answered, compares, and reports.

It takes processor time that nobody else wants, and no more of that than it may: of two threads of one process that want
Python's lock one waits, and a thread of low priority that has it holds up all others. So this is no thread of a worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from fin_pyfunc.model.choice import nearest
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.loader import opened, warm_up
from fin_pyfunc.serving.logs.lines import set_up
from fin_pyfunc.serving.motion.shadow import comparison
from fin_pyfunc.serving.motion.shadow.differences import Difference, Differences
from fin_pyfunc.serving.motion.shadow.messages import (
    Answered,
    Clear,
    Frames,
    Opening,
    Ready,
    Refused,
    Report,
    Rows,
    ToShadow,
    ToWorker,
    framed,
)
from fin_pyfunc.serving.resolver import Resolved

logger = logging.getLogger("fin_pyfunc.server")

#: Rows that are scored in one call: the first, and the most; and the seconds that a call is to take at most.
FIRST_ROWS, BATCH_ROWS, CALL_SECONDS = 16, 512, 0.02
#: Seconds between two looks into the pipe: a reader that waited there would have to be woken by each answer.
PAUSE_SECONDS = 0.1
#: Bytes that are read at once.
PIECE = 1 << 20
_PR_SET_PDEATHSIG = 1


class _Seen(NamedTuple):
    """What was answered, and by what."""

    answered: Answered
    rows: Rows


class Scorer:
    """Asks a model what another has answered.

    Parameters
    ----------
    model : Classifier
    opening : Opening
    """

    def __init__(self, model: Classifier, opening: Opening) -> None:
        self._model, self._opening = model, opening
        file = opening.differences_file
        self._differences = Differences(None if file is None else Path(file), opening.differences_bytes)
        self._queue: deque[_Seen] = deque()
        self._answered = Answered("", [], None)
        self._report = Report()
        self._most = FIRST_ROWS

    def hear(self, message: ToShadow) -> None:
        """Take what the worker says."""
        if isinstance(message, Rows):
            self._queue.append(_Seen(self._answered, message))
        elif isinstance(message, Answered):
            self._answered = message
        elif isinstance(message, Clear):
            n = sum(len(seen.rows) for seen in self._queue)
            self._queue.clear()
            self._report.taken += n
            self._report.stopped += n

    def work(self, heard: float = 0.0) -> float:
        """Score what waits, as much as one call takes; returns the seconds to rest before the next one.

        Parameters
        ----------
        heard : float, default 0.0
            Seconds that were spent on hearing it, which count, too.
        """
        if not self._queue:
            return 0.0
        began = time.perf_counter()
        together = self._take()
        n = sum(len(seen.rows) for seen in together)
        for part in self._scored(together):
            self._compare(*part)
        self._report.taken += n
        took = time.perf_counter() - began
        self._most = min(BATCH_ROWS, max(1, int(CALL_SECONDS * n / took)))
        spent = took + heard
        return spent / self._opening.part_of_time - spent

    def report(self) -> Report | None:
        """What came of the rows since it was asked last; None where there were none."""
        report, self._report = self._report, Report()
        return report if report.taken else None

    def _take(self) -> list[_Seen]:
        """What waits and was answered by one model, as far as one call takes it; one request at least."""
        taken = [self._queue.popleft()]
        n = len(taken[0].rows)
        while self._queue and self._queue[0].answered is taken[0].answered:
            n += len(self._queue[0].rows)
            if n > self._most:
                break
            taken.append(self._queue.popleft())
        return taken

    def _scored(self, together: list[_Seen]) -> list[tuple[list[_Seen], Scores]]:
        """The shadow's answers: from one call, or, where it fails, from one a request."""
        try:
            table = _stacked([self._table(seen) for seen in together])
            return [(together, self._model.decide_table(table).scores)]
        except Exception as e:
            if len(together) > 1:
                return list(itertools.chain.from_iterable(self._scored([seen]) for seen in together))
            self._report.failed += len(together[0].rows)
            logger.debug("the shadow cannot answer request %s: %s", together[0].rows.request_id, type(e).__name__)
            return []

    def _table(self, seen: _Seen) -> Table:
        """The rows as the shadow takes them."""
        table, ours, theirs = seen.rows.table(), self._model.features, seen.answered.features
        if table is None:
            assert seen.rows.sent is not None  # noqa: S101 - for the type checker; rows come in one of three forms
            sent = msgspec.json.decode(seen.rows.sent)
            return self._model.table(sent if isinstance(sent, list) else [sent])
        if ours is None or (theirs is not None and ours.features == theirs.features):
            return table
        # a table that came as a table: what the model that answered looked at is what there is
        return ours.check(pd.DataFrame(table, columns=None if theirs is None else theirs.names))

    def _compare(self, together: list[_Seen], scores: Scores) -> None:
        answered = _joined([seen.rows.scores(seen.answered.classes) for seen in together])
        found, report = comparison.compare(answered, scores, self._opening.tolerance), self._report
        report.agreed += found.agreed
        for pair, n in found.pairs.items():
            report.pairs[pair] = report.pairs.get(pair, 0) + n
        if found.distances is not None:
            report.compared += len(found.distances)
            report.difference += float(found.distances.sum())
            report.greatest = max(report.greatest, float(found.distances.max(initial=0.0)))
        self._differences.write(list(self._differing(together, answered, scores, found.differing)))

    def _differing(
        self, together: list[_Seen], answered: Scores, scores: Scores, differing: Any
    ) -> Iterator[Difference]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        places = [(seen, row) for seen in together for row in range(len(seen.rows))]
        for i in np.flatnonzero(differing).tolist():
            seen, row = places[i]
            prediction, probabilities = comparison.one(answered, i)
            shadow_prediction, shadow_probabilities = comparison.one(scores, i)
            yield Difference(
                time=now,
                request_id=seen.rows.request_id,
                row=row,
                model_id=seen.answered.model_id,
                shadow_id=self._opening.model_id,
                prediction=prediction,
                shadow_prediction=shadow_prediction,
                probabilities=probabilities,
                shadow_probabilities=shadow_probabilities,
            )


def run(reading: int, writing: int) -> None:
    """Be the process between two pipes until the worker ends.

    Parameters
    ----------
    reading, writing : int
        File descriptors.
    """
    _end_with_worker()
    for one in (signal.SIGINT, signal.SIGHUP):  # to a whole group, as of a terminal: the worker's affair
        signal.signal(one, signal.SIG_IGN)
    frames = Frames[ToShadow](ToShadow)
    messages = _first(reading, frames)
    opening = messages.pop(0) if messages else None
    if not isinstance(opening, Opening):
        return  # the worker has ended
    set_up(opening.log_level, opening.is_json)
    try:
        scorer = Scorer(_opened(opening), opening)
    except Exception as e:
        _say(writing, Refused(str(e) if isinstance(e, FinPyfuncError) else f"opening it failed ({type(e).__name__})"))
        return
    _say(writing, Ready())
    _yield_to_all()
    os.set_blocking(reading, False)
    for message in messages:
        scorer.hear(message)
    rest_until = heard = 0.0
    while True:
        began = time.perf_counter()
        if not _hear(reading, frames, scorer):
            return
        heard += time.perf_counter() - began
        if time.monotonic() >= rest_until:
            rest_until = time.monotonic() + scorer.work(heard)
            heard = 0.0
        if (report := scorer.report()) is not None:
            _say(writing, report)
        time.sleep(PAUSE_SECONDS)


def _first(reading: int, frames: Frames[ToShadow]) -> list[ToShadow]:
    """The first message, and what has come with it; nothing where the worker has ended."""
    while piece := os.read(reading, PIECE):
        if messages := list(frames.feed(piece)):
            return messages
    return []


def _hear(reading: int, frames: Frames[ToShadow], scorer: Scorer) -> bool:
    """Take all there is; whether more may come."""
    with contextlib.suppress(BlockingIOError):
        while piece := os.read(reading, PIECE):
            for message in frames.feed(piece):
                scorer.hear(message)
        return False
    return True


def _say(writing: int, message: ToWorker) -> None:
    """Write it whole; a worker that has ended hears nothing, and the next look into the pipe ends this process."""
    content = memoryview(framed(message))
    with contextlib.suppress(BrokenPipeError):
        while content:
            content = content[os.write(writing, content) :]


def _opened(opening: Opening) -> Classifier:
    resolved = Resolved(opening.uri, opening.model_id, opening.path, None, False, opening.kind)
    loaded = opened(Path(opening.path), resolved, nearest(opening.backend), None, opening.is_data)
    warm_up(loaded)
    return loaded.model


def _end_with_worker() -> None:
    """Have the kernel end this process with the thread that started it, which may be killed while a model scores."""
    parent = os.getppid()
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit()


def _yield_to_all() -> None:
    """Run when nobody else wants to."""
    with contextlib.suppress(OSError, AttributeError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return
    os.nice(20)


def _joined(scores: list[Scores]) -> Scores:
    """One model's answers to several requests as one."""
    parts = [each.probabilities for each in scores if each.probabilities is not None]
    return Scores(
        classes=scores[0].classes,
        index=np.concatenate([each.index for each in scores]),
        probabilities=np.concatenate(parts) if len(parts) == len(scores) else None,
    )


def _stacked(tables: list[Table]) -> Table:
    frames = [table for table in tables if isinstance(table, pd.DataFrame)]
    return pd.concat(frames, ignore_index=True) if frames else np.concatenate(tables)
