"""A line for each request that was answered."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from typing import Any, NamedTuple
from urllib.parse import quote

from starlette.types import Scope

from fin_pyfunc.serving.gathering import Gathering
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
#: So many lines are made and written together, or what came within so many seconds: what a killed process loses.
TOGETHER, WAIT_SECONDS = 128, 0.01


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


class _Answered(NamedTuple):
    """What a line is made of, later."""

    at: float
    level: int
    method: str
    path: str
    status: int
    seconds: float
    model_id: str
    state: dict[str, Any]
    prediction: Prediction | None


class JsonLines:
    """Requests in the log as JSON; an `Observer` of the boundary.

    Lines bypass `logging`, which takes longer for one than a model for a prediction, and are written some at a time.

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
        self._gathering: Gathering[_Answered] = Gathering(self._tell, TOGETHER, WAIT_SECONDS)
        self._second, self._second_text = 0, ""

    def answered(self, scope: Scope, status: int, seconds: float, error: Exception | None, /) -> None:
        """Keep one line, if it is to be written, for a moment."""
        level = _level(scope["path"], status, self._is_all)
        if logger.isEnabledFor(level):
            state, model = scope["state"], model_of(scope, error)
            asked = (scope["method"], scope["path"], status, seconds, model, state, state.get("prediction"))
            self._gathering.add(_Answered(time.time(), level, *asked))

    def flush(self) -> None:
        """Write what is kept."""
        self._gathering.flush()

    def _tell(self, requests: list[_Answered]) -> None:
        """Write their lines, in pieces of whole lines that a pipe takes as one."""
        piece = b""
        for request in requests:
            line = encoded(self._line(request))
            if piece and len(piece) + len(line) > PIECE:
                self._write(piece)
                piece = b""
            piece += line
        self._write(piece)

    def _line(self, of: _Answered) -> Line:
        line = Line(
            time=self._time(of.at),
            level=_NAMES[of.level],
            logger="fin_pyfunc.requests",
            pid=os.getpid(),
            message="request",
            request_id=of.state["request_id"],
            method=of.method,
            route=of.path if of.path in self._routes else OTHER,
            status=of.status or CLIENT_WENT_AWAY,
            seconds=round(of.seconds, 6),
            model_id=of.model_id,
            trace_id=of.state.get("trace_id", ""),
        )
        if of.prediction is not None:
            line.backend, line.rows = of.prediction.decisions.backend, len(of.prediction.decisions)
        return line

    def _time(self, seconds: float) -> str:
        """The time of a line; the part down to the second is made once a second."""
        second = int(seconds)
        if second != self._second:
            self._second, self._second_text = second, timestamp(second)[:19]
        return f"{self._second_text}.{int((seconds - second) * 1e6):06d}Z"


_NAMES = {logging.DEBUG: "debug", logging.INFO: "info"}


def _level(path: str, status: int, is_all: bool) -> int:
    told = (is_all or status >= 400) and not path.startswith(PROBES)
    return logging.INFO if told else logging.DEBUG


def _to_stderr(lines: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads the log any more, which is no reason to stop answering
        while lines:
            lines = lines[os.write(sys.stderr.fileno(), lines) :]
