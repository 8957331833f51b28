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


def trace(error: BaseException) -> str:
    """An exception and what led to it, innermost first: frames and types, and messages of our own only."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    lines = []
    for each in reversed(chain):
        kind = f"{type(each).__module__}.{type(each).__qualname__}"
        said = f": {each}" if isinstance(each, FinPyfuncError) else " (its message is logged at the level debug)"
        lines += [*traceback.format_tb(each.__traceback__), f"{kind}{said}\n"]
    return "".join(lines).rstrip()
