"""The process of a shadow: it scores what its worker has answered, compares, and reports.

It takes processor time that nobody else wants, and no more of that than it may: of two threads of one process that want
Python's lock one waits, and a thread of low priority that has it holds up all others. So this is no thread of a worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.choice import nearest
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.hosts.isolation import isolate
from fin_pyfunc.serving.loaded_model import LoadedModel
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
from fin_pyfunc.serving.motion.shadow.seen import Seen, joined, seen
from fin_pyfunc.serving.resolver import Resolved
from fin_pyfunc.serving.snapshot import describe

logger = logging.getLogger("fin_pyfunc.server")

#: Rows that are scored in one call: the first, and the most; and the seconds that a call is to take at most.
FIRST_ROWS, BATCH_ROWS, CALL_SECONDS = 16, 512, 0.02
#: Seconds between two looks into the pipe: each finds the processor's caches full of other things, and costs as much as
#: dozens of rows.
PAUSE_SECONDS = 0.5
#: Bytes that are read at once.
PIECE = 1 << 20
_PR_SET_PDEATHSIG = 1


class Scorer:
    """Asks a model what another has answered.

    Parameters
    ----------
    loaded : LoadedModel
    opening : Opening

    Attributes
    ----------
    hosted_seconds : float
        Time that a model in a process of its own has taken; that process's is not this one's processor time.
    """

    def __init__(self, loaded: LoadedModel, opening: Opening) -> None:
        self._model, self._opening = loaded.model, opening
        self._is_hosted, self.hosted_seconds = loaded.hosted is not None, 0.0
        file = opening.differences_file
        self._differences = Differences(None if file is None else Path(file), opening.differences_bytes)
        self._queue: deque[Seen] = deque()
        self._answered = Answered("", [], None)
        self._report = Report()
        self._most = FIRST_ROWS

    def hear(self, message: ToShadow) -> None:
        """Take what the worker says."""
        if isinstance(message, Rows):
            self._queue.append(seen(self._answered, message))
        elif isinstance(message, Answered):
            self._answered = message
        elif isinstance(message, Clear):
            n = sum(each.n_rows for each in self._queue)
            self._queue.clear()
            self._report.taken += n
            self._report.stopped += n

    def work(self) -> None:
        """Score what waits, as much as one call takes."""
        if not self._queue:
            return
        began = time.perf_counter()
        together = self._take()
        scored = self._scored(together)
        if self._is_hosted:
            self.hosted_seconds += time.perf_counter() - began
        for part in scored:
            self._compare(*part)
        n = together.n_rows
        self._report.taken += n
        self._most = min(BATCH_ROWS, max(1, int(CALL_SECONDS * n / (time.perf_counter() - began))))

    def report(self) -> Report | None:
        """What came of the rows since it was asked last; None where there were none."""
        report, self._report = self._report, Report()
        return report if report.taken else None

    def _take(self) -> Seen:
        """What waits and is alike, as far as one call takes it; one request at least."""
        taken, room = list[Seen](), self._most
        while self._queue and (not taken or taken[0].is_like(self._queue[0])):
            k = max(self._queue[0].within(room), 0 if taken else 1)
            if not k:
                break
            head, rest = self._queue.popleft().cut(k)
            if rest.requests:
                self._queue.appendleft(rest)
            taken.append(head)
            room -= head.n_rows
        return joined(taken)

    def _scored(self, together: Seen) -> list[tuple[Seen, Scores]]:
        """The shadow's answers: from one call, or, where it fails, from more of them for fewer requests each."""
        try:
            return [(together, self._model.decide_table(together.table(self._model)).scores)]
        except Exception as e:
            if (k := len(together.requests)) > 1:
                return [part for half in together.cut(k // 2) for part in self._scored(half)]
            self._report.failed += together.n_rows
            logger.debug("the shadow cannot answer request %s: %s", together.requests[0][0], type(e).__name__)
            return []

    def _compare(self, together: Seen, scores: Scores) -> None:
        found, report = comparison.compare(together.scores, scores, self._opening.tolerance), self._report
        report.agreed += found.agreed
        for pair, n in found.pairs.items():
            report.pairs[pair] = report.pairs.get(pair, 0) + n
        if found.distances is not None:
            report.compared += len(found.distances)
            report.difference += float(found.distances.sum())
            report.greatest = max(report.greatest, float(found.distances.max(initial=0.0)))
        self._differences.write(self._differing(together, scores, np.flatnonzero(found.differing)))

    def _differing(self, together: Seen, scores: Scores, which: np.ndarray[Any, Any]) -> Iterator[Difference]:
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        ours, theirs = comparison.rows(together.scores, which), comparison.rows(scores, which)
        for place, answered, shadow in zip(together.where(which.tolist()), ours, theirs, strict=True):
            yield Difference(
                time=now,
                request_id=place[0],
                row=place[1],
                model_id=together.answered.model_id,
                shadow_id=self._opening.model_id,
                prediction=answered[0],
                shadow_prediction=shadow[0],
                probabilities=answered[1],
                shadow_probabilities=shadow[1],
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
    if opening.models.isolation == "process" and not opening.is_data:
        _yield_to_all()  # already, as processes that are started from here run with what this one has
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
    free_at, spent = 0.0, time.process_time()
    while True:
        now = time.monotonic()
        if not _hear(reading, frames, scorer):
            return
        if now >= free_at:
            scorer.work()
        if (report := scorer.report()) is not None:
            _say(writing, report)
        before, spent = spent, time.process_time() + scorer.hosted_seconds
        # what it had no use for is kept for one look, not for more of them
        free_at = max(free_at, now - PAUSE_SECONDS) + (spent - before) / opening.part_of_time
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


def _opened(opening: Opening) -> LoadedModel:
    resolved = Resolved(opening.uri, opening.model_id, opening.path, None, False, opening.kind)
    snapshot = describe(Path(opening.path))  # the worker's own private copy
    isolation = None if opening.is_data else isolate(opening.models, opening.request_seconds)
    loaded = opened(snapshot, resolved, nearest(opening.backend), None, opening.is_data, isolation)
    warm_up(loaded)
    return loaded


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
