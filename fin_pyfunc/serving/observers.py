"""Those who look on at requests that have been answered: metrics and the log."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Protocol

from fin_pyfunc.serving.gathering import Gathering
from fin_pyfunc.serving.withheld import log_error

logger = logging.getLogger("fin_pyfunc.server")

#: When a request was answered, in seconds since the epoch; the seconds since its head was read; its status, 0 where the
#: client went away before; its method and path; the ``state`` of its scope; and what it was answered instead of, if it
#: was. A plain tuple: a named one takes seven times as long to make, which each request would pay for.
Answered = tuple[float, float, int, str, str, dict[str, Any], Exception | None]

#: Observers are told of so many requests at once, or of what came within so many seconds, which is what a killed
#: process loses. Code that runs once between two requests is not in the processor's caches and takes two to three times
#: as long; of more requests than these, what is kept would push others out.
TOGETHER, WAIT_SECONDS = 64, 0.01


class Observer(Protocol):
    """Looks on at requests that have been answered."""

    def answered(self, requests: list[Answered], /) -> None:
        """Called once they are over, on the event loop; must be quick, and must not raise."""


class Observers:
    """All of them.

    Parameters
    ----------
    observers : sequence of Observer

    Attributes
    ----------
    add : callable
        Takes one `Answered`.
    flush : callable
        Tells them of what there is now.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        gathering: Gathering[Answered] = Gathering(self._tell, TOGETHER, WAIT_SECONDS)
        self.add, self.flush = gathering.add, gathering.flush

    def _tell(self, requests: list[Answered]) -> None:
        for observer in self._observers:
            try:
                observer.answered(requests)
            except Exception as e:  # a defect of one may cost neither a request nor what the others see
                log_error(
                    logger, "%d requests could not be noted by %s", len(requests), type(observer).__name__, error=e
                )
