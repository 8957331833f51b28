"""A small HTTP/1.1 client over asyncio's streams, for loopback only: keep-alive connections that each ask in a loop.

One for all servers that are compared, and cheap, so that it is the server that is measured.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import NamedTuple

HOST = "127.0.0.1"
#: A measurement ends here, however much of its time is left, unless told otherwise.
MAX_REQUESTS = 200_000
#: Seconds that one answer is waited for.
TIMEOUT = 60.0


class Load(NamedTuple):
    """What one measurement found.

    Parameters
    ----------
    seconds : float
        From the first request to the last answer.
    latencies : list of float
        Of each request, in seconds.
    """

    seconds: float
    latencies: list[float]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Without Python's collections here: with all that is imported one of them took 150 to 250 ms, and looked as if the
    server had stood still.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@contextlib.asynccontextmanager
async def tasks(seconds: float) -> AsyncIterator[asyncio.TaskGroup]:
    """Tasks that all end within a time, `undisturbed`; what the first of them raised is raised as it is."""
    try:
        with undisturbed():
            async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
                yield group
    except BaseExceptionGroup as e:
        raise e.exceptions[0] from None


def request(
    path: str, body: bytes, content_type: str = "application/json", accept: str = "*/*", headers: Sequence[str] = ()
) -> bytes:
    """A whole POST as it goes over the wire."""
    more = "".join(f"{line}\r\n" for line in headers)
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: {content_type}\r\nAccept: {accept}\r\n"
        f"Content-Length: {len(body)}\r\n{more}\r\n"
    )
    return head.encode() + body


class Connection:
    """One connection that is kept alive, and opened again where the server has closed it."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, sent: bytes) -> tuple[int, bytes]:
        """Send one request and read its answer: the status and the body."""
        if self._streams is None:
            self._streams = await asyncio.open_connection(HOST, self._port)
        reader, writer = self._streams
        writer.write(sent)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = head.partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not length:
            raise RuntimeError("the server sent an answer without Content-Length, which this client does not read")
        body = await reader.readexactly(int(length))
        if b"connection: close" in head:
            self.close()
        return int(head.split(b" ", 2)[1]), body

    def close(self) -> None:
        """Close it; the next request opens another."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def load(
    port: int, requests: Sequence[bytes], connections: int, seconds: float, max_requests: int = MAX_REQUESTS
) -> Load:
    """Ask over several connections at once, each with one request at a time, until the time is up.

    Parameters
    ----------
    port : int
    requests : sequence of bytes
        Sent in turn.
    connections : int
    seconds : float
    max_requests : int, default MAX_REQUESTS
        It ends there too.

    Raises
    ------
    RuntimeError
        An answer was not 200, or did not come in time: numbers of a server that refuses are worth nothing.
    """
    latencies: list[float] = []
    deadline = time.perf_counter() + seconds

    async def ask_in_a_loop(offset: int) -> None:
        connection = Connection(port)
        i = offset
        try:
            while (start := time.perf_counter()) < deadline and len(latencies) < max_requests:
                status, body = await connection.ask(requests[i % len(requests)])
                latencies.append(time.perf_counter() - start)
                if status != 200:
                    raise RuntimeError(f"the server answered {status}: {body[:200].decode(errors='replace')}")
                i += connections
        finally:
            connection.close()

    start = time.perf_counter()
    async with tasks(seconds + TIMEOUT) as group:
        for offset in range(connections):
            group.create_task(ask_in_a_loop(offset))
    return Load(time.perf_counter() - start, latencies)


def ask(port: int, sent: bytes) -> tuple[int, bytes]:
    """The status and the body of the answer to one request, over a connection of its own.

    Raises
    ------
    OSError, asyncio.IncompleteReadError
        Nobody answers there.
    """
    return asyncio.run(_ask_once(port, sent))


def first_answer(port: int, sent: bytes) -> int | None:
    """The status that the server answers this request with now; None where nobody answers."""
    try:
        return ask(port, sent)[0]
    except (OSError, asyncio.IncompleteReadError):
        return None


async def _ask_once(port: int, sent: bytes) -> tuple[int, bytes]:
    connection = Connection(port)
    try:
        async with asyncio.timeout(TIMEOUT):
            return await connection.ask(sent)
    finally:
        connection.close()
