"""Where a shadow's differences are written: a file of JSON lines that cannot grow without bound, or the log."""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

logger = logging.getLogger("fin_pyfunc.server")

#: Differences of one batch that are told in the log, where there is no file; the others are counted.
LOGGED = 10


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One row that two models differ on; no features.

    Parameters
    ----------
    time : str
        ISO 8601, UTC, when it was found.
    request_id : str
        As the answer's `X-Request-ID`.
    row : int
        In the request.
    model_id, shadow_id : str
    prediction, shadow_prediction : label
    probabilities, shadow_probabilities : dict of str to float, or None
    """

    time: str
    request_id: str
    row: int
    model_id: str
    shadow_id: str
    prediction: Any
    shadow_prediction: Any
    probabilities: dict[str, float] | None
    shadow_probabilities: dict[str, float] | None


class Differences:
    """Writes differences.

    Parameters
    ----------
    path : Path or None
        Appended to, by all workers; None for the log.
    max_bytes : int
        A file that would grow beyond takes the name with ``.1`` at its end, from the one before it, which is lost.
    """

    def __init__(self, path: Path | None, max_bytes: int) -> None:
        self._path, self._max_bytes = path, max_bytes
        self._has_failed = False

    def write(self, differences: Iterable[Difference]) -> None:
        """Write them all; a disk that refuses is said once, and costs no answer."""
        if self._path is None:
            for difference in islice(differences, LOGGED):
                logger.info("the shadow differs: %s", msgspec.json.encode(difference).decode())
            return
        lines = b"".join(msgspec.json.encode(difference) + b"\n" for difference in differences)
        if not lines:
            return
        try:
            self._append(self._path, lines)
            self._has_failed = False
        except OSError as e:
            if not self._has_failed:
                logger.error("the shadow's differences cannot be written (%s)", e.strerror)
            self._has_failed = True

    def _append(self, path: Path, lines: bytes) -> None:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)  # the file itself may be another one by the time it is locked
            if path.exists() and path.stat().st_size + len(lines) > self._max_bytes:
                path.replace(path.with_name(path.name + ".1"))
            with open(path, "ab", opener=_private) as file:
                file.write(lines)
        finally:
            os.close(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
