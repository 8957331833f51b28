"""What operators have decided while the server runs: in the memory that its workers share, and in a file."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.motion.board import CAPACITY, Board
from fin_pyfunc.serving.motion.names import normal

Name = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=1024,
        description="A registered model's name, a model URI, or a model id; `X-Model-ID` says what answered.",
        examples=["eurusd_rf"],
    ),
]
Reason = Annotated[str, Meta(min_length=1, max_length=500, description="What callers are told.")]


class Stop(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One stop: whatever `name` means is answered 503 with the reason.

    Parameters
    ----------
    name : str
        A registered model's name, a URI, or a model id.
    reason : str
    since : str
        ISO 8601, UTC.
    by : str or None
        The id of the key it was made with, or None.
    ids : tuple of str, default ()
        Model ids that `name` was seen to lead to since.
    """

    name: Name
    reason: Reason
    since: str
    by: str | None = None
    ids: tuple[str, ...] = ()


class ShadowChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The shadow that was chosen while the server runs, and the settings that it was chosen over."""

    model_uri: str | None
    share: float
    of: str | None
    over: dict[str, Any]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is shared."""

    stops: tuple[Stop, ...] = ()
    #: the stops as the state file had them when it was last read or written
    filed: tuple[Stop, ...] = ()
    shadow: ShadowChoice | None = None
    #: by a default model's URI, the id of the version that answered for it last
    good: dict[str, str] = {}


class _Document(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    stops: tuple[Stop, ...]


class NotStoppedError(FinPyfuncError):
    """What was to be started again is not stopped."""


class StateFileError(FinPyfuncError):
    """A state file that cannot be read or written."""


def made(name: str, reason: str, by: str | None = None, ids: Iterable[str] = ()) -> Stop:
    """A stop that begins now."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    return Stop(name=normal(name), reason=reason, since=since, by=by, ids=tuple(sorted(set(ids))))


def with_stop(stops: Sequence[Stop], stop: Stop) -> list[Stop]:
    """The stops with one more, or with another reason."""
    return [*(s for s in stops if s.name != stop.name), stop]


def without_stop(stops: Sequence[Stop], name: str) -> list[Stop]:
    """The stops without one.

    Raises
    ------
    NotStoppedError
        There is none of that name, in the form of `normal`.
    """
    if name not in {stop.name for stop in stops}:
        raise NotStoppedError(
            "Nothing is stopped by this name: GET /admin/models lists what is stopped, and by which names."
        )
    return [stop for stop in stops if stop.name != name]


def read(board: Board) -> State:
    """What is shared now."""
    return _decoded(board.read()[1])


def change(board: Board, to: Callable[[State], State]) -> None:
    """Share something else; raises what `to` raises, and BoardFullError."""
    board.change(lambda text: msgspec.json.encode(to(_decoded(text))))


def _decoded(text: bytes) -> State:
    return msgspec.json.decode(text, type=State) if text else State()


class StateFile:
    """The stops on disk, for the next start; a command of the operator's may change it too.

    Parameters
    ----------
    path : Path
        A file that need not be there, in a folder that must.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seen: tuple[int, int, int] | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One change at a time, by a lock on the folder, which leaves no file behind.

        Raises
        ------
        StateFileError
        """
        try:
            folder = os.open(self.path.resolve().parent, os.O_RDONLY)
        except OSError as e:
            raise StateFileError(
                f"The folder of the state file {self.path} cannot be opened ({e.strerror}): make it, and let the "
                "server's user write there."
            ) from None
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def has_changed(self) -> bool:
        """Whether the file is another than was read or written last."""
        return self._stamp() != self._seen

    def read(self) -> tuple[Stop, ...] | None:
        """The stops in it; None where there is no file.

        Raises
        ------
        StateFileError
        """
        self._seen = self._stamp()
        try:
            if self._seen is not None and self._seen[2] > CAPACITY:
                raise msgspec.DecodeError
            return msgspec.json.decode(self.path.read_bytes(), type=_Document).stops
        except FileNotFoundError:
            if self.path.parent.is_dir():
                return None
            raise StateFileError(
                f"The folder of the state file {self.path} does not exist: make it, and let the server's user write "
                "there."
            ) from None
        except OSError as e:
            raise StateFileError(
                f"The state file {self.path} cannot be read ({e.strerror}): let the server's user read it."
            ) from None
        except (msgspec.MsgspecError, UnicodeDecodeError):
            raise StateFileError(
                f"The state file {self.path} is damaged: restore it, or remove it and stop again what is to be stopped."
            ) from None

    def write(self, stops: Sequence[Stop]) -> None:
        """Put a new file in the place of the old one, whole or not at all.

        Raises
        ------
        StateFileError
        """
        content = msgspec.json.format(msgspec.json.encode(_Document(stops=tuple(stops))), indent=2) + b"\n"
        target, written = self.path.resolve(), None
        try:
            handle, written = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
            with open(handle, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
                with contextlib.suppress(FileNotFoundError, PermissionError):  # root leaves the server's to the server
                    before = target.stat()
                    os.fchown(handle, before.st_uid, before.st_gid)
                    os.fchmod(handle, before.st_mode & 0o777)
                file.write(content)
                file.flush()
                os.fsync(handle)
            Path(written).replace(target)
        except OSError as e:
            if written is not None:
                Path(written).unlink(missing_ok=True)
            raise StateFileError(
                f"The state file {self.path} cannot be written ({e.strerror}): its folder must exist, and the server's "
                "user must be let write there."
            ) from None
        self._seen = self._stamp()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self.path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ino, status.st_size
