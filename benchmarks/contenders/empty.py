"""An ASGI application that reads no body and answers the same few bytes: the most that the server below it can do."""

from __future__ import annotations

from typing import Any

_ANSWER = b'{"prediction":0,"probability":null,"probabilities":null,"confidence":"low"}'
_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_ANSWER))],
}
_BODY = {"type": "http.response.body", "body": _ANSWER}


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:  # noqa: ARG001 - what ASGI passes
    """Answer any request."""
    if scope["type"] != "http":
        raise RuntimeError("this application takes HTTP only")  # uvicorn then goes on without a lifespan
    await send(_START)
    await send(_BODY)
