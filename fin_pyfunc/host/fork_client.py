"""The fork server as the other processes of a server see it: found or started, and asked."""

from __future__ import annotations

import fcntl
import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import msgspec
from msgspec.msgpack import Decoder

from fin_pyfunc.host.fork_server import PRELOAD
from fin_pyfunc.host.lifeline import Lifeline
from fin_pyfunc.host.messages import Finished, Run, Start, receive, send

_SOCKET, _LOCK = "socket", "lock"
#: Sets the path that modules are found by, which ``python -I`` would leave to the installation.
_BOOT = "import sys; sys.path[:] = sys.argv[2:]; from fin_pyfunc.host.fork_server import main; main(sys.argv[1])"
#: Libraries that start threads when they are imported are told not to: a process that forks must have one alone.
_NO_THREADS = {
    "OPENBLAS_NUM_THREADS": "1",
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}
#: Unless the operator says otherwise. The threads of OpenMP and OpenBLAS would go on spinning after a call, on the
#: processor that whoever waits for the answer needs: 2 to 70 ms instead of 0.8 for a row of k-nearest neighbours on two
#: busy processors.
_DEFAULTS = {"OMP_WAIT_POLICY": "PASSIVE", "OPENBLAS_THREAD_TIMEOUT": "4"}
_BLAS = "OPENBLAS_NUM_THREADS"
_FINISHED = Decoder(Finished)


def is_supported() -> bool:
    """Whether this system has what the fork server and its children need: Linux 5.3 or later."""
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError):
        return False
    return True


class ForkServerError(OSError):
    """The fork server cannot be started, or ended while it was asked."""


class ForkClient:
    """Asks the fork server that all holders of a lifeline share, and starts it if there is none. Safe for threads.

    Parameters
    ----------
    lifeline : Lifeline
    environment : mapping of str to str
        The fork server's and its children's: all of `os.environ`, or `reduced` to what a confined process may know.
    preload : sequence of str, default `PRELOAD`
        Modules the fork server imports before it forks.
    """

    def __init__(self, lifeline: Lifeline, environment: Mapping[str, str], preload: Sequence[str] = PRELOAD) -> None:
        self._lifeline, self._environment, self._preload = lifeline, dict(environment), tuple(preload)
        # as this process finds modules now, before anything else is on it
        self._path = [os.path.abspath(entry) for entry in sys.path]  # noqa: PTH100 - "" is the working folder
        self._lock = threading.Lock()

    def start(self) -> None:
        """Have it import what it needs already; does not wait for that."""
        self.connect().close()

    def connect(self) -> socket.socket:
        """Open a connection, for one request.

        Raises
        ------
        ForkServerError
        """
        try:
            with self._lock, (self._lifeline.folder / _LOCK).open("a") as lock:
                if (connection := self._connected()) is not None:
                    return connection
                fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
                if (connection := self._connected()) is None:
                    self._start()
                    connection = self._connected()
        except OSError as e:
            raise ForkServerError(f"the fork server cannot be started ({type(e).__name__})") from e
        if connection is None:
            raise ForkServerError("the fork server ended as soon as it was started")
        return connection

    def run(self, run: Run) -> Finished:
        """Run a job in a child, and wait for its end.

        Raises
        ------
        ForkServerError
            The fork server has ended; the job with it.
        """
        with self.connect() as connection:
            try:
                send(connection, run)
                received = receive(connection, _FINISHED)
            except OSError as e:
                raise ForkServerError("the fork server ended while a job ran") from e
        if received is None:
            raise ForkServerError("the fork server ended while a job ran")
        return received[0]

    def _connected(self) -> socket.socket | None:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with _short_name(self._lifeline) as name:
                connection.connect(name)
            connection.send(self._lifeline.secret)
        except OSError:
            connection.close()
            return None
        return connection

    def _start(self) -> None:
        """Start it on a socket that listens already, so that nobody has to wait until it is ready to ask."""
        with suppress(FileNotFoundError):
            (self._lifeline.folder / _SOCKET).unlink()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
            with _short_name(self._lifeline) as name:
                listener.bind(name)  # in a folder of mode 0700
            listener.listen(128)
            start = Start(
                listener=listener.fileno(),
                lifeline=self._lifeline.read_end,
                folder=str(self._lifeline.folder / "children"),
                preload=self._preload,
                secret_sha256=hashlib.sha256(self._lifeline.secret).hexdigest(),
                blas_threads=self._environment.get(_BLAS),
            )
            process = subprocess.Popen(
                [sys.executable, "-I", "-W", "ignore", "-c", _BOOT, msgspec.json.encode(start).decode(), *self._path],
                cwd=self._lifeline.folder,
                env={**_DEFAULTS, **self._environment, **_NO_THREADS},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(start.listener, start.lifeline),
                start_new_session=True,
            )
        threading.Thread(target=process.wait, name="fork-server", daemon=True).start()  # collects it


@contextmanager
def _short_name(lifeline: Lifeline) -> Iterator[str]:
    """The socket's path within the bounds that a Unix socket's has (108 bytes), however deep its folder lies."""
    folder = os.open(lifeline.folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{_SOCKET}"
    finally:
        os.close(folder)
