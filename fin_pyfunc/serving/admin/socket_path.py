"""Where admin sockets lie: in folders that only their owner can enter."""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path

from fin_pyfunc.model.errors import FinPyfuncError

#: The setting's value for a socket at a well-known place, which `fin-pyfunc models` finds by the port.
AUTO = "auto"
#: Most bytes of a socket's path (``sun_path`` without its NUL, unix(7)).
MAX_BYTES = 107 if sys.platform == "linux" else 103


class AdminSocketError(FinPyfuncError):
    """An admin socket cannot be made where it is wanted."""


def default_folders() -> list[Path]:
    """List the folders for sockets of this user, the preferred one first; none has to exist.

    A server and the command that looks for it may differ in ``XDG_RUNTIME_DIR`` and ``TMPDIR``, so the usual temporary
    folders are always among them.
    """
    folders = []
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and is_private(Path(runtime)):
        folders.append(Path(runtime, "fin-pyfunc"))
    try:
        temporary = [tempfile.gettempdir()]
    except FileNotFoundError:  # nothing can be written to
        temporary = []
    folders += [Path(folder, f"fin-pyfunc-{os.geteuid()}") for folder in (*temporary, "/tmp", "/dev/shm")]  # noqa: S108 - as 0700
    return list(dict.fromkeys(folders))


def socket_name(port: int) -> str:
    """Return the name of a server's socket within a default folder."""
    return f"{port}.sock"


def is_private(folder: Path) -> bool:
    """Whether this is a folder, and no link to one, that belongs to this user and that nobody else can enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077


def prepare(path: Path) -> None:
    """Check a socket's path, and make its folder if there is none.

    Raises
    ------
    AdminSocketError
        The path is too long, or its folder cannot be made or can be entered by others.
    """
    length = len(os.fsencode(path))
    if length > MAX_BYTES:
        raise AdminSocketError(
            f"The path of the admin socket has {length} bytes, and a socket's may have {MAX_BYTES}: set "
            "deployment.api.admin.socket to a shorter one."
        )
    folder = path.parent
    try:
        folder.mkdir(mode=0o700)
    except FileExistsError:
        pass
    except OSError as e:
        raise AdminSocketError(
            f"The folder {folder} of the admin socket cannot be made ({e.strerror}): set deployment.api.admin.socket "
            "to a path in another one."
        ) from e
    if not is_private(folder):
        raise AdminSocketError(
            f"The folder {folder} of the admin socket must belong to the server's user and nobody else may enter it: "
            "run 'chmod 700' on it, or set deployment.api.admin.socket to a path in another one."
        )
