"""Traces of exceptions without the messages of other people's code, which may quote a caller's row."""

from __future__ import annotations

import traceback

from fin_pyfunc.model.errors import FinPyfuncError


def trace(error: BaseException) -> str:
    """Write an exception and what led to it, innermost first: frames and types, and messages of our own only."""
    lines = []
    for each in reversed(chain(error)):
        kind = f"{type(each).__module__}.{type(each).__qualname__}"
        said = f": {each}" if isinstance(each, FinPyfuncError) else " (its message is logged at the level debug)"
        lines += [*traceback.format_tb(each.__traceback__), f"{kind}{said}\n"]
    return "".join(lines).rstrip()


def chain(error: BaseException, with_suppressed: bool = False) -> list[BaseException]:
    """List an exception and what led to it, itself first."""
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and current not in chain:
        chain.append(current)
        is_shown = with_suppressed or not current.__suppress_context__
        current = current.__cause__ or (current.__context__ if is_shown else None)
    return chain
