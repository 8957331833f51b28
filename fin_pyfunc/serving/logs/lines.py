"""What a line of the log holds, and how everything that this process says becomes such a line."""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import TracebackType
from typing import Any

import msgspec
from gunicorn.glogging import Logger

from fin_pyfunc.serving.timestamps import timestamp

#: gunicorn's own, so that its lines and ours read alike.
TEXT, DATE = "%(asctime)s [%(process)d] [%(levelname)s] %(message)s", "[%Y-%m-%d %H:%M:%S %z]"


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a log in JSON, its keys in this order; what is not known is left out.

    Parameters
    ----------
    time : str
        UTC, ISO 8601, to the microsecond.
    level : str
        debug, info, warning, error or critical.
    logger : str
    pid : int
        Process that says it.
    message : str
    request_id, method, route : str
        Of a request; a path that there is no route for is not told.
    status : int
        What it was answered; 499 where the client went away before.
    seconds : float
        From its head to its answer.
    model_id, backend : str
        What answered, as ``X-Model-ID`` and ``X-Model-Backend`` say.
    rows : int
        How many were predicted.
    trace_id : str
        Where requests are traced.
    error : str
        Type of an exception.
    trace : str
        Where it was raised.
    """

    time: str
    level: str
    logger: str
    pid: int
    message: str
    request_id: str = ""
    method: str = ""
    route: str = ""
    status: int = 0
    seconds: float = 0.0
    model_id: str = ""
    backend: str = ""
    rows: int = 0
    trace_id: str = ""
    error: str = ""
    trace: str = ""


_encode = msgspec.json.Encoder().encode
#: What a record may have been given as ``extra``.
_EXTRA = frozenset(Line.__struct_fields__) - {"time", "level", "logger", "pid", "message"}


class TextFormatter(logging.Formatter):
    """A record of anybody's as text, with the trace that it was given in place of an exception."""

    def __init__(self) -> None:
        super().__init__(TEXT, DATE)

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        given = record.__dict__.get("trace")
        return super().format(record) + (f"\n{given}" if given else "")


class JsonFormatter(logging.Formatter):
    """A record of anybody's as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        extra = {name: value for name, value in record.__dict__.items() if name in _EXTRA}
        if record.exc_info and record.exc_info[0] is not None:
            extra |= {"error": record.exc_info[0].__name__, "trace": self.formatException(record.exc_info)}
        line = Line(
            time=timestamp(record.created),
            level=record.levelname.lower(),
            logger=record.name,
            pid=record.process or 0,
            message=record.getMessage(),
            **extra,
        )
        return _encode(line).decode()


class GunicornLogger(Logger):  # type: ignore[misc] # no types
    """gunicorn's logger, whose lines are JSON too."""

    def setup(self, cfg: Any) -> None:
        """As the parent does."""
        super().setup(cfg)
        for handler in (*self.error_log.handlers, *self.access_log.handlers):
            handler.setFormatter(JsonFormatter())


def set_up(level: str, is_json: bool) -> None:
    """Send what this process says to standard error, in one format.

    Parameters
    ----------
    level : str
        Least severe level that is said.
    is_json : bool
        Then warnings of Python and exceptions that nobody catches are lines of JSON too.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if is_json else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for noisy in ("alembic", "httpx", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    if is_json:
        os.environ["MLFLOW_CONFIGURE_LOGGING"] = "false"  # MLflow would write its own lines in its own format
        logging.captureWarnings(True)
        sys.excepthook = _uncaught
        threading.excepthook = lambda raised: _uncaught(raised.exc_type, raised.exc_value, raised.exc_traceback)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if error is not None and not issubclass(kind, KeyboardInterrupt):
        logging.getLogger("fin_pyfunc.server").critical("an error that nobody caught", exc_info=(kind, error, trace))
