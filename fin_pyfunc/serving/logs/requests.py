"""A line for each request that was answered."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import quote

from starlette.types import Scope

from fin_pyfunc.serving.gapped import GAP, parts
from fin_pyfunc.serving.gathering import Gathering
from fin_pyfunc.serving.http import request_id
from fin_pyfunc.serving.logs.lines import Line
from fin_pyfunc.serving.metrics.requests import CLIENT_WENT_AWAY
from fin_pyfunc.serving.metrics.values import OTHER
from fin_pyfunc.serving.prediction import Prediction, model_of
from fin_pyfunc.serving.timestamps import timestamp

logger = logging.getLogger("fin_pyfunc.server")

#: What load balancers ask every second, and may be told 503 for minutes.
PROBES = ("/health", "/ping", "/metrics")
#: What a pipe takes as one piece, so that lines of several workers never mix (POSIX allows 512, Linux has 4096).
PIECE = 4096
#: What so many kinds of lines have in common is kept.
MAX_COMMON = 1000
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

    def answered(self, scope: Scope, status: int, seconds: float, error: Exception | None, /) -> None:
        """Write one line, if it is to be written."""
        level = _level(scope["path"], status, self._is_all)
        if logger.isEnabledFor(level):
            path = quote(scope["path"])  # a caller's text must not make lines of its own
            why = "" if error is None else f" ({type(error).__name__})"
            asked = request_id(scope), scope["method"], path
            logger.log(level, "request %s: %s %s %d%s in %.1f ms", *asked, status, why, 1000 * seconds)


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
        #: what lines have in common that differ in time, id and seconds only, as three gaps leave it
        self._common: dict[_Kind, list[str]] = {}

    def answered(self, scope: Scope, status: int, seconds: float, error: Exception | None, /) -> None:
        """Keep what its line says for a moment."""
        # as little as can be: between two requests nothing is in the caches, and what is done later of many is
        why = ("", "") if error is None else (type(error).__name__, model_of(scope, error))
        self._gathering.add((time.time(), scope["method"], scope["path"], status, why, seconds, scope["state"]))

    def flush(self) -> None:
        """Write what is kept."""
        self._gathering.flush()

    def _tell(self, requests: list[_Answered]) -> None:
        """Write their lines, in pieces of whole lines that a pipe takes as one."""
        lines: list[bytes] = []
        size, last = 0, None
        before = between = then = after = ""
        for at, method, path, status, (why, model), seconds, state in requests:
            level = _level(path, status, self._is_all)
            if not logger.isEnabledFor(level):
                continue
            prediction: Prediction | None = state.get("prediction")
            answer = ("", 0) if prediction is None else (prediction.decisions.backend, len(prediction.table))
            of = model if prediction is None else prediction.loaded.resolved.model_id
            if (key := (level, method, path, status, why, of, state.get("trace_id", ""), *answer)) != last:
                before, between, then, after = self._common.get(key) or self._parts(key)
                last = key
            # an id is hexadecimal, or of characters that JSON writes as they are (`http.request_id`)
            line = f'{before}"{timestamp(at)}"{between}"{state["request_id"]}"{then}{seconds:.6f}{after}\n'.encode()
            if lines and size + len(line) > PIECE:
                self._write(b"".join(lines))
                lines, size = [], 0
            lines.append(line)
            size += len(line)
        if lines:
            self._write(b"".join(lines))

    def _parts(self, kind: _Kind) -> list[str]:
        level, method, path, status, why, model, trace, backend, rows = kind
        line = Line(
            time=GAP,
            level=_NAMES[level],
            logger="fin_pyfunc.requests",
            pid=os.getpid(),
            message="request",
            request_id=GAP,
            method=method,
            route=path if path in self._routes else OTHER,
            status=status or CLIENT_WENT_AWAY,
            seconds=GAP,
            model_id=model,
            backend=backend,
            rows=rows,
            trace_id=trace,
            error=why,
        )
        known = [part.decode() for part in parts(line)]
        if status == 200 and not trace and len(self._common) < MAX_COMMON:
            self._common[kind] = known
        return known


#: Level, method, path, status, error, model and trace of a request; and backend and rows of its answer.
_Kind = tuple[int, str, str, int, str, str, str, str, int]
#: When a request was answered, its method and path, its status, an error's type and model, its seconds and its state.
_Answered = tuple[float, str, str, int, tuple[str, str], float, dict[str, Any]]
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info"}


def _level(path: str, status: int, is_all: bool) -> int:
    told = (is_all or status >= 400) and not path.startswith(PROBES)
    return logging.INFO if told else logging.DEBUG


def _to_stderr(lines: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads the log any more, which is no reason to stop answering
        while lines:
            lines = lines[os.write(sys.stderr.fileno(), lines) :]
