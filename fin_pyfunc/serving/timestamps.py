"""A time as logs and records have it: UTC, ISO 8601, to the microsecond."""

from __future__ import annotations

import time
from functools import lru_cache


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as text, such as ``2026-11-25T01:15:37.640755Z``."""
    whole = int(seconds)
    return f"{_to_the_second(whole)}.{int((seconds - whole) * 1e6):06d}Z"


@lru_cache(maxsize=16)
def _to_the_second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
