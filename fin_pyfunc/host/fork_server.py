"""A small process that has imported the heavy libraries, runs no code of a model, and forks children that do.

Started by `ForkClient` with ``python -I``. A child is there within some milliseconds, and shares the memory of its
imports with all others. It ends when the last process of its server has (see `Lifeline`), and its children end with it.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import hmac
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from pathlib import Path

import msgspec
from msgspec.msgpack import Decoder

from fin_pyfunc.host.children import Nursery
from fin_pyfunc.host.host_table import HostTable
from fin_pyfunc.host.messages import Finished, Open, Run, Start, receive, send

#: What a model host, or a job, imports anyway.
PRELOAD = (
    "cloudpickle", "joblib", "mlflow.pyfunc.scoring_server", "mlflow.sklearn", "pandas", "pyarrow", "scipy.stats",
    "skops.io", "sklearn.calibration", "sklearn.ensemble", "sklearn.linear_model", "sklearn.neighbors",
    "sklearn.neural_network", "sklearn.pipeline", "sklearn.preprocessing", "sklearn.svm", "sklearn.tree",
    "threadpoolctl", "fin_pyfunc.host.program", "fin_pyfunc.model.wrapper",
)  # fmt: skip
#: What starts threads when it is imported, whose locks a child would find held for ever: MLflow imports it where it is
#: installed, for the datasets of its runs.
_STARTS_THREADS = ("polars",)
#: What the converters of a job import, too.
CONVERTERS = ("fin_pyfunc.compiling.forms", "fin_pyfunc.compiling.job", "onnx", "skl2onnx", "treelite")

_REQUESTS: Decoder[Open | Run] = Decoder(Open | Run)


class ForkServer:
    """Takes requests on a Unix socket, one a connection.

    Parameters
    ----------
    start : Start
    """

    def __init__(self, start: Start) -> None:
        self._start = start
        self._nursery = Nursery(Path(start.folder), start.blas_threads)
        self._hosts = HostTable(self._nursery)

    async def serve(self) -> None:
        """Serve until the lifeline has ended."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        listener = socket.socket(fileno=self._start.listener)
        loop.add_reader(self._start.lifeline, ended.set)
        loop.add_reader(listener, self._accept, listener)
        await ended.wait()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            connection, _ = listener.accept()
            asyncio.get_running_loop().add_reader(connection, self._know, connection)

    def _know(self, connection: socket.socket) -> None:
        """Listen to a connection only if it begins with the secret, which processes of models do not have."""
        loop, sent = asyncio.get_running_loop(), bytearray(64)
        loop.remove_reader(connection)
        n = 0
        with suppress(OSError):
            n = connection.recv_into(sent)
        found = hashlib.sha256(memoryview(sent)[:n]).hexdigest()
        sent[:] = bytes(len(sent))  # children are copies of this memory
        if hmac.compare_digest(found, self._start.secret_sha256):
            loop.add_reader(connection, self._hear, connection)
        else:
            connection.close()

    def _hear(self, connection: socket.socket) -> None:
        """The first message on a connection."""
        asyncio.get_running_loop().remove_reader(connection)
        received = None
        with suppress(OSError):
            received = receive(connection, _REQUESTS, 1)
        if received is None:
            connection.close()
            return
        request, fds = received
        if isinstance(request, Run):
            _Job(self._nursery, connection, request)
        elif fds:
            self._hosts.lease(connection, request, fds[0])


class _Job:
    """A job under way, and the connection of who waits for it."""

    def __init__(self, nursery: Nursery, connection: socket.socket, run: Run) -> None:
        self._nursery, self._connection = nursery, connection
        self._child = nursery.fork(partial(_do, run), (), run.memory_bytes, run.is_confined)
        self._child.when_ended(self._ended)
        self._is_late = False
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(run.seconds, self._end_late)
        loop.add_reader(connection, self._child.kill)  # nobody waits any more

    def _end_late(self) -> None:
        self._is_late = True
        self._child.kill()

    def _ended(self, code: int) -> None:
        self._deadline.cancel()
        asyncio.get_running_loop().remove_reader(self._connection)
        with suppress(OSError):
            send(self._connection, Finished(code=code, is_late=self._is_late))
        self._connection.close()
        self._nursery.clear(self._child.folder)


def _do(run: Run, _folder: Path, _fds: list[int]) -> None:
    if run.path:
        sys.path[:] = run.path
    if run.cwd is not None:
        os.chdir(run.cwd)
    os.nice(run.nice)
    module, _, function = run.target.partition(":")
    work: Callable[[Path], None] = getattr(import_module(module), function)
    work(Path(run.folder))


def main(text: str) -> None:
    """Import, then serve; the argument is a `Start` as JSON, whose folder lies in the lifeline's."""
    start = msgspec.json.decode(text, type=Start)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    folder = Path(start.folder)
    shutil.rmtree(folder, ignore_errors=True)  # of one before this that was killed
    folder.mkdir()
    missing = [name for name in _STARTS_THREADS if name not in sys.modules]
    sys.modules.update(dict.fromkeys(missing))  # type: ignore[arg-type] # None: importing it raises ImportError
    for name in start.preload:
        import_module(name)
    for name in missing:  # a child may
        del sys.modules[name]
    gc.collect()
    gc.freeze()  # a collection in a child would touch all of it, and make it that child's own memory
    try:
        asyncio.run(ForkServer(start).serve())
    finally:
        shutil.rmtree(folder.parent, ignore_errors=True)
        if folder.parent.parent.name.startswith("fin_pyfunc-"):  # the server's, which could not be removed before this
            with suppress(OSError):
                folder.parent.parent.rmdir()
