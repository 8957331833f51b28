"""What a model host does: open one model, then answer those who connect, each on a thread of its own."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import threading
from pathlib import Path

import msgspec

from fin_pyfunc.host.children import OUT_OF_MEMORY
from fin_pyfunc.host.hosted import Hosted, open_hosted
from fin_pyfunc.host.opening import Failure, FailureKind, Opening
from fin_pyfunc.host.wire import (
    MAX_LABEL,
    Channel,
    Received,
    Word,
    read_invocations,
    read_table,
    send_scores,
    send_struct,
)
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.errors import ArtifactError, BackendError, DeviceError, ScoringError
from fin_pyfunc.model.traces import trace

#: What a host tells the fork server once it has opened its model, or could not.
READY, REFUSED = b"ready", b"refused"
#: Longest question; a worker has bounds of its own.
_MAX_QUESTION = 1 << 40
#: Seconds for which a thread may keep Python's lock from another that wants it.
_SWITCH_SECONDS = 0.0005
_KINDS: tuple[tuple[type[Exception], FailureKind], ...] = (
    (DeviceError, "device"),
    (ScoringError, "scoring"),
    (BackendError, "backend"),
    (ArtifactError, "artifact"),
)


def run(folder: Path, control: int, opening: int) -> None:
    """Be a model host; returns when the fork server has closed the control socket.

    Parameters
    ----------
    folder : Path
        The working folder.
    control : int
        File descriptor of a socket to the fork server, which sends connections over it.
    opening : int
        File descriptor of a file with an `Opening` as JSON.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    fork_server = socket.socket(fileno=control)
    hosted: Hosted | Failure
    try:
        told = msgspec.json.decode(os.pread(opening, os.fstat(opening).st_size, 0), type=Opening)
        os.close(opening)
        hosted = open_hosted(msgspec.structs.replace(told, path=str(_copied(Path(told.path), folder))))
    except MemoryError:
        raise
    except Exception as e:
        hosted = _failure(e)
    fork_server.send(REFUSED if isinstance(hosted, Failure) else READY)
    while fds := socket.recv_fds(fork_server, 1, 1, socket.MSG_CMSG_CLOEXEC)[1]:
        channel = Channel(socket.socket(fileno=fds[0]))
        threading.Thread(target=_serve, args=(hosted, channel), name="serve", daemon=True).start()


def run_here() -> None:
    """As `run`, in a program of its own: the interpreter of another environment."""
    folder, control, opening = sys.argv[1:]
    try:
        run(Path(folder), int(control), int(opening))
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    os._exit(0)


def _copied(path: Path, folder: Path) -> Path:
    """The model's files in the host's own folder: they may be changed there, and whoever opened it first may end."""
    copy = folder / "model" / path.name
    copy.parent.mkdir()
    return Path(shutil.copytree(path, copy, symlinks=True) if path.is_dir() else shutil.copy(path, copy))


def _serve(hosted: Hosted | Failure, channel: Channel) -> None:
    """Answer one connection until it is closed."""
    try:
        if isinstance(hosted, Failure):
            send_struct(channel, Word.FAILED, hosted)
        else:
            send_struct(channel, Word.DESCRIBED, hosted.described)
            while (received := channel.receive(_MAX_QUESTION)) is not None:
                _answer(hosted, channel, received)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)
    except OSError:
        pass  # whoever asked has gone
    finally:
        channel.close()


def _answer(hosted: Hosted, channel: Channel, received: Received) -> None:
    if received.word == Word.INVOCATIONS:
        send_struct(channel, Word.INVOKED, hosted.invocations(*read_invocations(received)))
        return
    try:
        scores = hosted.score(read_table(received))
        _check_labels(scores)
    except Exception as e:
        if isinstance(e, MemoryError) or isinstance(e.__cause__, MemoryError):
            raise MemoryError from e
        send_struct(channel, Word.FAILED, _failure(e))
    else:
        send_scores(channel, scores, hosted.described.classes)


def _check_labels(scores: Scores) -> None:
    if any(isinstance(label, str) and len(label.encode()) > MAX_LABEL for label in scores.classes):
        raise ScoringError(f"the model answered a label of more than {MAX_LABEL} bytes")


def _failure(error: Exception) -> Failure:
    """What a worker is told: sentences of our own, and of any other exception its type alone."""
    name = next((name for kind, name in _KINDS if isinstance(error, kind)), None)
    if name is None:
        return Failure(kind="scoring", said=f"the model raised {type(error).__name__}", trace=trace(error))
    return Failure(kind=name, said=str(error), trace=trace(error) if error.__cause__ is not None else "")
