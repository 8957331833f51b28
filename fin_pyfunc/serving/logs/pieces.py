"""Lines of many requests, put together."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from fin_pyfunc.serving.timestamps import timestamp

try:
    from fin_pyfunc.serving import _lines
except ImportError:  # where there was no compiler
    _lines = None  # type: ignore[assignment]

K = TypeVar("K")
#: What lines of one kind have around their time, request's id and seconds.
Around = tuple[bytes, bytes, bytes, bytes]


def pieces(
    requests: list[tuple[float, str, float, K]],
    known: dict[K, Around | None],
    make: Callable[[K], Around | None],
    most: int,
) -> list[bytes]:
    """Lines of the log, in pieces of whole lines; by `_lines.c`, where it was built, in a tenth of the time.

    Parameters
    ----------
    requests : list of (float, str, float, kind)
        When each was answered, in seconds since the epoch; its id; its seconds; what kind it was of.
    known : dict of kind to Around or None
        What lines of a kind have in common; None for one that is not told.
    make : callable
        Kind to that, where it is not known.
    most : int
        Bytes of a piece; a line that is longer is a piece of its own.

    Returns
    -------
    list of bytes
    """
    return (pieces_in_python if _lines is None else _lines.pieces)(requests, known, make, most)


def pieces_in_python(
    requests: list[tuple[float, str, float, K]],
    known: dict[K, Around | None],
    make: Callable[[K], Around | None],
    most: int,
) -> list[bytes]:
    """Make the same pieces of the same requests."""
    made, lines, size = list[bytes](), list[bytes](), 0
    for at, id_, seconds, kind in requests:
        around = known[kind] if kind in known else make(kind)
        if around is None:
            continue
        before, between, then, after = around
        line = b"".join((before, timestamp(at).encode(), between, id_.encode(), then, b"%.6f" % seconds, after, b"\n"))
        if lines and size + len(line) > most:
            made.append(b"".join(lines))
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    return [*made, b"".join(lines)] if lines else made
