"""How much memory this process takes, and giving back what it does not use."""

from __future__ import annotations

import contextlib
import ctypes
import resource
import sys
from pathlib import Path

_STATM = Path("/proc/self/statm")
_PAGE = resource.getpagesize()
#: Parameters of `mallopt` (malloc.h of glibc).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
#: Bytes that are freed and may be kept at the end of a thread's heap; larger blocks come from the system, one by one.
KEPT_BYTES = 4 << 20


def resident_bytes() -> int:
    """Bytes of this process that are in memory now; where the system does not say, the most there ever were."""
    try:
        return int(_STATM.read_bytes().split()[1]) * _PAGE
    except OSError:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def keep_little() -> None:
    """Have the C library give what is freed back to the system, where it is glibc.

    By itself it raises these limits with each large block that is freed, up to 64 MiB for every thread that allocates,
    and `malloc_trim` leaves the end of a thread's heap alone.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
            mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES)


def release_arrow() -> None:
    """Give what Arrow has freed back to the system; its pool keeps that for the thread that calls this."""
    import pyarrow as pa

    pa.default_memory_pool().release_unused()
