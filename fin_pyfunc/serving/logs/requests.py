"""A line for each request that was answered."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
from collections.abc import Callable, Collection
from urllib.parse import quote

from fin_pyfunc.serving.gapped import GAP, parts
from fin_pyfunc.serving.logs.lines import Line
from fin_pyfunc.serving.logs.pieces import Around, pieces
from fin_pyfunc.serving.metrics.requests import CLIENT_WENT_AWAY
from fin_pyfunc.serving.metrics.values import OTHER
from fin_pyfunc.serving.observers import Answered
from fin_pyfunc.serving.prediction import Prediction, model_of

logger = logging.getLogger("fin_pyfunc.server")

#: What load balancers ask every second, and may be told 503 for minutes.
PROBES = ("/health", "/ping", "/metrics")
#: What a pipe takes as one piece, so that lines of several workers never mix (POSIX allows 512, Linux has 4096).
PIECE = 4096
#: Of so many kinds of lines it is known what they have in common.
MAX_KNOWN = 1000


class TextLines:
    """Requests in the log as text; an `Observer`.

    Parameters
    ----------
    is_all : bool
        Whether those that succeeded are told too, and not at the level debug only. What probes ask always is.
    """

    def __init__(self, is_all: bool) -> None:
        self._is_all = is_all

    def answered(self, requests: list[Answered], /) -> None:
        """Write a line for each of them that is to be told."""
        for _, seconds, status, method, path, state, error in requests:
            level = _level(path, status, self._is_all)
            if logger.isEnabledFor(level):
                why = "" if error is None else f" ({type(error).__name__})"
                # a caller's text must not make lines of its own
                asked = state["request_id"], method, quote(path)
                logger.log(level, "request %s: %s %s %d%s in %.1f ms", *asked, status, why, 1000 * seconds)


class JsonLines:
    """Requests in the log as JSON; an `Observer`.

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
        self._known: dict[_Kind, Around | None] = {}

    def answered(self, requests: list[Answered], /) -> None:
        """Write their lines, in pieces of whole lines that a pipe takes as one."""
        told = []
        for at, seconds, status, method, path, state, error in requests:
            prediction: Prediction | None = state.get("prediction")
            why, of = ("", "") if error is None else (type(error).__name__, model_of(state, error))
            backend, rows = "", 0
            if prediction is not None:
                of, rows = prediction.loaded.resolved.model_id, len(prediction.table)
                backend = prediction.decisions.backend
            kind = method, path, status, why, of, state.get("trace_id", ""), backend, rows
            told.append((at, state["request_id"], seconds, kind))
        for piece in pieces(told, self._known, self._around, PIECE):
            self._write(piece)

    def _around(self, kind: _Kind) -> Around | None:
        """What a line has around its time, its request's id and its seconds; None where it is not told."""
        method, path, status, why, model, trace, backend, rows = kind
        level = _level(path, status, self._is_all)
        if not logger.isEnabledFor(level):
            return self._keep(kind, None)
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
        # an id is hexadecimal, or of characters that JSON writes as they are (`http.request_id`)
        before, between, then, after = parts(line)
        return self._keep(kind, (before + b'"', b'"' + between + b'"', b'"' + then, after))

    def _keep(self, kind: _Kind, around: Around | None) -> Around | None:
        """Know it the next time, unless clients can make up as many as they like."""
        _, _, status, _, _, trace, _, _ = kind
        if status == 200 and not trace and len(self._known) < MAX_KNOWN:
            self._known[kind] = around
        return around


#: Method, path, status, error, model and trace of a request; and backend and rows of its answer.
_Kind = tuple[str, str, int, str, str, str, str, int]
_NAMES = {logging.DEBUG: "debug", logging.INFO: "info"}


def _level(path: str, status: int, is_all: bool) -> int:
    told = (is_all or status >= 400) and not path.startswith(PROBES)
    return logging.INFO if told else logging.DEBUG


def _to_stderr(lines: bytes) -> None:
    with contextlib.suppress(OSError):  # nobody reads the log any more, which is no reason to stop answering
        while lines:
            lines = lines[os.write(sys.stderr.fileno(), lines) :]
