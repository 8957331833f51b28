"""Load on one server over many kept connections, every answer of which is checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.http_client import HOST

#: Seconds that one answer is waited for.
TIMEOUT = 30.0
#: How far two backends' probabilities may be apart.
TOLERANCE = 1e-5


@dataclass
class Outcome:
    """What became of all requests.

    Parameters
    ----------
    answered : Counter
        Right answers, by the model that gave them.
    closed : list of float
        When a connection ended before its answer, in seconds since the load began.
    refused : list of (float, int, bytes)
        When something else than 200 was answered, and what.
    wrong : list of (float, str)
        When a 200 was not the one right answer of one model, and what was wrong with it.
    slowest : float
        Seconds that the slowest answer took.
    """

    answered: Counter[str] = field(default_factory=Counter)
    closed: list[float] = field(default_factory=list)
    refused: list[tuple[float, int, bytes]] = field(default_factory=list)
    wrong: list[tuple[float, str]] = field(default_factory=list)
    slowest: float = 0.0

    @property
    def total(self) -> int:
        """Right answers."""
        return sum(self.answered.values())


class Load:
    """Asks `/predict` until it is stopped.

    Parameters
    ----------
    port : int
    rows : sequence of dict
        Sent in turn.
    expected : mapping of str to sequence of dict
        By the immutable id of each model that may answer, the whole body for each row.
    connections : int
    rate : float
        Requests a second, over all connections.
    model_uri : str, optional
        Default: the server's own model.
    """

    def __init__(
        self,
        port: int,
        rows: Sequence[Mapping[str, Any]],
        expected: Mapping[str, Sequence[Mapping[str, Any]]],
        connections: int,
        rate: float,
        model_uri: str | None = None,
    ) -> None:
        named = {} if model_uri is None else {"model_uri": model_uri}
        self._bodies = [json.dumps({"features": row, "return_proba": True, **named}).encode() for row in rows]
        self._port, self._expected, self._connections, self._rate = port, expected, connections, rate
        self._stopping = asyncio.Event()
        self._is_end_expected = False
        self.outcome = Outcome()
        self._began = time.monotonic()

    async def run(self) -> Outcome:
        """Ask over all connections until `stop`."""
        self._began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for i in range(self._connections):
                group.create_task(self._ask_in_a_loop(i))
        return self.outcome

    def stop(self) -> None:
        """Ask nothing more; what is under way is still read."""
        self._stopping.set()

    def end_expected(self) -> None:
        """From now on the server stops: it may refuse with 503 and close connections, and answers nothing wrong."""
        self._is_end_expected = True

    @property
    def now(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began

    async def _ask_in_a_loop(self, offset: int) -> None:
        pause, i, due = self._connections / self._rate, offset, time.monotonic()
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._stopping.is_set():
            due = max(due + pause, time.monotonic())
            i += self._connections
            try:
                if streams is None:
                    streams = await asyncio.open_connection(HOST, self._port)
                async with asyncio.timeout(TIMEOUT):
                    keep = await self._ask(*streams, i)
            except (OSError, asyncio.IncompleteReadError, TimeoutError):
                if not self._is_end_expected and not self._stopping.is_set():
                    self.outcome.closed.append(self.now)
                keep = False
            if not keep and streams is not None:
                streams[1].close()
                with contextlib.suppress(OSError):
                    await streams[1].wait_closed()
                streams = None
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), max(0.0, due - time.monotonic()))
        if streams is not None:
            streams[1].close()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, i: int) -> bool:
        """Ask once, and judge what comes; whether the connection may be used again."""
        body, began, name = self._bodies[i % len(self._bodies)], time.monotonic(), f"load-{i}"
        writer.write(
            f"POST /predict HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\nX-Request-ID: {name}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        status, *lines = head.split("\r\n")
        headers = {key.lower(): value for key, _, value in (line.partition(": ") for line in lines if line)}
        answer = await reader.readexactly(int(headers["content-length"]))
        self.outcome.slowest = max(self.outcome.slowest, time.monotonic() - began)
        self._judge(int(status.split()[1]), headers, answer, i, name)
        return headers.get("connection") != "close"

    def _judge(self, status: int, headers: Mapping[str, str], answer: bytes, i: int, name: str) -> None:
        if headers.get("x-request-id") != name:
            self.outcome.wrong.append((self.now, f"answers {headers.get('x-request-id')}, not {name}"))
        elif status == 503 and self._is_end_expected:
            pass
        elif status != 200:
            self.outcome.refused.append((self.now, status, answer))
        elif (model := headers.get("x-model-id", "")) not in self._expected:
            self.outcome.wrong.append((self.now, f"of a model nobody asked for: {model}"))
        elif not is_same(json.loads(answer), self._expected[model][i % len(self._bodies)]):
            self.outcome.wrong.append((self.now, f"not what {model} answers: {answer.decode()}"))
        else:
            self.outcome.answered[model] += 1


def is_same(answer: Mapping[str, Any], expected: Mapping[str, Any]) -> bool:
    """Whether two answers are one model's to one row: each worker chooses its backend by what it measures, and backends
    differ in the last digits of a probability.
    """
    told, wanted = answer["probabilities"], expected["probabilities"]
    is_close = told.keys() == wanted.keys() and all(abs(told[label] - wanted[label]) < TOLERANCE for label in told)
    return is_close and all(answer[key] == expected[key] for key in ("prediction", "confidence"))
