"""A connection's transport that sends the head of an answer together with what follows it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

#: How the head of an answer begins, as uvicorn writes it; that of an interim one (100) is sent at once.
_HEAD, _INTERIM = b"HTTP/1.1 ", b"HTTP/1.1 1"
#: Seconds that a client gets to close a TLS connection that is closed here.
CLOSE_SECONDS = 1.0
#: Beyond this, in bytes, two pieces are not copied into one.
COPIED = 65_536


class WholeAnswers(asyncio.Transport):
    """Holds a head back until the next piece is written.

    uvicorn writes the head and the body of an answer one after the other, and uvloop sends each at once: two calls of
    the system and two packets, which take longer than everything else but the model.

    Parameters
    ----------
    transport : asyncio.Transport
        What really sends.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        super().__init__()
        self._transport, self._head = transport, b""
        # what is not written passes as quickly as without this
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send, but a head with what comes next."""
        head = self._head
        if head:
            self._head = b""
            if len(data) > COPIED:
                self._transport.writelines((head, data))
            else:
                self._transport.write(head + bytes(data))
        elif data[:9] == _HEAD and data[:10] != _INTERIM:
            self._head = bytes(data)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is held back: nothing follows it."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        """See `asyncio.WriteTransport`."""
        self.write(b"".join(list_of_data))

    def close(self) -> None:
        """See `asyncio.Transport`; what is held back is sent before, and a client gets a second for its end of TLS."""
        self.flush()
        self._transport.close()
        if self._transport.get_extra_info("sslcontext") is not None:  # uvloop would wait for 30 s
            asyncio.get_running_loop().call_later(CLOSE_SECONDS, self._transport.abort)

    def abort(self) -> None:
        """See `asyncio.WriteTransport`."""
        self._head = b""
        self._transport.abort()

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return self._transport.get_write_buffer_size() + len(self._head)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio.BaseTransport`."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """See `asyncio.BaseTransport`."""
        return self._transport.get_protocol()
