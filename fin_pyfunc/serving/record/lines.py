"""One line of the record: a JSON object that carries its number and the digest of the line before it."""

from __future__ import annotations

import ctypes
import hashlib
from typing import NamedTuple

import msgspec

try:
    from fin_pyfunc.serving import _lines
except ImportError:  # where there was no compiler
    _lines = None  # type: ignore[assignment]

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


def chained(after: Position, blocks: list[bytes]) -> tuple[bytes, Position]:
    """Make lines of a record; where `_lines.c` was built, while other threads go on.

    Parameters
    ----------
    after : Position
        Where the chain ends so far.
    blocks : list of bytes
        Bodies: the members of a JSON object each, without braces, and each with a line break behind it. However many a
        block holds, it is one after the other.

    Returns
    -------
    tuple of (bytes, Position)
        The lines, each with its line break, and where the chain ends with them.
    """
    if not _SHA256:
        return chained_in_python(after, blocks)
    lines, following, prev = _lines.chained(_SHA256, after.seq + 1, after.sha256.encode(), blocks)
    return lines, Position(following - 1, prev.decode())


def chained_in_python(after: Position, blocks: list[bytes]) -> tuple[bytes, Position]:
    """Make the same lines of the same bodies."""
    (seq, prev), sha256 = after, hashlib.sha256
    lines = []
    for body in b"".join(blocks).split(b"\n")[:-1]:
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


def _sha256() -> int:
    """The address of OpenSSL's SHA-256, which `hashlib` calls too; 0 where it cannot be had."""
    try:
        import _hashlib

        address = ctypes.cast(ctypes.CDLL(_hashlib.__file__).SHA256, ctypes.c_void_p).value or 0
        _, _, digest = _lines.chained(address, 0, GENESIS.encode(), [b"\n"])
    except (ImportError, AttributeError, OSError, TypeError, ValueError):  # this Python was built in another way
        return 0
    return address if chained_in_python(START, [b"\n"])[1].sha256 == digest.decode() else 0


#: 0 where lines are chained in Python.
_SHA256 = 0 if _lines is None else _sha256()
