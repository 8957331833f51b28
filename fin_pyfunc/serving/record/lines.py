"""One line of the record: a JSON object that carries its number and the digest of the line before it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
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


def chained(after: Position, bodies: Sequence[bytes]) -> tuple[bytes, Position]:
    """Make lines of a record.

    Parameters
    ----------
    after : Position
        Where the chain ends so far.
    bodies : sequence of bytes
        The members of a JSON object each, without braces and line breaks.

    Returns
    -------
    tuple of (bytes, Position)
        The lines, each with its line break, and where the chain ends with them.
    """
    (seq, prev), sha256 = after, hashlib.sha256
    lines = []
    for body in bodies:  # some 20,000 times a second: nothing is called here that need not be
        seq += 1
        line = b"".join((f'{{"seq":{seq},"prev":"{prev}",'.encode(), body, b"}"))
        prev = sha256(line).hexdigest()
        lines.append(line)
    lines.append(b"")
    return b"\n".join(lines), Position(seq, prev)


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
