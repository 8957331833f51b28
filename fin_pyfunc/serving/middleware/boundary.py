"""The edge of every request: its id goes out with the answer, and no exception goes out at all."""

from __future__ import annotations

import logging

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fin_pyfunc.serving.http import ClientDisconnected, request_id, send_error

logger = logging.getLogger("fin_pyfunc.server")


class Boundary:
    """Adds `X-Request-ID` to every answer, and answers every exception as the contract words it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; anything but HTTP passes through."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        own_id = (b"x-request-id", request_id(scope).encode())
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), own_id]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except ClientDisconnected:
            logger.info("request %s: the client went away", request_id(scope))
        except Exception as e:
            if started:  # too late for another answer: the connection is closed instead
                logger.error("request %s failed after its answer had begun", request_id(scope), exc_info=e)
                raise
            await send_error(scope, send_with_id, e)
        return None
