"""Children of the fork server: how one is forked, watched and cleared away."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from fin_pyfunc.host.confinement import become_new, confine, end_with, keep_only

#: Exit code of a child that ran out of memory.
OUT_OF_MEMORY = 77


class Child:
    """A process that was forked from this one.

    Parameters
    ----------
    pid : int
    folder : Path
        Its working folder, which goes when it has ended.
    """

    def __init__(self, pid: int, folder: Path) -> None:
        self.pid, self.folder = pid, folder
        self._pidfd = os.pidfd_open(pid)

    def when_ended(self, then: Callable[[int], None]) -> None:
        """Call a function once it has ended and was collected, with its exit code (negative: a signal)."""
        asyncio.get_running_loop().add_reader(self._pidfd, self._collect, then)

    def kill(self) -> None:
        """Kill it, and whatever it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _collect(self, then: Callable[[int], None]) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        self.kill()  # before its id is free for another process
        _, status = os.waitpid(self.pid, 0)
        os.close(self._pidfd)
        then(os.waitstatus_to_exitcode(status))


class Nursery:
    """Forks children. The process must have one thread.

    Parameters
    ----------
    folder : Path
        Where their working folders are made.
    blas_threads : str or None
        ``OPENBLAS_NUM_THREADS`` of the children.
    """

    def __init__(self, folder: Path, blas_threads: str | None) -> None:
        self._folder, self._blas_threads = folder, blas_threads

    def fork(
        self,
        work: Callable[[Path, list[int]], None],
        fds: Sequence[int] = (),
        memory_bytes: int | None = None,
        is_confined: bool = True,
        folder: Path | None = None,
    ) -> Child:
        """Fork a child.

        Parameters
        ----------
        work : callable
            (working folder, file descriptors) -> None; its return ends the child with exit code 0, an exception with 1,
            and a MemoryError with `OUT_OF_MEMORY`.
        fds : sequence of int, default ()
            What the child keeps open besides standard input, output and error, which lead nowhere.
        memory_bytes : int or None, default None
            As `confine` takes it.
        is_confined : bool, default True
        folder : Path, optional
            Its working folder; default a new one.
        """
        folder, parent = folder or Path(tempfile.mkdtemp(dir=self._folder)), os.getpid()
        pid = os.fork()
        if pid:
            return Child(pid, folder)
        code = 1
        try:
            end_with(parent)
            kept = keep_only(fds)
            become_new(self._blas_threads)
            if is_confined:
                confine(folder, memory_bytes)
            work(folder, kept)
            code = 0
        except MemoryError:
            code = OUT_OF_MEMORY
        finally:
            os._exit(code)

    def clear(self, folder: Path) -> None:
        """Remove an ended child's working folder, which may hold any number of files, in a child."""
        self.fork(_remove, is_confined=False, folder=folder).when_ended(lambda _: None)


def _remove(folder: Path, _: list[int]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
