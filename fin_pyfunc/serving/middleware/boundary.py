"""The edge of every request: its id goes out with the answer, and no exception goes out at all."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fin_pyfunc.serving.http import ClientDisconnected, request_id, send_error
from fin_pyfunc.serving.observers import Answered
from fin_pyfunc.serving.withheld import log_error

logger = logging.getLogger("fin_pyfunc.server")


class BrokenOffError(Exception):
    """An answer had begun and could not be finished; what was wrong has been logged."""


#: With it a server says that it closes the connection once this answer is read.
_CLOSE = (b"connection", b"close")


class Leaving(Protocol):
    """Whoever knows whether this worker is about to make room for another."""

    is_leaving: bool


class Boundary:
    """Adds `X-Request-ID` to every answer, and answers every exception as the contract words it.

    Parameters
    ----------
    app : ASGI application
    worker : Leaving
        While it is leaving, each answer asks the client to connect anew, to another worker.
    tell : callable
        Called with each request once it is over.
    """

    def __init__(self, app: ASGIApp, worker: Leaving, tell: Callable[[Answered], None]) -> None:
        self._app, self._worker, self._tell = app, worker, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        own = [(b"x-request-id", request_id(scope).encode())]
        started, status, began = False, 0, time.perf_counter()
        error: Exception | None = None

        async def send_with_id(message: Message) -> None:
            nonlocal started, status
            if message["type"] == "http.response.start":
                started, status = True, message["status"]
                if self._worker.is_leaving:
                    own.append(_CLOSE)
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnected:
            id_ = request_id(scope)
            logger.info("request %s: the client went away", id_, extra={"request_id": id_})
        except Exception as e:
            error = e
            if started:  # too late for another answer: the connection is closed instead
                id_ = request_id(scope)
                log_error(logger, "request %s failed after its answer had begun", id_, error=e, request_id=id_)
                raise BrokenOffError from None
            await send_error(scope, send_with_id, e)
        finally:
            seconds = time.perf_counter() - began
            self._tell((time.time(), seconds, status, scope["method"], scope["path"], scope["state"], error))
            error = None  # its traceback holds this frame: the body would stay until Python looks for such rings
        return None
