"""A client that asks at a steady rate whether or not earlier requests are answered, and takes little of a processor.

With asyncio's tasks at 1,500 requests a second the 99th percentile of a server was 2 to 5 ms; with this it is 1.0 to
1.5, more of which is the server's.
"""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.http_client import HOST, TIMEOUT, undisturbed

#: Connections that requests are sent over; more than are ever under way unless the server stands still.
CONNECTIONS = 16
_PIECE = 1 << 16


class Asked(NamedTuple):
    """One request, by the clock of ``time.perf_counter``.

    Parameters
    ----------
    due, done : float
        When it was to be sent, and when its answer was whole.
    """

    due: float
    done: float

    @property
    def seconds(self) -> float:
        """From when it was due."""
        return self.done - self.due


class _Connection:
    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection((HOST, port), TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._received = b""
        self.due = 0.0

    def fileno(self) -> int:
        return self.socket.fileno()

    def is_answered(self) -> bool:
        """Read what is there; whether the answer is whole."""
        if not (piece := self.socket.recv(_PIECE)):
            raise RuntimeError("the server closed a connection")
        self._received += piece
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
        if not end or len(body) < int(length):
            return False
        if self._received.split(b" ", 2)[1] != b"200":
            raise RuntimeError(f"the server answered {self._received[:200].decode(errors='replace')}")
        self._received = b""
        return True


@undisturbed()
def steadily(
    port: int, sent: Sequence[bytes], seconds: float, rate: float, look: Callable[[], None] | None = None
) -> list[Asked]:
    """Ask, and tell of each request when it was due and when answered: what waited for a connection is not left out.

    Parameters
    ----------
    port : int
    sent : sequence of bytes
        Whole requests, sent in turn.
    seconds : float
    rate : float
        Requests a second.
    look : callable, optional
        Called after each request and each answer; must be quick.

    Raises
    ------
    RuntimeError
        An answer was not 200, or none came.
    """
    with contextlib.ExitStack() as stack:
        connections = [_Connection(port) for _ in range(CONNECTIONS)]
        for each in connections:
            stack.callback(each.socket.close)
        free, answered = deque(connections), list[Asked]()
        n, asked, start = int(seconds * rate), 0, time.perf_counter()
        while len(answered) < n:
            while asked < n and free and start + asked / rate <= time.perf_counter():
                connection = free.popleft()
                connection.due = start + asked / rate
                connection.socket.sendall(sent[asked % len(sent)])
                asked += 1
                if look is not None:
                    look()
            wait = start + asked / rate - time.perf_counter() if asked < n and free else TIMEOUT
            for ready in select.select(connections, [], [], max(0.0, wait))[0]:
                if ready.is_answered():
                    answered.append(Asked(ready.due, time.perf_counter()))
                    free.append(ready)
            if look is not None:
                look()
            if time.perf_counter() > start + seconds + TIMEOUT:
                raise RuntimeError(f"{n - len(answered)} of {n} requests were not answered within {TIMEOUT:g} s")
    return answered
