"""Writing one chain: taken over from whoever wrote it last, mended, appended to, and never left half written."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from fin_pyfunc.serving.record import folder as folders
from fin_pyfunc.serving.record.folder import Chain, Head, Segment
from fin_pyfunc.serving.record.lines import Position, chained, digest, read

logger = logging.getLogger("fin_pyfunc.record")


class Cut(msgspec.Struct, frozen=True, kw_only=True):
    """A torn tail that was cut off: what a process that was killed, or a machine that lost power, had half written."""

    segment: int
    offset: int
    bytes: int
    sha256: str


class Start(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a segment's first line says of it, besides what is the same for all segments of a process."""

    kind: str
    segment: int
    opened: str
    cut: Cut | None = None


class _End(NamedTuple):
    """Where a chain ends."""

    position: Position
    segment: int
    offset: int


class ChainWriter:
    """Appends to one chain, which it holds a lock on. For one thread.

    Parameters
    ----------
    chain : Chain
    handle : int
        Its head, open and locked.
    preamble : callable
        The members of a JSON object that the first line of each segment has besides `Start`'s.
    rotate_bytes : int
        A segment that would grow beyond this is closed, and another one begun.
    now : callable
        The time as text.
    """

    def __init__(self, chain: Chain, handle: int, preamble: bytes, rotate_bytes: int, now: Callable[[], str]) -> None:
        self.chain, self._handle, self._preamble, self._now = chain, handle, preamble, now
        self._rotate_bytes = rotate_bytes
        self._file: int | None = None
        #: bytes of the segment's first line
        self._begun = 0
        #: whether the file holds something behind its end that could not be removed, or nobody knows what it holds
        self._has_rest = self._is_damaged = False
        self._end, self._cut = _mend(chain)
        self._safe = self._end

    @property
    def is_cut(self) -> bool:
        """Whether a torn tail was cut that no segment says yet."""
        return self._cut is not None

    def append(self, blocks: list[bytes]) -> bool:
        """Append a line a body, as `chained` takes them, all or none.

        Returns
        -------
        bool
            Whether a segment was closed for it.

        Raises
        ------
        OSError
            Nothing was appended.
        """
        if self._file is not None and self._has_rest:
            os.ftruncate(self._file, self._end.offset)
            self._has_rest = False
        lines, end = chained(self._end.position, blocks)
        rotates = (
            self._file is None
            or self._is_damaged
            or (self._end.offset + len(lines) > self._rotate_bytes and self._end.offset > self._begun)
        )
        if rotates:
            self._rotate()
            lines, end = chained(self._end.position, blocks)  # they follow another line now
        assert self._file is not None  # noqa: S101 - for the type checker
        try:
            _write(self._file, lines)
        except OSError:
            self._remove_rest()
            raise
        self._end = self._end._replace(position=end, offset=self._end.offset + len(lines))
        return rotates

    def sync(self) -> None:
        """Make everything that was appended safe: after this not even a loss of power takes it away.

        Raises
        ------
        OSError
            Nobody knows what is on the disk; the segment is not written to any more.
        """
        if self._file is None or self._end == self._safe:
            return
        try:
            os.fdatasync(self._file)
            self._write_head()
        except OSError:
            self._is_damaged = True  # a second sync would say that all is well, whether or not it is
            raise
        self._safe = self._end

    def take_back(self) -> None:
        """Remove what was appended since the last `sync`."""
        if self._file is None or self._end == self._safe:
            return
        self._end = self._safe
        self._remove_rest()

    def close(self) -> None:
        """Let go of the chain."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
        os.close(self._handle)

    def _rotate(self) -> None:
        """Close the segment, if there is one, and begin another."""
        if self._file is not None and not self._is_damaged:
            self.sync()
            os.fsync(self._handle)  # a head is never more than one segment behind
        number = self._end.segment + 1
        start = Start(kind="segment", segment=number, opened=self._now(), cut=self._cut)
        line, position = chained(self._end.position, [b"%b,%b\n" % (msgspec.json.encode(start)[1:-1], self._preamble)])
        path = self.chain.segment(number).path
        opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o600)
        try:
            _write(opened, line)
            os.fdatasync(opened)
            folders.sync_folder(self.chain.path)
        except OSError:
            os.close(opened)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        if self._file is not None:
            os.close(self._file)
        self._file, self._begun, self._is_damaged, self._cut = opened, len(line), False, None
        self._end = self._safe = _End(position, number, len(line))
        self._write_head()

    def _write_head(self) -> None:
        end = self._end
        head = Head(segment=end.segment, offset=end.offset, seq=end.position.seq, sha256=end.position.sha256)
        folders.write_head(self._handle, head)

    def _remove_rest(self) -> None:
        """Leave nothing in the file behind its end: now, or else before anything else is written."""
        assert self._file is not None  # noqa: S101 - for the type checker
        try:
            os.ftruncate(self._file, self._end.offset)
        except OSError:
            self._has_rest = True


def take(folder: Path, preamble: bytes, rotate_bytes: int, now: Callable[[], str]) -> ChainWriter:
    """Go on with a chain that nobody writes, or begin one; torn tails of the others that nobody writes are cut, too.

    Parameters
    ----------
    folder : Path
        Of the record; made if it is not there.
    preamble, rotate_bytes, now
        As `ChainWriter` takes them.

    Raises
    ------
    OSError
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.close(os.open(folder / folders.LOCK, os.O_CREAT | os.O_RDWR, 0o600))
    with folders.locked(folder / folders.LOCK):
        taken: ChainWriter | None = None
        for chain in folders.chains(folder):
            writer = _opened(chain, preamble, rotate_bytes, now)
            if taken is None or writer is None:
                taken = taken or writer
                continue
            try:
                if writer.is_cut:
                    writer.append([])  # begins a segment, whose first line says what was cut
            except OSError as e:
                logger.warning("the record's chain %d could not be gone on with (%s)", chain.number, e.strerror)
            finally:
                writer.close()
        if taken is None:
            taken = _opened(folders.new_chain(folder), preamble, rotate_bytes, now)
        if taken is None:
            raise BlockingIOError(errno.EAGAIN, "the record's new chain is written by another process already")
        return taken


