"""The record as a watcher of predictions: what was answered is written down, before the answer leaves if so wanted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable
from pathlib import Path

from starlette.types import Scope

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.gathering import Gathering
from fin_pyfunc.serving.http import encode, new_id
from fin_pyfunc.serving.prediction import Asked, Failure, Prediction
from fin_pyfunc.serving.record import entries, facts
from fin_pyfunc.serving.record.chain import ChainWriter, take
from fin_pyfunc.serving.record.commit import Commit
from fin_pyfunc.serving.record.entries import ONE_ROW
from fin_pyfunc.serving.record.features import Digests
from fin_pyfunc.serving.record.keeping import Keeper
from fin_pyfunc.serving.record.notes import Note, bodies
from fin_pyfunc.serving.settings import Record

logger = logging.getLogger("fin_pyfunc.record")

#: Requests with more rows than this are made records of on another thread.
ROWS_ON_LOOP = 16
#: Under `interval`, records of so many requests are made together, or of what came within so many seconds; fewer of
#: those that leave no note, as each takes ten times as long.
NOTES_TOGETHER, OTHERS_TOGETHER, WAIT_SECONDS = 256, 64, 0.01
#: What usual records of a model have in common is kept for so many who ask, and URIs they ask by.
MAX_NOTED = 1000
#: Part of the room for waiting records from which on the thread does not wait for its time.
HURRY = 0.25
NOT_RECORDED = (
    "The prediction could not be recorded, and this server answers none that is not: try again, or ask its operator "
    "to look at the record."
)


class Recorder:
    """Records the predictions of one worker.

    Parameters
    ----------
    settings : Record
        Its `folder` is set. The key file, if there is one, is read now; nothing else is opened before `start`.
    patience : float
        Seconds that an answer waits for the disk, under `always`.

    Raises
    ------
    DigestKeyError
        The key file cannot be used.
    """

    def __init__(self, settings: Record, patience: float) -> None:
        self._settings, self._patience = settings, patience
        self._folder, self._is_always = Path(settings.folder or ""), settings.sync == "always"
        digests = Digests.read(Path(settings.key_file or "")) if settings.features == "digest" else None
        self._key_id = None if digests is None else digests.key_id
        self._entries = entries.Entries(digests)
        self._keeper = Keeper(
            self._folder, compress=settings.compress, keep_days=settings.keep_days, keep_bytes=settings.keep_bytes
        )
        self._commit = Commit(
            self._open,
            self._keeper.look,
            is_always=self._is_always,
            interval_seconds=settings.interval_seconds,
            gap=entries.gap,
        )
        #: whether usual records are made of notes, many at a time
        self._is_noting = not self._is_always and digests is None
        self._notes = Gathering(self._put_notes, NOTES_TOGETHER, WAIT_SECONDS)
        self._others = Gathering(self._put_others, OTHERS_TOGETHER, WAIT_SECONDS)
        self._preamble: bytes | None = None
        #: since when, and for what, answers wait
        self._waiters: deque[tuple[float, asyncio.Future[None]]] = deque()

    @property
    def written(self) -> int:
        """Records written so far: given to the system, and under `always` safe on the disk."""
        return self._commit.written

    @property
    def waiting(self) -> int:
        """Records on their way to the disk."""
        return self._commit.waiting

    @property
    def failed(self) -> int:
        """Records that did not get there: under `always` their answers were 503, under `interval` they are lost."""
        return self._commit.failed

    @property
    def problem(self) -> str | None:
        """Why the record cannot be written now; None where it can."""
        return self._commit.problem

    def start(self) -> None:
        """Begin, on a running event loop; the folder is opened in the background."""
        self._keeper.start()
        self._commit.start(asyncio.get_running_loop())

    async def run(self) -> None:
        """Until cancelled, see to it that no answer waits longer than it may."""
        while True:
            await asyncio.sleep(min(1.0, self._patience))
            too_long = time.monotonic() - self._patience
            while self._waiters and (self._waiters[0][1].done() or self._waiters[0][0] < too_long):
                _, done = self._waiters.popleft()
                if not done.done():
                    done.set_exception(TimeoutError("the disk does not answer"))

    async def close(self) -> None:
        """Write what waits, and let go of the folder."""
        self._notes.flush()
        self._others.flush()
        await self._commit.close()
        self._keeper.close()

    def before_answer(self, scope: Scope, prediction: Prediction) -> Awaitable[None] | None:
        """Record it; under `interval` mostly without anything to wait for.

        Raises
        ------
        RequestError
            503 under `always`, when it is waited for: it could not be recorded.
        """
        decisions, sent, state = prediction.decisions, prediction.sent, scope["state"]
        parts = prediction.loaded.noted.get((prediction.asked, decisions.backend, state.get("principal")))
        if parts is None or sent is None or type(decisions) is not Decisions or scope["path"] != ONE_ROW:
            return self._record(scope, prediction, decisions.backend)
        # there is little code here, and most of it has just run: whatever is not in the caches takes ten times as long
        theirs = state.get("client_request_id")
        if theirs is None:
            self._notes.add((parts, state["request_id"], b"null", prediction.began, prediction.scored, decisions, sent))
        else:  # a caller may use an id twice
            self._notes.add((parts, new_id(), encode(theirs), prediction.began, prediction.scored, decisions, sent))
        return None

    async def before_failure(self, scope: Scope, failure: Failure) -> None:
        """Record it; raises as `before_answer`."""
        await self._record(scope, failure, None)

    async def _record(self, scope: Scope, asked: Asked, backend: str | None) -> None:
        if self._is_full:
            if self._is_always:
                raise RequestError(503, NOT_RECORDED, RETRY_AFTER)
            return self._commit.drop(1)
        common = asked.loaded.recorded.get((asked.asked, backend))
        if common is None:
            common = await asyncio.to_thread(facts.of_model, asked.loaded, asked.asked, backend)
        if self._is_noting and backend is not None and scope["path"] == ONE_ROW:
            self._prepare(asked, backend, scope["state"].get("principal"), common)
        if len(asked.table) > ROWS_ON_LOOP:
            body = await asyncio.to_thread(self._entries.body, scope, asked, common)
        elif not self._is_always:
            return self._others.add((scope, asked, common))
        else:
            body = self._entries.body(scope, asked, common)
        done = self._put(body + b"\n", 1)
        if done is None:
            return None
        self._waiters.append((time.monotonic(), done))
        try:
            await done
        except OSError as e:  # TimeoutError is one
            raise RequestError(503, NOT_RECORDED, RETRY_AFTER) from e
        return None

    def _prepare(self, asked: Asked, backend: str, principal: str | None, common: bytes) -> None:
        """From the next such request on, a note will do."""
        noted, key = asked.loaded.noted, (asked.asked, backend, principal)
        if key not in noted and len(noted) < MAX_NOTED:
            noted[key] = entries.around(principal, common)

    @property
    def _is_full(self) -> bool:
        return self._commit.waiting_bytes > self._settings.max_waiting_bytes

    def _put_notes(self, notes: list[Note]) -> None:
        """Record requests that are answered already."""
        if self._is_full:
            return self._commit.drop(len(notes))
        try:
            made = bodies(notes)
        except Exception:
            return self._lose(len(notes))
        self._put(made, len(notes))
        return None

    def _put_others(self, gathered: list[tuple[Scope, Asked, bytes]]) -> None:
        """Record requests that are answered already, and are not usual ones."""
        made = []
        for scope, asked, common in gathered:
            try:
                made.append(self._entries.body(scope, asked, common) + b"\n")
            except Exception:
                self._lose(1)
        self._put(b"".join(made), len(made))

    def _lose(self, count: int) -> None:
        """Say so of a defect: nobody waits who could be told."""
        logger.exception("making a record failed in a way that was not foreseen")
        self._commit.drop(count, "a record could not be made")

    def _put(self, made: bytes, count: int) -> asyncio.Future[None] | None:
        hurry = self._commit.waiting_bytes > HURRY * self._settings.max_waiting_bytes
        return self._commit.put(made, count, hurry=hurry and self._commit.problem is None)

    def _open(self) -> ChainWriter:
        if self._preamble is None:
            self._preamble = facts.of_process(self._key_id)
        writer = take(self._folder, self._preamble, self._settings.rotate_bytes, _now)
        logger.info("predictions are recorded: chain %d, sync %s", writer.chain.number, self._settings.sync)
        return writer


def _now() -> str:
    from datetime import UTC, datetime

    return datetime.now(UTC).isoformat(timespec="microseconds")
