"""One line of the record: a JSON object that carries its number and the digest of the line before it."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import msgspec

#: What the first line of a chain carries in place of a digest.
GENESIS = "0" * 64


class Link(msgspec.Struct, frozen=True):
    """What chains a line: its number in the chain, and the SHA-256 of the line before, without its line break."""

    seq: int
    prev: str
    kind: str


class Position(NamedTuple):
    """How far a chain goes: the number and the digest of its last line."""

    seq: int
    sha256: str


#: Of a chain without a line.
START = Position(-1, GENESIS)
_link = msgspec.json.Decoder(Link).decode


def chained(after: Position, body: bytes) -> tuple[bytes, Position]:
    """Make a line of a record.

    Parameters
    ----------
    after : Position
        Where the chain ends so far.
    body : bytes
        The members of a JSON object, without braces and line breaks.

    Returns
    -------
    tuple of (bytes, Position)
        The line with its line break, and where the chain ends with it.
    """
    seq = after.seq + 1
    line = b'{"seq":%d,"prev":"%b",%b}' % (seq, after.sha256.encode(), body)
    return line + b"\n", Position(seq, digest(line))


def digest(line: bytes) -> str:
    """SHA-256 of a line without its line break, in hexadecimal."""
    return hashlib.sha256(line).hexdigest()


def read(line: bytes) -> Link | None:
    """What chains a line; None where it is no line of a record."""
    try:
        if not line.isascii():
            line.decode()  # msgspec does not look into what it skips
        return _link(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