def _opened(chain: Chain, preamble: bytes, rotate_bytes: int, now: Callable[[], str]) -> ChainWriter | None:
    """A writer of a chain; None where another process writes it."""
    handle = os.open(chain.path / folders.HEAD, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return ChainWriter(chain, handle, preamble, rotate_bytes, now)
    except BlockingIOError:
        os.close(handle)
        return None
    except BaseException:
        os.close(handle)
        raise


def _write(handle: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(handle, left) :]


def _mend(chain: Chain) -> tuple[_End, Cut | None]:
    """Find where a chain ends, and cut what was half written; what is damaged before its head is left to be seen."""
    head, segments = chain.head(), chain.segments()
    end = _End(chain.begin(), -1, 0) if head is None else _End(head.position, head.segment, head.offset)
    cut = None
    for segment in segments:
        if segment.number < end.segment:
            continue
        offset = end.offset if segment.number == end.segment else 0
        position, good = _last_whole(segment, end.position, offset)
        if segment is segments[-1] and not segment.is_compressed:
            cut = _cut(chain, segment, good)
        end = _End(position, segment.number, good)
    return end, cut


def _last_whole(segment: Segment, after: Position, offset: int) -> tuple[Position, int]:
    """How far lines follow one another, from an offset on."""
    for line in segment.lines(offset):
        link = read(line[:-1]) if line.endswith(b"\n") else None
        if link is None or (link.seq, link.prev) != (after.seq + 1, after.sha256):
            break
        after, offset = Position(link.seq, digest(line[:-1])), offset + len(line)
    return after, offset


def _cut(chain: Chain, segment: Segment, good: int) -> Cut | None:
    torn = b"".join(segment.chunks(good))
    if not torn:
        return None
    cut = Cut(segment=segment.number, offset=good, bytes=len(torn), sha256=hashlib.sha256(torn).hexdigest())
    logger.warning(
        "the record's chain %d ended in %d bytes that are no whole line (segment %d, from byte %d): they were cut",
        *(chain.number, cut.bytes, cut.segment, cut.offset),
    )
    with contextlib.suppress(OSError):  # kept to be looked at, where there is room for it
        segment.path.with_name(f"{segment.number:08d}-{good}.torn").write_bytes(torn)
    if good:
        os.truncate(segment.path, good)
    else:
        segment.path.unlink()  # not even its first line was whole
    return cut
