"""HTTP/1.1 on one connection, within bounds: uvicorn's protocol, which has none for headers, connections or time."""

from __future__ import annotations

import pwd
import re
import socket
import struct
import time
from collections.abc import Iterable
from typing import Any, NamedTuple

import httptools
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from fin_pyfunc.serving.http import Headers, encode, new_id
from fin_pyfunc.serving.schemas import Error
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.whole_answers import WholeAnswers

#: Longest address of a request, in bytes.
MAX_URL = 8192
#: A client that sends or reads this many bytes a second is not slow.
MIN_RATE = 16_384

INVALID = "The request is not valid HTTP/1.1: see RFC 9112."
OTHER_VERSION = "The request is not valid HTTP/1.1: this server speaks HTTP/1.1 and HTTP/1.0."
BAD_HOST = "The request is not valid HTTP/1.1: it needs the header Host exactly once, with a host name or address."
OTHER_CODING = (
    "The request is not valid HTTP/1.1: the one Transfer-Encoding here is chunked; for a compressed body send "
    "'Content-Encoding: gzip'."
)
CUT_OFF = "The request ended before all of it was sent: send as many bytes as its headers say."
NO_PROXY = "This server is no proxy: CONNECT is not implemented."
TOO_MANY = "The server has as many connections as it takes: try again."
TOO_SLOW = "The request came too slowly: send its headers, and then its body, without a pause."
TOO_LONG_URL = "The request's address is longer than this server takes: send rows in the body."
TOO_LARGE_HEAD = (
    "The request's headers are more, or larger, than this server takes: send fewer, or raise "
    "deployment.api.limits.max_headers and max_head_bytes."
)

#: Process, user and group of a peer (``struct ucred``, unix(7)).
_UCRED = struct.Struct("3i")

HEAD, BODY, ANSWER, CLOSING = "head", "body", "answer", "closing"

#: What says where a request goes and where its body ends, besides Content-Length, which the parser checks.
_FRAMING = frozenset({b"host", b"transfer-encoding"})
#: RFC 9110, 7.2: a name, an IPv4 or a bracketed IPv6 address, and a port; it may be empty.
_HOST = re.compile(rb"([\w.~!$&'()*+,;=%-]*|\[[0-9A-Fa-fv:.]+\])(:[0-9]*)?")


class Stage(NamedTuple):
    """What a connection waits for its client to do."""

    kind: str
    of: int  # which request


class Protocol(HttpToolsProtocol):
    """One connection.

    Nothing is timed here: `Sweeper` looks at all connections once a second, so that a request pays for no timer.

    Parameters
    ----------
    limits : Limits
    **more
        As the parent takes them.
    """

    def __init__(self, limits: Limits, **more: Any) -> None:
        super().__init__(**more)
        self._limits = limits
        self._has_begun = self._is_in_head = self._asks_to_upgrade = False
        self._read = self._head_bytes = 0
        self._refusal = (400, INVALID)
        #: what is refused once the requests before it are answered
        self._due: tuple[int, str] | None = None
        #: the request that is worked on, or was last; the parent's `cycle` is the one that came last
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: Any) -> None:
        """Refuse a connection beyond those there may be."""
        self._answers = WholeAnswers(transport)
        super().connection_made(self._answers)
        if self._is_one_too_many():
            self._refuse(503, TOO_MANY)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let the request that is worked on know, too, where others wait behind it."""
        self.pipeline.clear()
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Parse what came, unless it makes a head too large that has not ended yet."""
        if self._due is not None or self.transport.is_closing():
            return
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.max_head_bytes:
                self._refuse(431, TOO_LARGE_HEAD)
                return
        self._unset_keepalive_if_required()
        try:
            self._parse(data)
        except httptools.HttpParserError:
            self.logger.warning("Invalid HTTP request received.")
            self._refuse(*self._refusal)

    def _parse(self, data: bytes) -> None:
        """Parse; a head that asks for an upgrade is parsed again without that (RFC 9110, 7.8: none is offered here).

        The parser takes what follows such a head for another protocol, and would read neither the body, nor that a
        second request begins only after it.
        """
        rest: bytes | memoryview = data
        while True:
            self._read = len(rest)
            try:
                self.parser.feed_data(rest)
                return
            except httptools.HttpParserUpgrade as e:
                rest = memoryview(rest)[e.args[0] :]
            self._asks_to_upgrade = False
            version, headers = self.parser.get_http_version().encode(), self.headers
            start = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, version)
            self.parser = httptools.HttpRequestParser(self)  # the other one is done, after 'Connection: close'
            self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as the parent does
            lines = [start, *(name + b": " + value for name, value in headers if name != b"upgrade"), b"", b""]
            head = b"\r\n".join(lines)
            self._read = len(head)
            self.parser.feed_data(head)

    def eof_received(self) -> bool:  # type: ignore[override] # asyncio's own type; the parent always closes
        """Answer what was asked in full; a client may close its half of the connection once it has asked.

        Returns
        -------
        bool
            Whether the other half stays open; TLS closes both.
        """
        cycle = self.cycle
        if self._due is None:
            if self._is_in_head or (cycle and cycle.more_body):
                self._refuse(400, CUT_OFF)
            elif not cycle or cycle.response_complete:
                return False
            else:
                cycle.keep_alive = False
        return self.scheme != "https" and not self.transport.is_closing()

    def on_response_complete(self) -> None:
        """An answer without a body ends here."""
        self._answers.flush()
        is_last = not self.pipeline
        super().on_response_complete()
        if is_last and self._due is not None and not self.transport.is_closing():
            self._write_refusal(*self._due)

    def on_message_begin(self) -> None:
        """A head begins."""
        self._has_begun = self._is_in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Let a head within bounds through; raise, which the parser passes on, for any other."""
        self._is_in_head = False
        limits = self._limits
        if len(self.url) > MAX_URL:
            self._refusal = (414, TOO_LONG_URL)
            raise ValueError
        most = limits.max_head_bytes
        # a head that came in one small piece is small
        if len(self.headers) > limits.max_headers or (
            self._head_bytes + self._read > most and sum(len(n) + len(v) + 4 for n, v in self.headers) > most
        ):
            self._refusal = (431, TOO_LARGE_HEAD)
            raise ValueError
        if problem := _problem(self.parser.get_http_version(), self.headers):
            self._refusal = (400, problem)
            raise ValueError
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                self._refusal = (501, NO_PROXY)
                raise ValueError
            self._asks_to_upgrade = True  # parsed again in a moment
        else:
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request has been read, unless its head is parsed again."""
        if not self._asks_to_upgrade:
            super().on_message_complete()

    def stage(self) -> Stage | None:
        """What the client is waited for; None while a request is worked on, or between two."""
        cycle = self.cycle
        if self.transport.is_closing():
            return Stage(CLOSING, 0)
        if self.flow.write_paused:
            return Stage(ANSWER, id(cycle))
        if self._due is not None:
            return None
        if not cycle:
            return Stage(HEAD, 0)
        if self.scope is not cycle.scope:
            return Stage(HEAD, id(self.scope))
        return Stage(BODY, id(cycle)) if cycle.more_body else None

    def allowance(self) -> float:
        """Seconds more that a client gets for what it has sent of a body, or has yet to read of an answer."""
        size = self.transport.get_write_buffer_size()
        if self.cycle and self.cycle.more_body:
            state: Any = self.cycle.scope.get("state") or {}
            size += state.get("received", 0)
        return size / MIN_RATE

    def expire(self, stage: Stage) -> None:
        """Close a connection whose client took too long."""
        if stage.kind in (ANSWER, CLOSING):
            self.transport.abort()
        elif not self._has_begun or (stage.kind == BODY and self.cycle.response_complete):
            self.transport.close()  # nobody waits for an answer
        else:
            self._refuse(408, TOO_SLOW)

    def _is_one_too_many(self) -> bool:
        return len(self.connections) > self._limits.max_connections

    def _refuse(self, status: int, said: str) -> None:
        """Refuse what is being sent, after the answers to the requests before it, and close."""
        cycle = self.cycle
        if self.pipeline and cycle.more_body:  # the refused one waits its turn
            self.pipeline.popleft()
            self._due = (status, said)
        elif not cycle or (cycle.response_complete and not cycle.more_body):
            self._write_refusal(status, said)
        elif not cycle.more_body:
            self._due = (status, said)
        elif not cycle.response_started:
            self._write_refusal(status, said)
        else:  # it has its answer
            self.transport.close()

    def _write_refusal(self, status: int, said: str) -> None:
        body = encode(Error(detail=said))
        lines = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", new_id().encode()),
            *[(b"retry-after", b"1")] * (status == 503),
            (b"connection", b"close"),
        ]
        head = b"".join(name + b": " + value + b"\r\n" for name, value in lines)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + body)
        self.transport.close()


