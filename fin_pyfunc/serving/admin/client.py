"""Find a server's admin socket and send it a request, as `fin-pyfunc models stop` does."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.admin.listener import is_listened_on
from fin_pyfunc.serving.admin.socket_path import default_folders, is_private


class NoServerError(FinPyfuncError):
    """There is no admin socket to send to, or more than one."""


class AdminConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket.

    Parameters
    ----------
    path : Path
    timeout : float
        Seconds to wait for each answer.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path, self._seconds = path, timeout

    def connect(self) -> None:
        """Connect to the socket in place of a host."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._seconds)
        self.sock.connect(os.fspath(self._path))


def find_socket(port: int | None) -> Path:
    """Return the socket of a server that this user runs on this machine.

    Parameters
    ----------
    port : int or None
        The server's TCP port; None if this user runs only one.

    Raises
    ------
    NoServerError
    """
    found = dict(_listening())
    if port is None and len(found) == 1:
        return found.popitem()[1]
    if port in found:
        return found[port]
    if port is None and found:
        ports = ", ".join(map(str, sorted(found)))
        raise NoServerError(f"This user runs several servers here (ports {ports}): choose one with --port.")
    on_port = "" if port is None else f" on port {port}"
    raise NoServerError(
        f"No server of this user has an admin socket{on_port} on this machine: run this as the user that runs the "
        "server (in a container, within it), or name the socket with --socket, or the server with --server."
    )


def _listening() -> Iterator[tuple[int, Path]]:
    """Ports and their sockets, of the preferred folder last."""
    for folder in reversed(default_folders()):
        for path in folder.glob("*.sock") if is_private(folder) else ():
            with contextlib.suppress(OSError):  # another user's
                if path.stem.isdigit() and is_listened_on(path):
                    yield int(path.stem), path
