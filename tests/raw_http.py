"""Bytes over a socket, as no HTTP client would send them, and what comes back."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from typing import Any, NamedTuple

from tests.scan import SCAN
from tests.servers import Serving


class Answer(NamedTuple):
    """One answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def detail(self) -> str:
        """Its one sentence."""
        assert self.headers["content-type"] == "application/json"
        assert self.headers["x-request-id"]
        assert list(json.loads(self.body)) == ["detail"]
        return str(json.loads(self.body)["detail"])


def connect(server: Serving, seconds: float = 60) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=seconds)


def post(body: bytes | dict[str, Any], path: str = "/predict", *more: str) -> bytes:
    """A whole request."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Content-Type: application/json", f"Content-Length: {len(raw)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def until_closed(connection: socket.socket) -> bytes:
    """Everything until the server closes; a reset is an end as well."""
    got = b""
    try:
        while chunk := connection.recv(1 << 16):
            got += chunk
    except ConnectionError:
        pass
    return got


def answers(got: bytes) -> list[Answer]:
    """The answers in what came, in their order."""
    found = []
    while got:
        head, _, got = got.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:])}
        length = int(headers.get("content-length", 0))
        SCAN.text("the body of an answer", got[:length].decode("utf-8", "replace"))
        found.append(Answer(int(re.split(r" ", lines[0])[1]), headers, got[:length]))
        got = got[length:]
    return found


def exchange(server: Serving, sent: bytes, seconds: float = 60) -> list[Answer]:
    """Send bytes, and read until the server closes."""
    with connect(server, seconds) as connection:
        with contextlib.suppress(ConnectionError):  # it has refused already
            connection.sendall(sent)
        return answers(until_closed(connection))


def is_closed_within(connection: socket.socket, seconds: float) -> bool:
    """Whether the server closes a connection on which nothing is sent."""
    connection.settimeout(0.2)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if not connection.recv(1 << 16):
                return True
        except TimeoutError:
            continue
        except ConnectionError:
            return True
    return False