class AdminProtocol(Protocol):
    """One connection of the admin socket.

    Only connections accepted on that socket get this class, and with it the application that asks for no credential:
    nothing that a client sends over TCP can lead there. A server with all the connections it takes still answers here.

    Parameters
    ----------
    app : ASGI application
        Answers in place of the one for TCP.
    limits, **more
        As the parent takes them.
    """

    def __init__(self, app: ASGIApp, limits: Limits, **more: Any) -> None:
        super().__init__(limits, **more)
        self.app: Any = app

    def connection_made(self, transport: Any) -> None:
        """Note which user of this machine asks."""
        self.app_state = {**self.app_state, "principal": _peer(transport.get_extra_info("socket"))}
        super().connection_made(transport)

    def _is_one_too_many(self) -> bool:
        return False


def _problem(version: str, headers: Headers) -> str | None:
    """What RFC 9112 has a server refuse in a head that follows its grammar (3.2, 6.1); None for a valid one."""
    if version not in ("1.1", "1.0"):
        return OTHER_VERSION
    framing = [line for line in headers if line[0] in _FRAMING]
    hosts = [value for name, value in framing if name == b"host"]
    if (len(hosts) != 1 and (hosts or version == "1.1")) or not all(map(_HOST.fullmatch, hosts)):
        return BAD_HOST
    codings = [value.lower() for name, value in framing if name == b"transfer-encoding"]
    if codings and (codings != [b"chunked"] or version == "1.0"):
        return OTHER_CODING
    return None


def _peer(connection: Any) -> str:
    """Name the user at the other end of a Unix socket."""
    if not hasattr(socket, "SO_PEERCRED"):
        return "the admin socket"
    _, uid, _ = _UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size))
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


class Sweeper:
    """Closes connections whose clients are too slow.

    Parameters
    ----------
    seconds : float
        `limits.client_seconds`.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._since: dict[Protocol, tuple[Stage, float]] = {}

    def sweep(self, connections: Iterable[Protocol]) -> None:
        """Look at all of them; to be called once a second."""
        now, since = time.monotonic(), {}
        for connection in list(connections):
            stage = connection.stage()
            if stage is None:
                continue
            known = self._since.get(connection)
            began = known[1] if known is not None and known[0] == stage else now
            since[connection] = (stage, began)
            if now - began > self._seconds and now - began > self._seconds + connection.allowance():
                connection.expire(stage)
        self._since = since
