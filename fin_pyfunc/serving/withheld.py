"""What a log says of an exception: where it came from, and not its message, which may quote a caller's row."""

from __future__ import annotations

import logging
import traceback

from fin_pyfunc.model.errors import FinPyfuncError


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
    for each in _chain(error, with_suppressed=True):
        traceback.clear_frames(each.__traceback__)


def trace(error: BaseException) -> str:
    """An exception and what led to it, innermost first: frames and types, and messages of our own only."""
    lines = []
    for each in reversed(_chain(error)):
        kind = f"{type(each).__module__}.{type(each).__qualname__}"
        said = f": {each}" if isinstance(each, FinPyfuncError) else " (its message is logged at the level debug)"
        lines += [*traceback.format_tb(each.__traceback__), f"{kind}{said}\n"]
    return "".join(lines).rstrip()


def _chain(error: BaseException, with_suppressed: bool = False) -> list[BaseException]:
    """An exception and what led to it, itself first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        is_shown = with_suppressed or not current.__suppress_context__
        current = current.__cause__ or (current.__context__ if is_shown else None)
    return chain
