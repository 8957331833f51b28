"""Looking at processes in tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import psutil


def wait_for(condition: Callable[[], object], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def read_pid(file: Path) -> int:
    wait_for(lambda: file.is_file() and file.read_text())
    return int(file.read_text())


def fork_server_of(folder: Path) -> int:
    """The fork server whose socket lies in a lifeline's folder."""
    found = [p.pid for p in psutil.process_iter(["cmdline"]) if _is_server(p.info["cmdline"], folder)]
    servers = [pid for pid in found if psutil.Process(pid).ppid() not in found]
    assert len(servers) == 1
    return servers[0]


def _is_server(command: list[str] | None, folder: Path) -> bool:
    return any("fork_server" in word for word in command or ()) and any(str(folder) in word for word in command or ())
