"""What a child process of the fork server may do, and what its environment holds."""

from __future__ import annotations

import asyncio
import ctypes
import fcntl
import gc
import os
import random
import re
import resource
import signal
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

#: Names of the environment that a confined process gets, besides those that an operator lists.
ENVIRONMENT = re.compile(
    r"PATH|LANG|LC_\w+|TZ|(OMP|OPENBLAS|MKL|GOTO|BLIS)_\w+|LD_LIBRARY_PATH|CUDA_\w+|NVIDIA_\w+"
    r"|MLFLOW_ALLOW_PICKLE_DESERIALIZATION|FIN_PYFUNC_BACKEND|FIN_PYFUNC_TRUSTED_TYPES"
)
#: Most file descriptors of a confined process.
MAX_FILES = 1024
#: How much likelier than others the kernel is to kill it where the machine runs out of memory (-1000 to 1000).
_OOM_SCORE = 500
#: The first descriptor that a child keeps, after standard input, output and error.
FIRST_FD = 3
# prctl(2): linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_prctl = getattr(ctypes.CDLL(None, use_errno=True), "prctl", None)


def reduced(environ: Mapping[str, str], names: Iterable[str] = ()) -> dict[str, str]:
    """Only what a confined process may know of an environment.

    Parameters
    ----------
    environ : mapping of str to str
    names : iterable of str
        Further names that the operator allows.
    """
    listed = set(names)
    return {name: value for name, value in environ.items() if name in listed or ENVIRONMENT.fullmatch(name)}


def end_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends, whatever this process is doing then."""
    _call(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before that
        os._exit(1)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would hold rows
    os.setsid()  # the group is killed as one, and a terminal's signals do not reach it


def confine(folder: Path, memory_bytes: int | None) -> None:
    """Confine this process for good.

    Parameters
    ----------
    folder : Path
        Becomes its working folder, its home and its folder for temporary files.
    memory_bytes : int or None
        How much more memory than now it may take (RLIMIT_DATA: private memory it can write to); None is no limit.
    """
    _call(_PR_SET_NO_NEW_PRIVS, 1)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    if memory_bytes is not None:
        limit = _data_bytes() + memory_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE))
    os.umask(0o077)
    os.chdir(folder)
    os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
    tempfile.tempdir = None  # it was found before TMPDIR was set


def become_new(blas_threads: str | None) -> None:
    """Undo what the fork server is, so that this process is as one that was just started.

    Parameters
    ----------
    blas_threads : str or None
        ``OPENBLAS_NUM_THREADS`` as the operator has it; the fork server itself has no threads.
    """
    gc.freeze()  # an object of the fork server that is collected here could close a file descriptor of this process
    asyncio.set_event_loop(None)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    os.environ.pop("OPENBLAS_NUM_THREADS", None)
    if blas_threads is not None:
        os.environ["OPENBLAS_NUM_THREADS"] = blas_threads
    if "threadpoolctl" in sys.modules:
        known = blas_threads or os.environ.get("OMP_NUM_THREADS") or ""
        n_threads = int(known) if known.isdecimal() else len(os.sched_getaffinity(0))
        sys.modules["threadpoolctl"].threadpool_limits(n_threads, user_api="blas")


def keep_only(fds: Sequence[int]) -> list[int]:
    """Close every file descriptor but these, which become 3, 4, …; what is printed goes nowhere.

    Returns
    -------
    list of int
        The new numbers.
    """
    nothing = os.open(os.devnull, os.O_RDWR)
    for standard in range(FIRST_FD):
        os.dup2(nothing, standard)
    # first out of the way of the numbers that they are to get
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD + len(fds) + 1) for fd in fds]
    kept = [os.dup2(fd, FIRST_FD + i, inheritable=False) for i, fd in enumerate(moved)]
    os.closerange(FIRST_FD + len(kept), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    return kept


def _data_bytes() -> int:
    """Private memory that this process can write to, which RLIMIT_DATA counts."""
    found = re.search(r"^VmData:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    return 0 if found is None else 1024 * int(found[1])


def _call(option: int, value: int) -> None:
    if _prctl is None or _prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl failed: model hosts need Linux")
