"""A time as logs and records have it: UTC, ISO 8601, to the microsecond."""

from __future__ import annotations

import time
from functools import lru_cache

#: The numbers below a thousand as three digits: looked up, a time takes half as long as with six digits formatted.
_DIGITS = [f"{i:03d}" for i in range(1000)]


def timestamp(seconds: float) -> str:
    """Seconds since the epoch as text, such as ``2026-11-25T01:15:37.640755Z``."""
    whole, micros = divmod(int(seconds * 1e6), 1_000_000)
    return f"{_to_the_second(whole)}.{_DIGITS[micros // 1000]}{_DIGITS[micros % 1000]}Z"


@lru_cache(maxsize=16)
def _to_the_second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
