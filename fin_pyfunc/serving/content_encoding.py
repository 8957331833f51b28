"""Bodies that were compressed for the way (`Content-Encoding`; RFC 9110, 8.4), inflated in small pieces."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from starlette.types import Scope

from fin_pyfunc.serving.errors import RequestError

#: What zlib calls the formats.
_FORMATS = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}
#: Members of a gzip body (RFC 1952, 2.2), which `cat` and log shippers put one after the other; each costs 10 µs.
MAX_MEMBERS = 1000
#: Most bytes that come out at once: a small body may hold a thousand times its size.
PIECE_BYTES = 262_144


def inflater_of(scope: Scope) -> Inflater | None:
    """What inflates the body of a request; None where it is as its content type says.

    Raises
    ------
    RequestError
        415: it was compressed in another way than with gzip or deflate, or more than once.
    """
    sent = [value for name, value in scope["headers"] if name == b"content-encoding"]
    if not sent:
        return None
    codings = [coding.strip().lower() for value in sent for coding in value.split(b",")]
    codings = [coding for coding in codings if coding not in (b"", b"identity")]
    if not codings:
        return None
    if len(codings) > 1 or codings[0] not in _FORMATS:
        raise RequestError(
            415,
            "The body's Content-Encoding is not one that this server takes: compress it once, with gzip or deflate, or "
            "not at all.",
            {"Accept-Encoding": "gzip, deflate"},
        )
    return Inflater(codings[0])


class Inflater:
    """Inflates one body.

    Parameters
    ----------
    coding : bytes
        One of `_FORMATS`.
    """

    def __init__(self, coding: bytes) -> None:
        self._coding, self._format = coding.decode(), _FORMATS[coding]
        self._stream, self._members = zlib.decompressobj(self._format), 1

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes of a body hold, at most `PIECE_BYTES` at once.

        Raises
        ------
        RequestError
            422: they are not compressed as was said, or something that is no member of gzip follows the end.
        """
        is_more = bool(data)
        while is_more:
            if self._stream.eof:
                self._begin_member()
            try:
                piece = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error:
                raise self._unreadable() from None
            data = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
            is_more = bool(data) or (len(piece) == PIECE_BYTES and not self._stream.eof)
            yield piece

    def require_end(self) -> None:
        """Refuse a body that was cut off; raises as `inflate`."""
        if not self._stream.eof:
            raise self._unreadable()

    def _begin_member(self) -> None:
        self._members += 1
        if self._format != _FORMATS[b"gzip"] or self._members > MAX_MEMBERS:
            raise self._unreadable()
        self._stream = zlib.decompressobj(self._format)

    def _unreadable(self) -> RequestError:
        return RequestError(
            422,
            f"The body cannot be inflated as its Content-Encoding says: send one whole {self._coding} stream, and "
            "nothing after it.",
        )
