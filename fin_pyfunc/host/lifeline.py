"""How the fork server knows that the last process of its server has ended, whatever ended it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import weakref
from pathlib import Path


class Lifeline:
    """A pipe that all processes of one server hold open, and the private folder that they share.

    Made before the processes fork. The kernel closes the write end of a process that ends, even by SIGKILL; the fork
    server, which holds the read end alone, ends when no process has the write end any more. Neither end is passed on to
    programs that are started from here.

    Parameters
    ----------
    parent : Path, optional
        Where to make the folder; default the folder for temporary files.

    Attributes
    ----------
    folder : Path
        Mode 0700.
    read_end : int
        File descriptor for the fork server.
    secret : bytes
        What the fork server is asked with. It knows the digest alone, so that no model host, whose memory is a copy of
        its own, can ask it for anything.
    """

    def __init__(self, parent: Path | None = None) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fin_pyfunc-hosts-", dir=parent))
        self.read_end, write_end = os.pipe()
        self.secret = os.urandom(32)
        self._close = weakref.finalize(self, _close, os.getpid(), self.folder, self.read_end, write_end)

    def close(self) -> None:
        """Let go of it; whoever made it removes the folder, too."""
        self._close()


def _close(owner: int, folder: Path, *ends: int) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            os.close(end)
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
