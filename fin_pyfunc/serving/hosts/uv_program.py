"""The program ``uv``: where it is, and one run of it."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

#: Characters of uv's message that one line of the log holds: the last, where uv comes to what it concludes.
_LOGGED_CHARACTERS = 500

logger = logging.getLogger("fin_pyfunc.server")


class UvError(Exception):
    """uv ended with an error, which is in the log."""


def find_uv() -> str | None:
    """The program of the Python package ``uv``, else one on the PATH; None if there is neither."""
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        return shutil.which("uv")


def run_uv(
    program: str, arguments: Sequence[str], folder: Path, timeout_seconds: float, pass_fds: Collection[int] = ()
) -> None:
    """Run uv until it ends.

    Parameters
    ----------
    program : str
        As `find_uv` finds it.
    arguments : sequence of str
    folder : Path
        To run in.
    timeout_seconds : float
        After which it is killed.
    pass_fds : collection of int
        File descriptors that it keeps open.

    Raises
    ------
    UvError
        It said in the log, in one line, what went wrong; at level debug, all of it.
    TimeoutError
    """
    process = subprocess.Popen(
        [program, "--no-progress", "--color", "never", *arguments],
        cwd=folder,
        # uv's own settings and those of the network stay: they say which index, which proxy, which certificates
        env={
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PYTHON", "VIRTUAL_ENV", "CONDA_")) and name != "UV_QUIET"
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
        pass_fds=tuple(pass_fds),
    )
    try:
        _, said = process.communicate(timeout=max(timeout_seconds, 0.0))
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise TimeoutError from None
    if process.returncode:
        text = re.sub(r"//[^\s/@]*@", "//", said.decode("utf-8", "replace"))  # without an index's password
        logger.debug("uv ended with status %d:\n%s", process.returncode, text)
        line = " ".join(re.sub(r"^Using Python .*$|[×╰─▶│├]|^error:", " ", text, flags=re.MULTILINE).split())
        logger.warning("uv could not go on: %s", line[-_LOGGED_CHARACTERS:])
        raise UvError
