"""Where requests are counted: in this worker's memory, or in a Redis that all workers and hosts share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import cached_property
from typing import Any, Protocol

from limits import RateLimitItem, parse

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.settings import Rate

#: Seconds for which a Redis that did not answer is not asked again, so that no request waits for it meanwhile.
AGAIN_SECONDS = 1.0
#: Windows in memory from which on those that have ended are looked for, each time that they have doubled.
MIN_CLEAN = 1024

logger = logging.getLogger("fin_pyfunc.server")


class StorageError(FinPyfuncError):
    """Requests cannot be counted now."""


class Counter(Protocol):
    """Counts requests against one rate."""

    #: called with the error's type each time a request could not be counted
    on_trouble: Callable[[str], None] | None

    def count_now(self, kind: str, caller: str) -> float | None:
        """Count a request of a caller without waiting: the seconds to wait beyond the rate, 0.0 within it, None where
        that cannot be told at once.
        """

    async def count(self, kind: str, caller: str) -> float:
        """Count a request of a caller; as `count_now`.

        Raises
        ------
        StorageError
        """


class MemoryCounter:
    """Counts in this worker alone, in half a microsecond.

    Not with the storage of `limits`: its own expiry starts a thread for every hundredth of a second with a request in
    it (and its asynchronous one goes through every caller's counter with every request).
    """

    on_trouble: Callable[[str], None] | None = None

    def __init__(self, rate: RateLimitItem) -> None:
        self._amount, self._seconds = rate.amount, rate.get_expiry()
        #: a caller's window: when it ends, and the requests in it
        self._windows: dict[tuple[str, str], list[float]] = {}
        self._clean_at = MIN_CLEAN

    def count_now(self, kind: str, caller: str) -> float:
        """As `Counter`."""
        now = time.monotonic()
        window = self._windows.get((kind, caller))
        if window is None or window[0] <= now:
            if len(self._windows) >= self._clean_at:
                self._windows = {who: each for who, each in self._windows.items() if each[0] > now}
                self._clean_at = max(MIN_CLEAN, 2 * len(self._windows))
            self._windows[kind, caller] = [now + self._seconds, 1]
            return 0.0
        window[1] += 1
        return 0.0 if window[1] <= self._amount else window[0] - now

    async def count(self, kind: str, caller: str) -> float:
        """As `Counter`; `count_now` always can."""
        return self.count_now(kind, caller)


class RedisCounter:
    """Counts in Redis.

    One question a request. A Redis that fails or is slow is not asked again for `AGAIN_SECONDS`.

    Parameters
    ----------
    rate : RateLimitItem
    uri : str
        ``redis://`` or ``rediss://``.
    seconds : float
        How long an answer is waited for.
    """

    on_trouble: Callable[[str], None] | None = None

    def __init__(self, rate: RateLimitItem, uri: str, seconds: float) -> None:
        try:
            import redis.asyncio  # noqa: F401 - to say so before a fork, not with the first request
        except ModuleNotFoundError:
            raise FinPyfuncError(
                "deployment.api.rate.storage is a Redis, which needs its package: pip install 'fin_pyfunc[redis]'."
            ) from None
        self._rate, self._uri, self._seconds = rate, uri, seconds
        self._not_before = 0.0
        self._has_failed = False

    @cached_property
    def _limiter(self) -> Any:
        from limits.aio.storage import RedisStorage
        from limits.aio.strategies import FixedWindowRateLimiter as Limiter

        storage = RedisStorage(
            f"async+{self._uri}",
            implementation="redispy",
            socket_timeout=self._seconds,
            socket_connect_timeout=self._seconds,
        )
        return Limiter(storage)

    def count_now(self, kind: str, caller: str) -> None:
        """As `Counter`; Redis always has to be asked."""

    async def count(self, kind: str, caller: str) -> float:
        """As `Counter`."""
        if time.monotonic() < self._not_before:
            raise self._trouble("not asked")
        try:
            async with asyncio.timeout(self._seconds):
                left = 0.0
                if not await self._limiter.hit(self._rate, kind, caller):
                    stats = await self._limiter.get_window_stats(self._rate, kind, caller)
                    left = max(0.001, stats.reset_time - time.time())
        except Exception as error:  # redis' own, the system's, a time-out: none of them is the caller's
            self._not_before = time.monotonic() + AGAIN_SECONDS
            if not self._has_failed:
                self._has_failed = True
                logger.error("Redis does not count requests (%s): see deployment.api.rate", type(error).__name__)
            raise self._trouble(type(error).__name__) from None
        if self._has_failed:
            self._has_failed = False
            logger.info("Redis counts requests again")
        return left

    def _trouble(self, what: str) -> StorageError:
        if self.on_trouble is not None:
            self.on_trouble(what)
        return StorageError(what)


def counter(settings: Rate) -> Counter:
    """What counts requests, by the settings; `settings.requests` is not None."""
    rate = parse(settings.requests or "")
    if settings.storage.startswith("memory:"):
        return MemoryCounter(rate)
    return RedisCounter(rate, settings.storage, settings.storage_seconds)
