"""Full segments are packed, and the oldest go when they are too old or too many; the chain stays whole."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from fin_pyfunc.serving.record import folder as folders
from fin_pyfunc.serving.record.folder import Anchor, Chain, Segment
from fin_pyfunc.serving.record.lines import read

logger = logging.getLogger("fin_pyfunc.record")

#: Seconds after which a look is taken even if no segment was closed: age alone makes one too old.
LOOK_SECONDS = 3600.0
_DAY = 86400.0


class Keeper:
    """Keeps a record's folder in order, on a thread of its own; of several workers one at a time.

    Parameters
    ----------
    folder : Path
    compress : bool
        Whether full segments are packed.
    keep_days : float or None
        Segments whose last record is older are removed.
    keep_bytes : int or None
        The oldest are removed until the folder holds no more than this.
    """

    def __init__(self, folder: Path, *, compress: bool, keep_days: float | None, keep_bytes: int | None) -> None:
        self._folder, self._compress = folder, compress
        self._keep_days, self._keep_bytes = keep_days, keep_bytes
        self._wake, self._is_closed = threading.Event(), False

    def start(self) -> None:
        """Begin; the first look is taken when `look` is called."""
        threading.Thread(target=self._run, name="record-keeper", daemon=True).start()

    def look(self) -> None:
        """Have a look soon: a segment was closed."""
        self._wake.set()

    def close(self) -> None:
        """Stop; what is being packed stays plain, and is packed later."""
        self._is_closed = True
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(LOOK_SECONDS)
            self._wake.clear()
            if self._is_closed:
                return
            try:
                self.tidy()
            except OSError as e:
                logger.warning("the record's folder could not be tidied (%s)", (e.strerror or str(e)).lower())
            except Exception:
                logger.exception("tidying the record's folder failed in a way that was not foreseen")

    def tidy(self) -> None:
        """Pack what is full, and remove what is to go.

        Raises
        ------
        OSError
        """
        os.close(os.open(self._folder / folders.KEEPING_LOCK, os.O_CREAT | os.O_RDWR, 0o600))
        with folders.locked(self._folder / folders.KEEPING_LOCK):
            full = [(chain, segment) for chain in folders.chains(self._folder) for segment in chain.segments()[:-1]]
            self._remove(full)
            for _, segment in full:
                if self._compress and not segment.is_compressed and segment.path.exists() and not self._is_closed:
                    pack(segment, lambda: self._is_closed)

    def _remove(self, full: list[tuple[Chain, Segment]]) -> None:
        """Remove the oldest segments, each chain from its beginning."""
        if self._keep_days is None and self._keep_bytes is None:
            return
        status = {segment.path: segment.path.stat() for _, segment in full}
        size = sum(entry.stat().st_size for entry in self._folder.rglob("*") if entry.is_file())
        # by when the last record was written; the order within a chain is by number, whatever a clock said
        by_age = sorted(full, key=lambda one: status[one[1].path].st_mtime)
        oldest = {chain.number: iter([s for c, s in full if c == chain]) for chain, _ in full}
        for chain, _ in by_age:
            segment = next(oldest[chain.number])
            is_old = self._keep_days is not None and (
                status[segment.path].st_mtime < time.time() - self._keep_days * _DAY
            )
            is_much = self._keep_bytes is not None and size > self._keep_bytes
            if not (is_old or is_much):
                break
            reason = f"older than {self._keep_days:g} days" if is_old else f"more than {self._keep_bytes} bytes"
            remove(chain, segment, reason)
            size -= status[segment.path].st_size
            logger.info("removed segment %d of the record's chain %d: %s", segment.number, chain.number, reason)


def remove(chain: Chain, segment: Segment, reason: str) -> None:
    """Remove a chain's first segment; where the chain begins then is safe before the segment is gone.

    Raises
    ------
    OSError
    """
    following = next(other for other in chain.segments() if other.number > segment.number)
    link = read(next(following.lines(), b"").rstrip(b"\n"))
    if link is None:
        raise OSError(f"segment {following.number} of chain {chain.number} is damaged, so the one before it stays")
    removed = datetime.now(UTC).isoformat(timespec="seconds")
    anchor = Anchor(segment=segment.number, seq=link.seq - 1, sha256=link.prev, removed=removed, reason=reason)
    chain.set_anchor(anchor)
    for path in segment.path.parent.glob(f"{segment.number:08d}*"):  # packed and plain, and a torn tail kept beside it
        path.unlink()


def pack(segment: Segment, is_over: Callable[[], bool] = lambda: False) -> None:
    """Pack a full segment with zstd; it is there all the time, plain or packed.

    Raises
    ------
    OSError
    """
    import pyarrow as pa

    target = segment.path.with_name(f"{segment.path.name}.zst")
    part = target.with_name(f"{target.name}.part")
    status = segment.path.stat()
    try:
        os.close(os.open(part, os.O_CREAT | os.O_WRONLY, 0o600))
        with pa.CompressedOutputStream(str(part), "zstd") as packed:
            for chunk in segment.chunks():
                if is_over():
                    return
                packed.write(chunk)
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.utime(part, (status.st_atime, status.st_mtime))  # its age is that of its last record
        part.replace(target)
        folders.sync_folder(target.parent)
        segment.path.unlink()
    finally:
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
