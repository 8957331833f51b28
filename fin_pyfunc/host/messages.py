"""What clients, the fork server and model hosts tell each other: a msgspec struct a packet, with file descriptors."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Literal, TypeVar

import msgspec
from msgspec.msgpack import Decoder

#: Why a model host ended.
Reason = Literal["crashed", "hung", "memory"]
#: Longest packet; whatever can be longer travels in a file of which the packet carries the descriptor.
MAX_PACKET = 1 << 16
M = TypeVar("M")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What the fork server is started with, as JSON on its command line.

    Parameters
    ----------
    listener, lifeline : int
        File descriptors: the socket it listens on, and the read end of the pipe that says when to end.
    folder : str
        Private folder for its children's working folders.
    preload : tuple of str
        Modules to import before the first fork.
    secret_sha256 : str
        Digest (hexadecimal) of what every connection has to send first.
    blas_threads : str or None, default None
        ``OPENBLAS_NUM_THREADS`` of its children; the fork server itself is to have no threads.
    """

    listener: int
    lifeline: int
    folder: str
    preload: tuple[str, ...]
    secret_sha256: str
    blas_threads: str | None = None


class Run(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Run a function in a child, and wait for its end.

    Parameters
    ----------
    target : str
        ``module:function``, such as "fin_pyfunc.compiling.job:run"; called with `folder` as a Path.
    folder : str
        What the function reads, and where it leaves its outcome.
    seconds : float
        Time limit; the child is killed beyond.
    memory_bytes : int or None, default None
        Memory the child may take beyond what the fork server has; None is no limit.
    nice : int, default 0
        Added to its niceness.
    is_confined : bool, default True
        Apply `confinement`; otherwise the child only ends with the fork server, and writes no core file.
    path : tuple of str, default ()
        `sys.path` of the child; empty is the fork server's own.
    cwd : str or None, default None
        Working folder of a child that is not confined.
    """

    target: str
    folder: str
    seconds: float
    memory_bytes: int | None = None
    nice: int = 0
    is_confined: bool = True
    path: tuple[str, ...] = ()
    cwd: str | None = None


class Finished(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """A job has ended.

    Parameters
    ----------
    code : int
        Exit code; negative: the signal that ended it.
    is_late : bool
        Whether it was killed because its time was up.
    """

    code: int
    is_late: bool


class Open(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Lease the model host of a key, started if there is none; carries the descriptor of a file with its `Opening`.

    The connection is the lease: the host ends a little after the last one has closed.

    Parameters
    ----------
    key : str
        The same for all who mean the same model.
    memory_bytes : int
        Memory the host may take beyond what the fork server has.
    python : str or None, default None
        Interpreter of another environment to run the host with; None forks it from the fork server.
    """

    key: str
    memory_bytes: int
    python: str | None = None


class Connect(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Give the host one end of a socket pair; carries its descriptor. Closed where `generation` has ended."""

    generation: int


class Kill(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Kill the host, if it still is the one of this generation."""

    generation: int
    reason: Reason


class Started(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The host of a lease runs, from now on as this generation."""

    generation: int
    pid: int


class Ended(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The host of a lease has ended.

    Parameters
    ----------
    generation : int
    reason : {"crashed", "hung", "memory"}
    code : int
        Exit code; negative: the signal that ended it.
    retry_seconds : float or None
        When it is started again; None: never, since it ended before the model was open.
    is_out : bool
        Whether the model was taken out because it ended too often.
    is_counted : bool
        True for one of the leases, whose holder counts this end in its metrics.
    """

    generation: int
    reason: Reason
    code: int
    retry_seconds: float | None
    is_out: bool
    is_counted: bool


def send(sock: socket.socket, message: msgspec.Struct, fds: Sequence[int] = ()) -> None:
    """Send one packet; raises OSError where the other side is gone, or does not read."""
    socket.send_fds(sock, [msgspec.msgpack.encode(message)], list(fds), socket.MSG_NOSIGNAL)


def receive(sock: socket.socket, decoder: Decoder[M], n_fds: int = 0) -> tuple[M, list[int]] | None:
    """Take one packet and its descriptors; None at the end, or where it is none of these messages.

    Parameters
    ----------
    sock : socket
        Of kind SOCK_SEQPACKET.
    decoder : Decoder
        Of a struct, or a union of them.
    n_fds : int, default 0
        Most descriptors that are taken.
    """
    data, fds, _, _ = socket.recv_fds(sock, MAX_PACKET, n_fds, socket.MSG_CMSG_CLOEXEC)
    try:
        return decoder.decode(data), fds
    except msgspec.MsgspecError:
        for fd in fds:
            os.close(fd)
        return None
