"""When a call is tried again, and after how long."""

from __future__ import annotations

import random
from dataclasses import dataclass

#: Answers that say that nothing was done.
STATUSES = frozenset({429, 503})


@dataclass(frozen=True)
class Retry:
    """Exponential back-off with full jitter, for failures after which nothing was done.

    Those are: no connection could be made, 429, and 503. A connection that broke while an answer was awaited is not one
    of them: the server may have predicted, and recorded, already.

    Parameters
    ----------
    attempts : int, default 4
        Tries in all; 1 for none again.
    base : float, default 0.1
        Seconds; before try n + 1 a random time up to ``base * 2**(n - 1)`` passes (Brooker, "Exponential Backoff and
        Jitter", AWS Architecture Blog, 2015).
    longest : float, default 10
        Seconds; a `Retry-After` beyond it ends the tries, for the caller to decide.
    """

    attempts: int = 4
    base: float = 0.1
    longest: float = 10.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or self.base < 0 or self.longest < 0:
            raise ValueError("a Retry takes attempts of at least 1, and base and longest of at least 0 seconds.")

    def delay(self, tried: int, retry_after: float | None = None) -> float | None:
        """Seconds to wait before the next try; None where there is none.

        Parameters
        ----------
        tried : int
            Tries so far.
        retry_after : float, optional
            What the server asked for.
        """
        if tried >= self.attempts or (retry_after or 0) > self.longest:
            return None
        backed_off = random.uniform(0, min(self.longest, self.base * 2 ** (tried - 1)))  # noqa: S311 - no secret
        return backed_off + (retry_after or 0)
