"""The edge of every request: its id goes out with the answer, and no exception goes out at all."""

from __future__ import annotations

import logging
import time
from urllib.parse import quote

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fin_pyfunc.serving.http import ClientDisconnected, request_id, send_error
from fin_pyfunc.serving.withheld import log_error

logger = logging.getLogger("fin_pyfunc.server")


class BrokenOffError(Exception):
    """An answer had begun and could not be finished; what was wrong has been logged."""


#: What load balancers ask every second, and may be told 503 for minutes.
PROBES = ("/health", "/ping")


class Boundary:
    """Adds `X-Request-ID` to every answer, and answers every exception as the contract words it.

    An answer of 400 and above is a line in the log; any other one, and what probes ask, at the level debug.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        own_id = (b"x-request-id", request_id(scope).encode())
        started, status, began = False, 0, time.perf_counter()

        async def send_with_id(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                message["headers"] = [*message.get("headers", ()), own_id]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnected:
            logger.info("request %s: the client went away", request_id(scope))
        except Exception as e:
            if started:  # too late for another answer: the connection is closed instead
                log_error(logger, "request %s failed after its answer had begun", request_id(scope), error=e)
                raise BrokenOffError from None
            await send_error(scope, send_with_id, e)
        is_probe = scope["path"].startswith(PROBES)
        level = logging.INFO if status >= 400 and not is_probe else logging.DEBUG
        if logger.isEnabledFor(level):
            took = 1000 * (time.perf_counter() - began)
            path = quote(scope["path"])  # a caller's text must not make lines of its own
            logger.log(level, "request %s: %s %s %d in %.1f ms", request_id(scope), scope["method"], path, status, took)
        return None
