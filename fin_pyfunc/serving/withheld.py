"""What a log says of an exception: where it came from, and not its message, which may quote a caller's row."""

from __future__ import annotations

import logging
import traceback

from fin_pyfunc.model.traces import chain, trace


def log_error(logger: logging.Logger, message: str, *arguments: object, error: BaseException, **fields: object) -> None:
    """Log an error with its trace; with the messages of other people's exceptions at the level debug only.

    Parameters
    ----------
    logger : Logger
    message, *arguments : str, object
        As `Logger.error` takes them.
    error : BaseException
    **fields : object
        Fields of a line of JSON; see `fin_pyfunc.serving.logs.lines.Line`.
    """
    if logger.isEnabledFor(logging.DEBUG):
        logger.error(message, *arguments, exc_info=error, extra=fields)
    else:
        logger.error(message, *arguments, extra={**fields, "error": type(error).__name__, "trace": trace(error)})


def forget_locals(error: BaseException) -> None:
    """Clear the variables of every function that an exception left, which it would keep in memory: a body, a table."""
    for each in chain(error, with_suppressed=True):
        traceback.clear_frames(each.__traceback__)
