"""How often one caller may ask."""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Collection
from functools import cached_property, lru_cache

from limits import RateLimitItem
from limits.storage import MemoryStorage
from limits.strategies import FixedWindowRateLimiter
from starlette.types import ASGIApp, Receive, Scope, Send

from fin_pyfunc.serving.errors import RequestError


class RateLimit:
    """Answers 429 to a caller beyond the rate; the caller is the principal, or else the client's address.

    A caller's window starts with its first request, so two windows that meet let it ask twice as often for a moment.
    The counters are this worker's own.

    Parameters
    ----------
    app : ASGI application
    rate : RateLimitItem
    paths : collection of str
        What is counted, all of it together; other paths pass.
    """

    def __init__(self, app: ASGIApp, rate: RateLimitItem, paths: Collection[str]) -> None:
        self._app, self._rate, self._paths = app, rate, frozenset(paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass, or raise."""
        if scope["type"] == "http" and scope["path"] in self._paths:
            caller = _caller(scope)
            if not self._limiter.hit(self._rate, *caller):
                left = self._limiter.get_window_stats(self._rate, *caller).reset_time - time.time()
                raise RequestError(
                    429,
                    "This caller has reached the server's rate limit: ask again after the seconds in Retry-After.",
                    {"Retry-After": str(max(1, math.ceil(left)))},
                )
        await self._app(scope, receive, send)

    # The synchronous storage: at 10,000 callers a hit costs it 3 us; the asynchronous one, which goes through every
    # caller's counter with every request, takes 700 us.
    @cached_property
    def _limiter(self) -> FixedWindowRateLimiter:
        return FixedWindowRateLimiter(MemoryStorage())  # starts a thread, so not before the fork


def _caller(scope: Scope) -> tuple[str, str]:
    principal = scope.get("state", {}).get("principal")
    if principal is not None:
        return "key", principal
    client = scope.get("client")
    return "address", _network(client[0]) if client else "none"


@lru_cache(maxsize=4096)
def _network(host: str) -> str:
    """An address as one caller: of IPv6 the first 64 bits, since whoever has one address has all below them."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4 or address.ipv4_mapped is not None:
        return host
    return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
