"""The worker's end of its shadow's process: how it is started, told, listened to and ended."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable

from fin_pyfunc.model.errors import BackendError
from fin_pyfunc.serving.motion.shadow.messages import Frames, Opening, Ready, Refused, Report, ToWorker, framed

#: Bytes that the kernel keeps of what the shadow has not read yet, if it lets us.
PIPE_BYTES = 1 << 20
#: Seconds that the model may take to open; a machine that is busy gives the process little of its time.
START_SECONDS = 300.0
#: Seconds that its code is waited for, once it has let go of the pipe.
END_SECONDS = 0.5


class ShadowProcess:
    """One process that scores for one model; another model's is another process.

    Parameters
    ----------
    on_report : callable
        Called with each report, on the event loop.
    on_end : callable
        Called with why, once the process has ended without having been told to.
    """

    def __init__(self, on_report: Callable[[Report], None], on_end: Callable[[str], None]) -> None:
        self._on_report, self._on_end = on_report, on_end
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe: asyncio.WriteTransport | None = None
        self._listening: asyncio.ReadTransport | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def start(self, opening: Opening) -> None:
        """Start it, on the thread whose end would end it, and wait until its model is open.

        Raises
        ------
        BackendError
            The process cannot be started, or its model not be opened in it.
        """
        loop = asyncio.get_running_loop()
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        try:
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(ours_out, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            self._pipe, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(ours_out, "wb", 0))
            self._listening, _ = await loop.connect_read_pipe(lambda: _Listener(self), os.fdopen(ours_in, "rb", 0))
            module = __name__.rpartition(".")[0]
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs_in), str(theirs_out)],
                pass_fds=(theirs_in, theirs_out),
                stdin=subprocess.DEVNULL,
                env=_environ(),
            )
        except OSError as e:
            self.kill()
            raise BackendError(f"the shadow's process could not be started ({e.strerror})") from None
        finally:
            os.close(theirs_in)
            os.close(theirs_out)
        self.send(framed(opening))
        try:
            await asyncio.wait_for(asyncio.shield(self._ready), START_SECONDS)
        except TimeoutError:
            raise BackendError(f"the shadow's model was not open within {START_SECONDS:g} s") from None
        finally:
            if not self._ready.done() or self._ready.cancelled() or self._ready.exception() is not None:
                self.kill()

    def send(self, message: bytes) -> None:
        """Say something, without waiting until it is read."""
        if self._pipe is not None and not self._pipe.is_closing():
            self._pipe.write(message)

    def kill(self) -> None:
        """End it at once; it has nothing that could be lost."""
        process, self._process = self._process, None
        for transport in (self._pipe, self._listening):
            if transport is not None:
                transport.abort() if isinstance(transport, asyncio.WriteTransport) else transport.close()
        if process is not None:
            process.kill()
            # what is large takes a while to end, which no answer should wait for
            threading.Thread(target=process.wait, name="shadow-end", daemon=True).start()
        if not self._ready.done():
            self._ready.cancel()

    def heard(self, message: ToWorker) -> None:
        """Called by the listener with what the process says."""
        if isinstance(message, Report):
            self._on_report(message)
        elif not self._ready.done():
            if isinstance(message, Ready):
                self._ready.set_result(None)
            elif isinstance(message, Refused):
                self._ready.set_exception(BackendError(message.problem))

    def ended(self) -> None:
        """Called by the listener once the process's end of the pipe is closed."""
        if self._process is None:
            return
        code = None
        with contextlib.suppress(subprocess.TimeoutExpired):  # the pipe is closed a moment before there is a code
            code = self._process.wait(END_SECONDS)
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit status {code})"
        why = f"its process ended{how}"
        if self._ready.done():
            self.kill()
            self._on_end(why)
        else:
            self._ready.set_exception(BackendError(f"{why} before its model was open"))


class _Listener(asyncio.Protocol):
    def __init__(self, process: ShadowProcess) -> None:
        self._process, self._frames = process, Frames[ToWorker](ToWorker)

    def data_received(self, data: bytes) -> None:
        for message in self._frames.feed(data):
            self._process.heard(message)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the end is the end
        self._process.ended()


def _environ() -> dict[str, str]:
    """As here, with all that is imported from here, and one thread a library: the other processors are the answers'."""
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
