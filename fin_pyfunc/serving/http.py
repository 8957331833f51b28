"""The little of HTTP that the hot path needs: read a body within bounds, send JSON, answer an error."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Mapping
from functools import partial
from typing import Any

import msgspec
from starlette.types import Receive, Scope, Send

from fin_pyfunc.model.errors import ModelNotFoundError
from fin_pyfunc.serving.callers.principal import may_list
from fin_pyfunc.serving.content_encoding import inflater_of
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError, answer

#: Header lines as ASGI carries them.
Headers = list[tuple[bytes, bytes]]
encode = msgspec.json.Encoder().encode
#: Ids that are made at once.
IDS_AT_ONCE = 128
#: Bytes of a body that are not counted against what a worker holds.
FREE_BYTES = 65_536
#: A caller's request id is kept if it is one to three ordinary words: it ends up in headers, logs and records.
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:-]{1,128}")


class ClientDisconnected(Exception):  # noqa: N818 - nobody is left to be told of an error
    """The client went away before its request was read."""


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of this (lower-case) name."""
    for key, value in scope["headers"]:
        if key == name:
            return bytes(value)
    return None


#: Ids that nobody has yet: the system is asked for many at a time.
_new_ids: list[str] = []
os.register_at_fork(after_in_child=_new_ids.clear)


def new_id() -> str:
    """An id that nobody else has or can guess: 32 hexadecimal digits."""
    if not _new_ids:
        made = os.urandom(16 * IDS_AT_ONCE).hex()
        _new_ids.extend(made[i : i + 32] for i in range(0, len(made), 32))
    return _new_ids.pop()


def request_id(scope: Scope) -> str:
    """The caller's request id if it sent a well-formed one, else a new one; the same however often it is asked for.

    Both are in the scope's ``state``: ``request_id``, and ``client_request_id`` if it is the caller's.
    """
    state: dict[str, Any] = scope.setdefault("state", {})
    if "request_id" not in state:
        sent = header(scope, b"x-request-id")
        if sent and _REQUEST_ID.fullmatch(sent):
            state["request_id"] = state["client_request_id"] = sent.decode()
        else:
            state["request_id"] = new_id()
    return str(state["request_id"])


def require_method(scope: Scope, method: str) -> None:
    """Refuse any other method with a 405 that names this one."""
    if scope["method"] != method:
        raise RequestError(405, f"This route takes {method} only: send the request as {method}.", {"Allow": method})


class HeldBytes:
    """How much the bodies of one worker's requests may take together, from their first byte to their answer.

    Parameters
    ----------
    at_most : int
        Bytes; the first `FREE_BYTES` of each body are not counted.
    """

    def __init__(self, at_most: int) -> None:
        self._at_most, self._held = at_most, 0

    def add(self, size: int) -> None:
        """Count some for as long as the task that runs; raises RequestError 503 where there is no room."""
        if self._held + size > self._at_most:
            raise RequestError(
                503,
                "The server holds as many large bodies as it takes: try again.",
                {**RETRY_AFTER, "Connection": "close"},
            )
        self._held += size
        task = asyncio.current_task()
        if task is not None:
            task.add_done_callback(lambda _: self._release(size))

    def _release(self, size: int) -> None:
        self._held -= size


async def read_body(
    scope: Scope, receive: Receive, max_bytes: int, held: HeldBytes, setting: str = "max_body_bytes"
) -> bytes:
    """The whole body, inflated where it is compressed.

    Parameters
    ----------
    scope, receive
    max_bytes : int
        Of what is sent, and of what it holds.
    held : HeldBytes
    setting : str, default "max_body_bytes"
        The setting below `limits` that `max_bytes` is.

    Raises
    ------
    RequestError
        413, before more than `max_bytes` are held; 503 where too much is held already; 415 and 422 as `Inflater`.
    ClientDisconnected
    """
    declared = header(scope, b"content-length")
    if declared is not None and declared.isdigit() and (len(declared) > 18 or int(declared) > max_bytes):
        raise _too_large(max_bytes, setting)
    inflater = inflater_of(scope)
    pieces: list[bytes] = []
    size = received = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnected
        chunk: bytes = message.get("body", b"")
        received += len(chunk)
        if received > max_bytes:
            raise _too_large(max_bytes, setting)
        for piece in (chunk,) if inflater is None else inflater.inflate(chunk):
            size += len(piece)
            if size > max_bytes:
                raise _too_large(max_bytes, setting)
            pieces.append(piece)
            if size > FREE_BYTES:
                held.add(len(piece))
            if size > received:
                await asyncio.sleep(0)  # others come in between
        if not message.get("more_body", False):
            if inflater is not None:
                inflater.require_end()
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)
        scope["state"]["received"] = received  # for whoever watches how fast a client sends


async def send_json(send: Send, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
    """Send one whole JSON answer; header values are text of ours or checked text of the caller's."""
    raw = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    raw += [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})


async def send_body(send: Send, body: bytes, content_type: str, headers: Headers) -> None:
    """Send a 200 with header lines that are bytes already."""
    own = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 200, "headers": own + headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(scope: Scope, send: Send, error: Exception) -> None:
    """Answer an error as the contract words it."""
    if isinstance(error, ModelNotFoundError) and error.suggestion is not None:
        known = error.suggestion.only(partial(may_list, scope))
        error = error if known is None else ModelNotFoundError(str(known))
    said = answer(error, request_id(scope))
    await send_json(send, said.status, encode(said.body), said.headers)


def _too_large(max_bytes: int, setting: str) -> RequestError:
    return RequestError(
        413,
        f"The body is larger than this server takes ({max_bytes} bytes): send fewer rows at a time, "
        f"or raise deployment.api.limits.{setting}.",
        {"Connection": "close"},
    )
