"""Loading with an end: one load that never ends keeps no other from its turn."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Generic, TypeVar

from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.resolver import Resolved

T = TypeVar("T")
#: Loads whose time is up and that still run, for each that may run at once; a thread cannot be ended.
_OVERDUE = 2


class Loads(Generic[T]):
    """Loads models; called on threads, one a load.

    Parameters
    ----------
    load : callable
        Resolved -> model.
    discard : callable
        Removes what was downloaded for a model that did not load.
    at_once : int
        Size of the pool that calls this.
    seconds : float
        How long one load may take.
    """

    def __init__(
        self, load: Callable[[Resolved], T], discard: Callable[[Resolved], None], at_once: int, seconds: float
    ) -> None:
        self._load, self._discard, self._at_once, self._seconds = load, discard, at_once, seconds
        self._overdue = 0
        self._lock = threading.Lock()

    def __call__(self, resolved: Resolved) -> T:
        """Load a model.

        Raises
        ------
        RequestError
            503: it took too long, or too many others that did still run.
        FinPyfuncError
            Whatever loading it raised.
        """
        with self._lock:
            if self._overdue >= _OVERDUE * self._at_once:
                raise RequestError(503, "Loads that take too long are still under way: try again later.", RETRY_AFTER)
        done: Future[T] = Future()
        threading.Thread(target=self._run, args=(done, resolved), name="load", daemon=True).start()
        try:
            return done.result(self._seconds)
        except FutureTimeoutError as e:
            if done.done():  # the load's own time-out
                raise
            with self._lock:
                self._overdue += 1
            done.add_done_callback(lambda _: self._ended(resolved))
            raise RequestError(
                503,
                f"Loading the model took longer than the {self._seconds:g} s it may take: try another, or raise "
                "deployment.api.models.load_seconds.",
                RETRY_AFTER,
            ) from e

    def _run(self, done: Future[T], resolved: Resolved) -> None:
        try:
            done.set_result(self._load(resolved))
        except BaseException as e:
            self._discard(resolved)
            done.set_exception(e)

    def _ended(self, resolved: Resolved) -> None:
        with self._lock:
            self._overdue -= 1
        self._discard(resolved)  # nobody has waited for it
