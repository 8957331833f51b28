"""What all workers of a server share: a little memory, made before the fork, that each reads for next to nothing."""

from __future__ import annotations

import fcntl
import mmap
import os
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fin_pyfunc.model.errors import FinPyfuncError

#: The most bytes that can be shared; what nobody writes takes no memory.
CAPACITY = 1 << 20
_PAGE = 4096
_LENGTH = 8


class BoardFullError(FinPyfuncError):
    """More was to be shared than there is room for."""


class Board:
    """A text that any worker changes, one at a time, and a number that tells the others that it has changed.

    The text is kept twice and the number says which is meant, so that a worker killed while it writes changes nothing.
    The lock is the kernel's, which a killed worker leaves unlocked.

    Parameters
    ----------
    path : Path, optional
        A file of the server's own, made if need be; default one without a name, for the processes that this one forks.

    Attributes
    ----------
    generation : memoryview of one integer
        ``generation[0]`` grows by one with each change, in all workers at once.
    """

    def __init__(self, path: Path | None = None) -> None:
        self._handle = _nameless_file() if path is None else os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        os.ftruncate(self._handle, _PAGE + 2 * CAPACITY)
        self._memory = mmap.mmap(self._handle, _PAGE + 2 * CAPACITY)
        self.generation = memoryview(self._memory)[:8].cast("Q")
        self._lock = threading.Lock()  # the kernel's does not keep threads of one process apart

    def read(self) -> tuple[int, bytes]:
        """The generation and its text; empty before the first change."""
        with self._locked(fcntl.LOCK_SH):
            return self.generation[0], self._text()

    def change(self, to: Callable[[bytes], bytes]) -> None:
        """Put another text in the place of the one there is; nothing happens where it is the same.

        Parameters
        ----------
        to : callable
            The text as it is to the text as it is to be.

        Raises
        ------
        BoardFullError
        """
        with self._locked(fcntl.LOCK_EX):
            before = self._text()
            text = to(before)
            if text == before:
                return
            if len(text) > CAPACITY - _LENGTH:
                raise BoardFullError("Too much is stopped at once for the workers to share: start something again.")
            after = self.generation[0] + 1
            place = _place(after)
            self._memory[place : place + _LENGTH + len(text)] = len(text).to_bytes(_LENGTH, "little") + text
            self.generation[0] = after

    def _text(self) -> bytes:
        place = _place(self.generation[0])
        length = int.from_bytes(self._memory[place : place + _LENGTH], "little")
        return self._memory[place + _LENGTH : place + _LENGTH + length]

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        with self._lock:
            fcntl.lockf(self._handle, how)
            try:
                yield
            finally:
                fcntl.lockf(self._handle, fcntl.LOCK_UN)


def _place(generation: int) -> int:
    return _PAGE + (generation % 2) * CAPACITY


def _nameless_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fin_pyfunc")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
