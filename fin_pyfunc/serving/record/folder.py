"""The folder of a record: chains, their segments, and what is known of where each begins and ends.

::

    <record.folder>/
      chain-000/            one a worker; the next worker that starts goes on with a chain that nobody has
        00000000.jsonl.zst  a segment that is full
        00000001.jsonl      the one that is written
        head.json           how far the chain went when it was last made safe
        anchor.json         where it begins, once its oldest segments were removed
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

import msgspec

from fin_pyfunc.serving.record.lines import START, Position

T = TypeVar("T")

HEAD, ANCHOR = "head.json", "anchor.json"
#: Held while chains are handed out, and while segments are compressed and removed.
LOCK, KEEPING_LOCK = "lock", "keeping.lock"
_CHAIN = re.compile(r"chain-(\d{3,})")
_SEGMENT = re.compile(r"(\d{8,})\.jsonl(\.zst)?")
#: A head is written over the one before, so all are of one length.
_HEAD_BYTES = 256
_CHUNK = 1 << 20


class Head(msgspec.Struct, frozen=True, kw_only=True):
    """How far a chain went when it was last made safe: nothing up to there may be missing or cut."""

    segment: int
    offset: int
    seq: int
    sha256: str

    @property
    def position(self) -> Position:
        """Number and digest of the last line."""
        return Position(self.seq, self.sha256)


class Anchor(msgspec.Struct, frozen=True, kw_only=True):
    """Where a chain begins: the last line that was removed with its segment, by whose order, and when."""

    segment: int
    seq: int
    sha256: str
    removed: str
    reason: str

    @property
    def position(self) -> Position:
        """Number and digest of the last line that was removed."""
        return Position(self.seq, self.sha256)


class Segment(NamedTuple):
    """A file of a chain."""

    number: int
    path: Path

    @property
    def is_compressed(self) -> bool:
        """Whether it is full, and packed."""
        return self.path.suffix == ".zst"

    def chunks(self, offset: int = 0) -> Iterator[bytes]:
        """Its bytes, unpacked, a piece at a time.

        Raises
        ------
        OSError
            It cannot be read, or its packing is damaged.
        """
        if not self.is_compressed:
            with self.path.open("rb") as file:
                file.seek(offset)
                while chunk := file.read(_CHUNK):
                    yield chunk
            return
        import pyarrow as pa

        try:
            with pa.input_stream(str(self.path), compression="zstd") as stream:
                while chunk := stream.read(_CHUNK):
                    yield chunk
        except pa.ArrowException as e:
            raise OSError(f"its packing is damaged ({type(e).__name__})") from e

    def lines(self, offset: int = 0) -> Iterator[bytes]:
        """Its lines, each with its line break; the last may lack one."""
        rest = b""
        for chunk in self.chunks(offset):
            *whole, rest = (rest + chunk).split(b"\n")
            for line in whole:
                yield line + b"\n"
        if rest:
            yield rest


class Chain(NamedTuple):
    """One worker's part of a record."""

    number: int
    path: Path

    def segments(self) -> list[Segment]:
        """Its files, oldest first; of one that is there twice, since packing it was broken off, the plain one."""
        found: dict[int, Segment] = {}
        for entry in sorted(self.path.iterdir(), reverse=True):  # x.jsonl.zst before x.jsonl, which goes over it
            if match := _SEGMENT.fullmatch(entry.name):
                found[int(match[1])] = Segment(int(match[1]), entry)
        return [found[number] for number in sorted(found)]

    def segment(self, number: int) -> Segment:
        """The file that a new segment of this number is written to."""
        return Segment(number, self.path / f"{number:08d}.jsonl")

    def head(self) -> Head | None:
        """Its head; None where there is none that can be read."""
        return _read(self.path / HEAD, Head)

    def anchor(self) -> Anchor | None:
        """Its anchor; None where nothing of it was removed."""
        return _read(self.path / ANCHOR, Anchor)

    def begin(self) -> Position:
        """What its first line follows."""
        anchor = self.anchor()
        return START if anchor is None else anchor.position

    def set_anchor(self, anchor: Anchor) -> None:
        """Say, before segments are removed, where the chain is going to begin."""
        written = self.path / f"{ANCHOR}.part"
        with written.open("wb") as file:
            file.write(msgspec.json.encode(anchor) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        written.replace(self.path / ANCHOR)
        sync_folder(self.path)

    def is_taken(self) -> bool:
        """Whether a worker writes it now."""
        try:
            with locked(self.path / HEAD, wait=False):
                return False
        except BlockingIOError:
            return True
        except OSError:  # there is no head
            return False


def chains(folder: Path) -> list[Chain]:
    """The chains of a record, by number."""
    found = [(match, entry) for entry in folder.iterdir() if (match := _CHAIN.fullmatch(entry.name))]
    return sorted(Chain(int(match[1]), entry) for match, entry in found)


def new_chain(folder: Path) -> Chain:
    """Make the folder of one more chain; what may be in it is for the server's user alone."""
    number = max((chain.number for chain in chains(folder)), default=-1) + 1
    path = folder / f"chain-{number:03d}"
    path.mkdir(mode=0o700)
    sync_folder(folder)
    return Chain(number, path)


def write_head(handle: int, head: Head) -> None:
    """Write a head over the one before.

    It follows what it speaks of to the disk, never before it, so it needs no sync of its own.
    """
    os.pwrite(handle, msgspec.json.encode(head).ljust(_HEAD_BYTES - 1) + b"\n", 0)


def sync_folder(path: Path) -> None:
    """Make names in a folder safe."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock on a file, which must be there.

    Raises
    ------
    BlockingIOError
        Another process has it, and `wait` is false.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return None
