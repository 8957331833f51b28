"""Scoring threads, of which one that never comes back is given up and replaced."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, NamedTuple, ParamSpec, TypeVar

from fin_pyfunc.model.errors import ScoringError
from fin_pyfunc.serving.withheld import forget_locals

P = ParamSpec("P")
T = TypeVar("T")


class _Call(NamedTuple):
    """One call under way."""

    since: float
    answer: Future[Any]


class ScoringThreads(Executor):
    """As a ThreadPoolExecutor of the standard library, but for what becomes of a call that does not return.

    Python cannot end a thread. So the place of a lost one is taken by another thread, whoever waited is told, and how
    many are lost is known, for the worker to be replaced before they take all of its memory or processor. Threads are
    daemons: an end of the process waits for none of them.

    Parameters
    ----------
    threads : int
        How many calls run at once; the lost ones are not counted.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._idle = threading.Semaphore(0)
        self._started = 0
        self._numbers = itertools.count()
        self._running: dict[int, _Call] = {}
        self._lost: set[int] = set()
        self._is_closed = False

    @property
    def lost(self) -> int:
        """Threads that were given up and have not come back since."""
        return len(self._lost)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call a function on a thread, as soon as one is free."""
        answer: Future[T] = Future()
        with self._lock:
            if self._is_closed:
                raise RuntimeError("the scoring threads are closed")
            self._queue.put((answer, lambda: fn(*args, **kwargs)))
            if not self._idle.acquire(blocking=False) and self._started < self._threads:
                self._start()
        return answer

    def give_up(self, seconds: float) -> int:
        """Give up every call that has been running for longer than this; how many those are."""
        overdue = time.monotonic() - seconds
        with self._lock:
            late = [(n, call) for n, call in self._running.items() if call.since < overdue and n not in self._lost]
            for n, _ in late:
                self._lost.add(n)
                self._start()
            self._started -= len(late)
        for _, call in late:
            error = ScoringError(f"the model did not answer within {seconds:g} s")
            if not call.answer.done():
                call.answer.set_exception(error)
        return len(late)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:  # noqa: ARG002 - nobody waits here
        """Take no more calls; with `cancel_futures`, drop those that have not begun."""
        with self._lock:
            self._is_closed = True
            waiting = []
            while cancel_futures and not self._queue.empty():
                waiting.append(self._queue.get())
            for _ in range(self._started):
                self._queue.put(None)
        for call in waiting:
            if call is not None:
                call[0].cancel()

    def _start(self) -> None:
        self._started += 1
        threading.Thread(target=self._work, name=f"score-{next(self._numbers)}", daemon=True).start()

    def _work(self) -> None:
        while (call := self._queue.get()) is not None:
            answer, function = call
            if answer.set_running_or_notify_cancel():
                number = next(self._numbers)
                self._running[number] = _Call(time.monotonic(), answer)
                settle: Callable[[Any], None] = answer.set_result
                try:
                    outcome = function()
                except BaseException as error:
                    settle, outcome = answer.set_exception, error
                    forget_locals(error)
                with self._lock:
                    del self._running[number]
                    if number in self._lost:  # another thread has its place, and whoever waited was told
                        self._lost.discard(number)
                        return
                settle(outcome)
                del answer, function, call, outcome, settle
            self._idle.release()
