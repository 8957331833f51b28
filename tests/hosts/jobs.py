"""What the tests run in children of the fork server."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import re
import socket
import sys
import time
from pathlib import Path


def describe(folder: Path) -> None:
    """Leave what a child can see of itself."""
    seen = {
        "environ": dict(os.environ),
        "environ_at_start": Path("/proc/self/environ").read_text().split("\0"),
        "cwd": str(Path.cwd()),
        "fds": _open_files(),
        "status": dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines()),
        "limits": Path("/proc/self/limits").read_text(),
        "path": sys.path,
        "umask": os.umask(0),
    }
    (folder / "seen.json").write_text(json.dumps(seen))


def _open_files() -> dict[str, str]:
    found = {}
    for fd in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found[fd] = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115
    return found


def sleep(folder: Path) -> None:
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(600)


def hold_the_interpreter(folder: Path) -> None:
    """Stay in C code that never lets another thread of Python run."""
    (folder / "pid").write_text(str(os.getpid()))
    re.match(r"(a*)*b", "a" * 60)


def crash(_: Path) -> None:
    ctypes.string_at(0)


def fill_memory(folder: Path) -> None:
    (folder / "began").touch()
    held = []
    while True:
        held.append(bytearray(16 << 20))


def leave_a_process_behind(folder: Path) -> None:
    if not os.fork():
        (folder / "pid").write_text(str(os.getpid()))
        time.sleep(600)


def write_word(folder: Path) -> None:
    (folder / "word").write_text("done")


def send_on_any_socket(folder: Path) -> None:
    """Whether a listening socket came along."""
    found = []
    for fd in map(int, os.listdir("/proc/self/fd")):  # noqa: PTH208
        try:
            with socket.socket(fileno=os.dup(fd)) as sock:
                found.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
        except OSError:
            continue
    (folder / "sockets").write_text(json.dumps(found))
