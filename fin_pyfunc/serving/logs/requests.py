"""A line for each request that was answered."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from urllib.parse import quote

from starlette.types import Scope

from fin_pyfunc.serving.http import request_id
from fin_pyfunc.serving.logs.lines import Line, encoded, timestamp
from fin_pyfunc.serving.metrics.requests import CLIENT_WENT_AWAY
from fin_pyfunc.serving.metrics.values import OTHER
from fin_pyfunc.serving.prediction import Prediction, model_of

logger = logging.getLogger("fin_pyfunc.server")

#: What load balancers ask every second, and may be told 503 for minutes.
PROBES = ("/health", "/ping", "/metrics")
#: What a pipe takes as one piece, so that lines of several workers never mix (POSIX allows 512, Linux has 4096).
PIECE = 4096


class TextLines:
    """Requests in the log as text; an `Observer` of the boundary.

    Parameters
    ----------
    is_all : bool
        Whether those that succeeded are told too, and not at the level debug only. What probes ask always is.
    """

    def __init__(self, is_all: bool) -> None:
        self._is_all = is_all

    def answered(self, scope: Scope, status: int, seconds: float, _: Exception | None, /) -> None:
        """Write one line, if it is to be written."""
        level = _level(scope["path"], status, self._is_all)
        if logger.isEnabledFor(level):
            path = quote(scope["path"])  # a caller's text must not make lines of its own
            took = 1000 * seconds
            logger.log(level, "request %s: %s %s %d in %.1f ms", request_id(scope), scope["method"], path, status, took)


class JsonLines:
    """Requests in the log as JSON; an `Observer` of the boundary.

    Lines bypass `logging`, which takes longer for one than a model for a prediction, and are written at the end of the
    event loop's turn, all in one go.

    Parameters
    ----------
    is_all : bool
        As `TextLines` takes it.
    routes : collection of str
        Every path there is; any other one is "other".
    write : callable, optional
        Takes bytes; default writes to standard error.
    """

    def __init__(self, is_all: bool, routes: Collection[str], write: Callable[[bytes], None] | None = None) -> None:
        self._is_all, self._routes, self._write = is_all, frozenset(routes), write or _to_stderr
        self._lines: list[bytes] = []
        self._second, self._second_text = 0, ""

    def answered(self, scope: Scope, status: int, seconds: float, error: Exception | None, /) -> None:
        """Keep one line, if it is to be written, for the end of the loop's turn."""
        path = scope["path"]
        level = _level(path, status, self._is_all)
        if not logger.isEnabledFor(level):
            return
        state = scope["state"]
        prediction: Prediction | None = state.get("prediction")
        line = Line(
            time=self._now(),
            level=_NAMES[level],
            logger="fin_pyfunc.requests",
            pid=os.getpid(),
            message="request",
            request_id=state["request_id"],
            method=scope["method"],
            route=path if path in self._routes else OTHER,
            status=status or CLIENT_WENT_AWAY,
            seconds=round(seconds, 6),
            model_id=model_of(scope, error),
            trace_id=state.get("trace_id", ""),
        )
        if prediction is not None:
            line.backend, line.rows = prediction.decisions.backend, len(prediction.decisions)
        if not self._lines:
            asyncio.get_running_loop().call_soon(self._flush)
        self._lines.append(encoded(line))

    def _flush(self) -> None:
        lines, self._lines = self._lines, []
        piece = b""
        for line in lines:
            if piece and len(piece) + len(line) > PIECE:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)

    def _now(self) -> str:
        """The time of a line; the part down to the second is made once a second."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second, self._second_text = second, timestamp(second)[:19]
        return f"{self._second_text}.{int((now - second) * 1e6):06d}Z"


_NAMES = {logging.DEBUG: "debug", logging.INFO: "info"}


def _level(path: str, status: int, is_all: bool) -> int:
    told = (is_all or status >= 400) and not path.startswith(PROBES)
    return logging.INFO if told else logging.DEBUG


def _to_stderr(lines: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads the log any more, which is no reason to stop answering
        while lines:
            lines = lines[os.write(sys.stderr.fileno(), lines) :]
