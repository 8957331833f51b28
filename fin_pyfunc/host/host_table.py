"""The model hosts of one server: started when first leased, shared, started again when they die, ended when unused."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec.msgpack import Decoder

from fin_pyfunc.host.children import OUT_OF_MEMORY, Child, Nursery
from fin_pyfunc.host.messages import Connect, Ended, Kill, Open, Reason, Started, receive, send

#: Seconds that a host goes on for without a lease: a model that is opened again at once need not be read again.
LINGER_SECONDS = 2.0
#: A model whose host dies so often within so many seconds is taken out.
MAX_DEATHS, DEATH_SECONDS = 3, 60.0
#: Seconds until a model that was taken out is tried again; each time twice as many, up to the second number.
OUT_SECONDS, MAX_OUT_SECONDS = 30.0, 3600.0
_SPOKEN: Decoder[Connect | Kill] = Decoder(Connect | Kill)
_BOOT = "import sys; sys.path.insert(0, sys.argv.pop(1)); from fin_pyfunc.host.program import run_here; run_here()"


class HostTable:
    """All hosts, by the key of what they have open.

    Parameters
    ----------
    nursery : Nursery
    """

    def __init__(self, nursery: Nursery) -> None:
        self._nursery = nursery
        self._hosts: dict[str, _Host] = {}

    def lease(self, connection: socket.socket, wanted: Open, opening: int) -> None:
        """Let a connection hold the host of a key, for as long as it is open.

        Parameters
        ----------
        connection : socket
        wanted : Open
        opening : int
            Descriptor of a file with the `Opening`; closed with the lease.
        """
        host = self._hosts.get(wanted.key)
        if host is None:
            host = self._hosts[wanted.key] = _Host(self._nursery, wanted, self._forget)
        host.add(_Lease(connection, opening))

    def _forget(self, host: _Host) -> None:
        if self._hosts.get(host.key) is host:
            del self._hosts[host.key]


class _Lease:
    """Somebody who uses a host."""

    def __init__(self, connection: socket.socket, opening: int) -> None:
        self.connection, self.opening = connection, opening
        connection.setblocking(False)

    def tell(self, message: Started | Ended) -> None:
        """Say what became of the host; the lease of one who does not listen ends."""
        try:
            send(self.connection, message)
        except OSError:
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.connection)
        self.connection.close()
        os.close(self.opening)


class _Host:
    """One model's host, through all of its restarts.

    Parameters
    ----------
    nursery : Nursery
    wanted : Open
        As the first lease has it.
    forget : callable
        Called with it when it is over.
    """

    def __init__(self, nursery: Nursery, wanted: Open, forget: Callable[[_Host], None]) -> None:
        self._nursery, self._wanted, self._forget = nursery, wanted, forget
        self.key = wanted.key
        self._leases: list[_Lease] = []
        self._child: Child | None = None
        self._control: socket.socket | None = None
        self._generation, self._started_at = 0, 0.0
        #: whether the model has ever been open: one that never was is not tried again
        self._was_open = False
        self._why_killed: Reason | None = None
        self._deaths: list[float] = []
        #: how often it was taken out since it last lived for long
        self._outs = 0
        self._last_end: Ended | None = None
        self._next_start: asyncio.TimerHandle | None = None

    def add(self, lease: _Lease) -> None:
        self._leases.append(lease)
        asyncio.get_running_loop().add_reader(lease.connection, self._hear, lease)
        if self._child is not None:
            lease.tell(Started(generation=self._generation, pid=self._child.pid))
        elif self._last_end is not None and self._next_start is not None:
            left = max(0.0, self._next_start.when() - asyncio.get_running_loop().time())
            lease.tell(_uncounted(self._last_end, left))
        else:
            self._start()

    def _hear(self, lease: _Lease) -> None:
        received = None
        with suppress(OSError):
            received = receive(lease.connection, _SPOKEN, 1)
        if received is None:
            self._leases.remove(lease)
            lease.close()
            if not self._leases:
                asyncio.get_running_loop().call_later(LINGER_SECONDS, self._end_if_unused)
            return
        message, fds = received
        is_now = message.generation == self._generation and self._child is not None
        if isinstance(message, Kill) and is_now:
            self._kill(message.reason)
        elif isinstance(message, Connect) and is_now and fds and self._control is not None:
            with suppress(OSError):  # it is about to end, or has not opened its model and has many waiting
                socket.send_fds(self._control, [b"c"], fds, socket.MSG_NOSIGNAL)
        for fd in fds:
            os.close(fd)

    def _start(self) -> None:
        self._next_start, self._why_killed = None, None
        self._generation += 1
        self._started_at = time.monotonic()
        ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        python = self._wanted.python

        def work(folder: Path, fds: list[int]) -> None:
            if python is not None:
                _become(python, folder, fds)
            from fin_pyfunc.host.program import run

            run(folder, *fds)

        with its:
            fds = (its.fileno(), self._leases[0].opening)
            self._child = self._nursery.fork(work, fds, self._wanted.memory_bytes)
        self._control = ours
        asyncio.get_running_loop().add_reader(ours, self._hear_host)
        self._child.when_ended(self._ended)
        for lease in self._leases:
            lease.tell(Started(generation=self._generation, pid=self._child.pid))

    def _hear_host(self) -> None:
        """Whether the model is open."""
        assert self._control is not None  # noqa: S101 - for the type checker
        said = b""
        with suppress(OSError):
            said = self._control.recv(64)
        if said == b"ready":
            self._was_open = True
        elif said == b"refused" and self._was_open:
            self._kill("crashed")  # its files are damaged by now, or its machine's memory is full
        elif not said:
            asyncio.get_running_loop().remove_reader(self._control)

    def _kill(self, reason: Reason) -> None:
        if self._child is not None:
            self._why_killed = self._why_killed or reason
            self._child.kill()

    def _ended(self, code: int) -> None:
        assert self._child is not None and self._control is not None  # noqa: S101, PT018 - for the type checker
        asyncio.get_running_loop().remove_reader(self._control)
        self._control.close()
        self._nursery.clear(self._child.folder)
        self._child = self._control = None
        if not self._leases:
            self._forget(self)
            return
        # who asked it may have been quicker to have it killed than it was to end
        killed = self._why_killed if code == -signal.SIGKILL else None
        reason = "memory" if code == OUT_OF_MEMORY else killed or "crashed"
        retry, is_out = self._wait() if self._was_open else (None, False)
        end = Ended(
            generation=self._generation,
            reason=reason,
            code=code,
            retry_seconds=retry,
            is_out=is_out,
            is_counted=True,
        )
        self._last_end = end
        for i, lease in enumerate(self._leases):
            lease.tell(end if i == 0 else _uncounted(end, retry))
        if retry is not None:
            self._next_start = asyncio.get_running_loop().call_later(retry, self._start_if_used)
        else:
            self._forget(self)

    def _wait(self) -> tuple[float, bool]:
        """Seconds until it is started again, and whether the model is taken out until then."""
        now = time.monotonic()
        lived = now - self._started_at
        if lived > DEATH_SECONDS:
            self._outs = 0
        self._deaths = [*(died for died in self._deaths if died > now - DEATH_SECONDS), now]
        if len(self._deaths) < MAX_DEATHS and not self._outs:
            return float(len(self._deaths) - 1), False
        self._deaths.clear()
        wait = min(MAX_OUT_SECONDS, OUT_SECONDS * 2**self._outs)
        self._outs += 1
        return wait, True

    def _start_if_used(self) -> None:
        self._next_start = None
        if self._leases:
            self._start()

    def _end_if_unused(self) -> None:
        if not self._leases:
            self._forget(self)  # who comes now gets a new one
            self._kill("crashed")
            if self._next_start is not None:
                self._next_start.cancel()


def _become(python: str, folder: Path, fds: list[int]) -> None:
    """Be the program of a model host in another environment, with this package and nothing else of this one."""
    library = folder / "library"
    library.mkdir()
    (library / "fin_pyfunc").symlink_to(Path(sys.modules["fin_pyfunc"].__file__ or "").parent)
    for fd in fds:
        os.set_inheritable(fd, True)
    os.execve(python, [python, "-I", "-c", _BOOT, str(library), str(folder), *map(str, fds)], os.environ)


def _uncounted(end: Ended, retry_seconds: float | None) -> Ended:
    return Ended(
        generation=end.generation,
        reason=end.reason,
        code=end.code,
        retry_seconds=retry_seconds,
        is_out=end.is_out,
        is_counted=False,
    )
