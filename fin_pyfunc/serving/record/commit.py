"""Group commit: whatever waits is written and made safe together, on a thread, while the event loop goes on."""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from fin_pyfunc.serving.record.chain import ChainWriter

logger = logging.getLogger("fin_pyfunc.record")

#: Seconds between two attempts to open the folder, or to write what could not be written.
AGAIN_SECONDS = 1.0
#: Seconds that records under `interval` lie in memory before they are given to the system, which keeps them if this
#: process is killed.
WRITE_SECONDS = 0.1
#: Bytes that are made safe together, at most: a large batch does not hold up those before it.
MAX_COMMIT_BYTES = 1 << 22
#: A process that stops waits this long for the disk.
CLOSE_SECONDS = 20.0


class _Item(NamedTuple):
    """Bodies of records, each with a line break behind it, how many they are, and who waits for them."""

    bodies: bytes
    records: int
    done: asyncio.Future[None] | None


class Commit:
    """Writes records on a thread of its own. Everything public but `written`, `failed` and `lost` is for the loop.

    Parameters
    ----------
    open_chain : callable
        Takes over a chain; called on the thread, again and again where it raises OSError.
    on_rotated : callable
        Called on the thread after a segment was closed.
    is_always : bool
        Whether each record is made safe at once, by one sync for all that wait.
    interval_seconds : float
        Else how often that is done.
    gap : callable
        (count, since) -> the body of a record that says how many were lost.
    """

    def __init__(
        self,
        open_chain: Callable[[], ChainWriter],
        on_rotated: Callable[[], None],
        *,
        is_always: bool,
        interval_seconds: float,
        gap: Callable[[int, float], bytes],
    ) -> None:
        self._open_chain, self._on_rotated, self._gap = open_chain, on_rotated, gap
        self._is_always, self._interval = is_always, interval_seconds
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._writer: ChainWriter | None = None
        self._try_after = 0.0
        self._hurry = threading.Event()
        self._is_failing = False
        #: counted on the loop, and on the thread: each has one writer, so that neither needs a lock
        self._given = self._given_bytes = self._taken = self._taken_bytes = 0
        self._dropped, self._dropped_since, self._dropped_told = 0, 0.0, 0
        #: records on their way to the disk that got there, and that did not
        self.written = self.failed = 0
        #: why the last one did not, until one does; for an operator
        self.problem: str | None = None

    @property
    def waiting(self) -> int:
        """Records that are on their way to the disk."""
        return self._given - self._taken

    @property
    def waiting_bytes(self) -> int:
        """Bytes of them."""
        return self._given_bytes - self._taken_bytes

    @property
    def lost(self) -> int:
        """Records under `interval` for which there was no room while the disk took none."""
        return self._dropped

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin; opens the folder in the background."""
        self._loop = loop
        # not made before: a thread that was made before a fork counts as ended after it, and nobody would wait for it
        self._thread = threading.Thread(target=self._run, name="record", daemon=True)
        self._thread.start()

    def put(self, bodies: bytes, count: int, *, hurry: bool = False) -> asyncio.Future[None] | None:
        """Give records to be written, in this order.

        Parameters
        ----------
        bodies : bytes
            Each with a line break behind it.
        count : int
            How many they are.
        hurry : bool, default False
            Do not wait for the time to be up.

        Returns
        -------
        Future or None
            Under `always`, done when they are safe, with the OSError if they could not be made so.
        """
        done: asyncio.Future[None] | None = None
        if self._is_always:
            assert self._loop is not None  # noqa: S101 - for the type checker
            done = self._loop.create_future()
        self._given += count
        self._given_bytes += len(bodies)
        self._queue.put(_Item(bodies, count, done))
        if hurry:
            self._hurry.set()
        return done

    def drop(self, count: int, why: str = "the disk takes none, and no more fit into memory") -> None:
        """Say that so many records were not given, and why; the record will say so, too."""
        if self._dropped == self._dropped_told:
            self._dropped_since = time.time()
            logger.error("THE RECORD LOSES PREDICTIONS: %s", why)
        self._dropped += count
        self.failed += count

    async def close(self) -> None:
        """Write what waits, and let go of the chain."""
        if self._thread is None or not self._thread.is_alive():
            return
        self._queue.put(None)
        self._hurry.set()
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)
        if self._thread.is_alive() or self.waiting:
            logger.error("%d records were not written before the worker ended", self.waiting)

    def _run(self) -> None:
        if self._is_always:
            self._run_always()
        else:
            self._run_interval()
        if self._writer is not None:
            self._writer.close()

    def _run_always(self) -> None:
        self._is_open()
        while (item := self._queue.get()) is not None:
            batch, is_last = self._batch(item)
            error: BaseException | None = None
            try:
                self._commit(batch)
            except OSError as e:
                error = e
            except Exception as e:  # a defect must not leave everyone waiting
                logger.exception("writing the record failed in a way that was not foreseen")
                error = e
            self._settle(batch, error)
            if is_last:
                break

    def _batch(self, first: _Item) -> tuple[list[_Item], bool]:
        """What waits now, up to a bound; and whether the end has come."""
        batch, size = [first], len(first.bodies)
        while size < MAX_COMMIT_BYTES:
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
            if item is None:
                return batch, True
            batch.append(item)
            size += len(item.bodies)
        return batch, False

    def _commit(self, batch: Sequence[_Item]) -> None:
        if not self._is_open():
            raise OSError(self.problem)
        writer = self._writer
        assert writer is not None  # noqa: S101 - for the type checker
        try:
            rotated = writer.append([item.bodies for item in batch])
            writer.sync()
        except OSError as e:
            writer.take_back()
            self._note(e)
            raise
        self._note(None)
        if rotated:
            self._on_rotated()

    def _settle(self, batch: Sequence[_Item], error: BaseException | None) -> None:
        count = sum(item.records for item in batch)
        if error is None:
            self.written += count
        else:
            self.failed += count
        self._taken += count
        self._taken_bytes += sum(len(item.bodies) for item in batch)
        waiting = [item.done for item in batch if item.done is not None]
        if waiting and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(_tell, waiting, error)

    def _run_interval(self) -> None:
        """Every tenth of a second what waits is given to the system, every interval it is made safe."""
        kept: deque[_Item] = deque()
        pause, synced, is_last = min(WRITE_SECONDS, self._interval), time.monotonic(), False
        self._is_open()
        while not is_last:
            self._hurry.wait(pause)
            self._hurry.clear()
            while not is_last:
                try:
                    item = self._queue.get_nowait()
                except queue.Empty:
                    break
                if item is None:
                    is_last = True
                else:
                    kept.append(item)
            try:
                self._append_kept(kept)
                if is_last or time.monotonic() - synced >= self._interval:
                    synced = time.monotonic()
                    if self._writer is not None:
                        self._writer.sync()
            except OSError as e:
                self._note(e)
            except Exception:
                logger.exception("writing the record failed in a way that was not foreseen")
                self._settle(list(kept), RuntimeError())
                kept.clear()
            # a failed attempt is not made again ten times a second
            pause = AGAIN_SECONDS if self._is_failing else min(WRITE_SECONDS, self._interval)

    def _append_kept(self, kept: deque[_Item]) -> None:
        """Append what is kept, oldest first, and what is known to be lost after it."""
        while kept or self._dropped > self._dropped_told:
            if not self._is_open():
                return
            writer = self._writer
            assert writer is not None  # noqa: S101 - for the type checker
            batch: list[_Item] = []
            size = 0
            while kept and size < MAX_COMMIT_BYTES:
                batch.append(kept.popleft())
                size += len(batch[-1].bodies)
            blocks = [item.bodies for item in batch]
            dropped = self._dropped
            if not kept and dropped > self._dropped_told:
                blocks.append(self._gap(dropped - self._dropped_told, self._dropped_since) + b"\n")
            try:
                rotated = writer.append(blocks)
            except OSError:
                kept.extendleft(reversed(batch))
                raise
            if not kept:
                self._dropped_told = dropped
            self._note(None)
            self._settle(batch, None)
            if rotated:
                self._on_rotated()

    def _is_open(self) -> bool:
        """Whether there is a chain to write; tries to take one over, but not again and again at once."""
        if self._writer is not None:
            return True
        if time.monotonic() < self._try_after:
            return False
        try:
            self._writer = self._open_chain()
        except OSError as e:
            self._try_after = time.monotonic() + AGAIN_SECONDS
            self._note(e)
            return False
        self._on_rotated()
        self._note(None)
        return True

    def _note(self, error: OSError | None) -> None:
        """Say once that the record cannot be written, and once that it can again."""
        self.problem = None if error is None else (error.strerror or str(error)).lower()
        if error is not None and not self._is_failing:
            then = "predictions are refused" if self._is_always else "records wait in memory"
            logger.error("THE RECORD CANNOT BE WRITTEN (%s): %s until it can", self.problem, then)
        elif error is None and self._is_failing:
            logger.warning("the record can be written again")
        self._is_failing = error is not None


def _tell(waiting: Sequence[asyncio.Future[None]], error: BaseException | None) -> None:
    for done in waiting:
        if done.done():  # whoever waited has gone
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)
