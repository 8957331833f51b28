"""Places for requests: so many at once, each for so long, and 503 or 504 beyond."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError


class Places:
    """Places of one kind in one worker.

    Parameters
    ----------
    at_most : int
    seconds : float
        How long a place may be kept.
    """

    def __init__(self, at_most: int, seconds: float) -> None:
        self._at_most, self._seconds, self.taken = at_most, seconds, 0

    @asynccontextmanager
    async def take(self) -> AsyncIterator[None]:
        """A place, for as long as one may be kept.

        Raises
        ------
        RequestError
            503 where there is none, 504 when the time is up.
        """
        if self.taken >= self._at_most:
            raise RequestError(503, "The server is working on as many requests as it takes: try again.", RETRY_AFTER)
        self.taken += 1
        try:
            async with asyncio.timeout(self._seconds):
                yield
        except TimeoutError:
            raise RequestError(
                504,
                f"The request took longer than the {self._seconds:g} s it may take: ask for less at a time, or raise "
                "deployment.api.limits.request_seconds.",
            ) from None
        finally:
            self.taken -= 1
