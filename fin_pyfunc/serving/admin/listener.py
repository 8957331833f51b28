"""Listen on the admin socket: in the arbiter, for all workers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import msgspec

from fin_pyfunc.serving.admin.socket_path import AUTO, AdminSocketError, default_folders, prepare, socket_name

#: Connections that wait for a worker.
BACKLOG = 64
#: Seconds to find out whether somebody listens on a socket.
PROBE_SECONDS = 1.0


class AdminListener(msgspec.Struct, frozen=True):
    """A socket that is listened on, fit to be handed to the next program in this process.

    Parameters
    ----------
    descriptor : int
    path : str
    inode : int
        Of the path, so that nothing is removed that another server has put there since.
    """

    descriptor: int
    path: str
    inode: int

    def is_at(self, wanted: str | None, port: int) -> bool:
        """Whether this is the socket that a server with this setting and port wants, and is still in its place."""
        return Path(self.path) in _paths(wanted, port) and _inode(self.path) == self.inode

    def close(self) -> None:
        """Stop listening, and remove the socket."""
        os.close(self.descriptor)
        if _inode(self.path) == self.inode:
            with contextlib.suppress(OSError):
                Path(self.path).unlink()


def listen(wanted: str | None, port: int) -> AdminListener | None:
    """Listen where the setting says.

    Parameters
    ----------
    wanted : str or None
        `admin.socket`: a path, ``auto``, or None for no socket.
    port : int
        The TCP port that the server listens on.

    Returns
    -------
    AdminListener or None

    Raises
    ------
    AdminSocketError
        No socket can be made there, or another server listens on it.
    """
    problem: AdminSocketError | None = None
    for path in _paths(wanted, port):
        try:
            prepare(path)
        except AdminSocketError as e:
            problem = problem or e
            continue
        return _bind(path)
    if problem is not None:
        raise problem
    return None


def is_listened_on(path: Path) -> bool:
    """Whether a process accepts connections on a Unix socket.

    Raises
    ------
    OSError
        The socket may not be used by this user.
    """
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except (TimeoutError, BlockingIOError):  # its queue is full
            return True
        return True


def _paths(wanted: str | None, port: int) -> list[Path]:
    if wanted is None:
        return []
    if wanted == AUTO:
        return [folder / socket_name(port) for folder in default_folders()]
    return [Path(wanted)]


def _bind(path: Path) -> AdminListener:
    listening = socket.socket(socket.AF_UNIX)
    try:
        with _locked(path.parent):
            _remove_leftover(path)
            listening.bind(os.fspath(path))
            path.chmod(0o600)
            listening.listen(BACKLOG)
            return AdminListener(listening.detach(), os.fspath(path), path.lstat().st_ino)
    except OSError as e:
        raise AdminSocketError(
            f"The admin socket {path} cannot be listened on ({e.strerror or e}): set deployment.api.admin.socket to "
            "another path."
        ) from e
    finally:
        listening.close()  # nothing, once it is detached


def _remove_leftover(path: Path) -> None:
    """Remove the socket of a server that was killed; nothing else."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise AdminSocketError(
            f"There is a file at {path} that is no socket: remove it, or set deployment.api.admin.socket to another "
            "path."
        )
    if is_listened_on(path):
        raise AdminSocketError(
            f"Another server listens on the admin socket {path}: end it, or set deployment.api.admin.socket to another "
            "path for this one."
        )
    path.unlink()


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keep two servers that start at once from each removing the other's socket as a leftover."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _inode(path: str) -> int | None:
    try:
        return os.lstat(path).st_ino
    except OSError:
        return None
