"""What one arbiter hands to the next, and how that is tried out before."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import IO

import msgspec

from fin_pyfunc.serving.admin.listener import AdminListener

logger = logging.getLogger("fin_pyfunc.server")

#: Holds an `Estate` while the arbiter starts again within its own process.
ESTATE = "FIN_PYFUNC_ESTATE"
#: Set where a server is only to be tried out; holds what is listened on already.
TRIAL = "FIN_PYFUNC_TRIAL"
#: The last line of what a trial says that went well.
PASSED = "the trial passed"
#: The longest that a trial may take.
TRIAL_SECONDS = 600.0
#: Signals that wait while the arbiter starts again: each would end it, or be lost.
SIGNALS = (signal.SIGHUP, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD)
#: What a program that is started from here is to think of its environment.
_PRIVATE = (ESTATE, TRIAL)


class Estate(msgspec.Struct, kw_only=True, frozen=True):
    """What is handed on.

    Parameters
    ----------
    bind : str
        What is listened on, as gunicorn has it configured.
    listeners : list of int
        File descriptors of its sockets.
    workers : list of int
        Process ids of workers that go on until new ones are ready.
    drain_seconds : int
        What those get to finish, once they are asked to leave.
    folder : str
        Where everything that the processes of this server keep lies.
    admin : AdminListener, optional
        The admin socket.
    """

    bind: str
    listeners: list[int]
    workers: list[int]
    drain_seconds: int
    folder: str
    admin: AdminListener | None = None


def inherited() -> Estate | None:
    """What the arbiter before this one, in the same process, has left; None where this is the first."""
    text = os.environ.pop(ESTATE, None)
    return None if text is None else msgspec.json.decode(text, type=Estate)


def tried_beside() -> str | None:
    """What the server listens on beside which this one is only tried out; None where this one is to serve."""
    return os.environ.pop(TRIAL, None)


def command() -> list[str]:
    """What started this process, to be started again."""
    return [sys.executable, *sys.orig_argv[1:]]


def start_again(estate: Estate, environ: Mapping[str, str]) -> None:
    """Become a new program in the same process: same id, same children, same sockets, new code and configuration."""
    admin = [] if estate.admin is None else [estate.admin.descriptor]
    for descriptor in (*estate.listeners, *admin):
        os.set_inheritable(descriptor, True)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    left = {ESTATE: msgspec.json.encode(estate).decode()}
    hold_signals()  # kept by what comes, until it can take them
    try:
        os.execve(sys.executable, command(), {**_public(environ), **left})
    finally:  # only where that failed
        take_signals()


def hold_signals() -> None:
    """Let signals wait; a program or a process that is started from here begins so, too."""
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)


def take_signals() -> None:
    """Take the signals that came since `hold_signals`."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


class Trial:
    """The whole server, started beside this one by the same command, up to where it could answer.

    Parameters
    ----------
    bind : str
        What is listened on already.
    environ : mapping of str to str
        As this server was started with.
    """

    def __init__(self, bind: str, environ: Mapping[str, str]) -> None:
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed once it was read
        self._deadline = time.monotonic() + TRIAL_SECONDS
        self._process = subprocess.Popen(
            command(),
            env={**_public(environ), TRIAL: bind},
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )

    def is_over(self) -> bool:
        """Whether it has ended; one that takes too long is made to."""
        if self._process.poll() is not None:
            return True
        if time.monotonic() > self._deadline:
            self._process.kill()
        return False

    def refusal(self) -> str | None:
        """Why the server could not answer, in the words of the trial; None where it could.

        What counts is what it said: its exit status may have been collected by gunicorn, which waits for any child.
        """
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        self._output.close()
        if lines and lines[-1] == PASSED:
            return None
        return _reason(lines)

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._output.close()


def _reason(lines: Sequence[str]) -> str:
    """The line that says most: an error rather than whatever was said last."""
    for start in ("Error: ", "error: "):
        for line in reversed(lines):
            if start in line:
                return line[line.index(start) + len(start) :]
    return lines[-1] if lines else "the trial was ended before it could say anything"


def _public(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in _PRIVATE}
