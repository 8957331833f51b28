"""When a process was at work, as the kernel counts its time: what others waited for meanwhile can be told apart."""

from __future__ import annotations

import os
import time
from bisect import bisect

from benchmarks.open_loop import Asked

#: Seconds after its work for which it counts as being at it: what it threw out of the caches is fetched again.
AFTER_SECONDS = 0.001


class AtWork:
    """Spans in which a process was at work, found by looking often.

    Parameters
    ----------
    pid : int
    """

    def __init__(self, pid: int) -> None:
        self._file = os.open(f"/proc/{pid}/schedstat", os.O_RDONLY)
        self._last = self._nanoseconds()
        self._looked = time.perf_counter()
        self._begins, self._ends = list[float](), list[float]()

    def look(self) -> None:
        """See whether it was since the last look; takes 2 µs."""
        ran, now = self._nanoseconds(), time.perf_counter()
        if ran != self._last:
            # the kernel counts a few milliseconds late; what it has counted since the last look may be from before it
            self._begins.append(self._looked - (ran - self._last) / 1e9)
            self._ends.append(now + AFTER_SECONDS)
        self._last, self._looked = ran, now

    def met(self, asked: Asked) -> bool:
        """Whether a request was under way while it was at work."""
        # spans are in turn: of those that begin before the answer came, the last ends last
        i = bisect(self._begins, asked.done) - 1
        return i >= 0 and self._ends[i] >= asked.due

    def seconds(self) -> float:
        """How long it was at work so far, since its start."""
        return self._last / 1e9

    def close(self) -> None:
        """Look no more."""
        os.close(self._file)

    def _nanoseconds(self) -> int:
        return int(os.pread(self._file, 64, 0).split()[0])
