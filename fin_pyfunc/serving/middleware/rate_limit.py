"""How often one caller may ask."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Collection
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.rates import Counter, StorageError


class RateLimit:
    """Answers 429 to a caller beyond the rate; the caller is the principal, or else the client's address.

    A caller's window starts with its first request, so two windows that meet let it ask twice as often for a moment.

    Parameters
    ----------
    app : ASGI application
    counter : Counter
    paths : collection of str
        What is counted, all of it together; other paths pass.
    is_open : bool, default True
        Whether requests pass while nobody can count them; else they are answered 503.
    """

    def __init__(self, app: ASGIApp, counter: Counter, paths: Collection[str], is_open: bool = True) -> None:
        self._app, self._counter, self._paths, self._is_open = app, counter, frozenset(paths), is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let one request pass, or raise."""
        if scope["type"] == "http" and scope["path"] in self._paths:
            try:
                left = self._counter.count_now(*_caller(scope))
                if left is None:
                    left = await self._counter.count(*_caller(scope))
            except StorageError:
                if not self._is_open:
                    raise RequestError(
                        503, "The server cannot count requests now, and takes none meanwhile: try again.", RETRY_AFTER
                    ) from None
            else:
                if left:
                    raise RequestError(
                        429,
                        "This caller has reached the server's rate limit: ask again after the seconds in Retry-After.",
                        {"Retry-After": str(max(1, math.ceil(left)))},
                    )
        await self._app(scope, receive, send)


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
