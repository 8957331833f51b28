"""Things that are dealt with some at a time, because one at a time costs each of them several times as much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Gathering(Generic[T]):
    """Gathers things on the event loop until they are many, or the first of them has waited long enough.

    Between two requests a model that is scored throws out of the processor's caches whatever else it needs; what is
    done for many requests in one go finds it there.

    Parameters
    ----------
    work : callable
        Deals with a list of them, on the loop; must not raise.
    most : int
        How many are many.
    seconds : float
        How long the first one waits.
    """

    def __init__(self, work: Callable[[list[T]], None], most: int, seconds: float) -> None:
        self._work, self._most, self._seconds = work, most, seconds
        self._gathered: list[T] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, thing: T) -> None:
        """Add one."""
        self._gathered.append(thing)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self.flush)
        elif len(self._gathered) >= self._most:
            self.flush()

    def flush(self) -> None:
        """Deal with what there is now."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._work(gathered)
