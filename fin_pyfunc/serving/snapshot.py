"""Private copies of model files, hashed while they are copied: what was checked is what is opened.

Whoever can write to an artifact store can replace a file after it was checked. So a model's files are never opened
where they lie: they are copied into a folder that only this process writes to, and everything later reads the copy.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fin_pyfunc.model.artifact import FileDigest
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError

#: Most files and folders in a model's folder.
MAX_FILES = 10_000
#: Bytes that are copied at once.
_PIECE = 1 << 20
#: The folder of this process's open files.
_DESCRIPTORS = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"

_ODD = "The model's folder holds something that is neither a file nor a folder, or a link to a folder; remove it."
_ELSEWHERE = "The model's folder holds a link that leads elsewhere; remove it."


@dataclass(frozen=True)
class Snapshot:
    """A private copy of a model.

    Parameters
    ----------
    path : Path
        The copied folder, or the copied bare file.
    files : mapping of str to FileDigest
        Every file of it by its path relative to `path`, with ``/``; a bare file by its own name.
    is_folder : bool
    """

    path: Path
    files: Mapping[str, FileDigest]
    is_folder: bool

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    @property
    def digest(self) -> str:
        """The identity of its content, ``sha256:<hex>``: of the one file, or of the names and digests of all."""
        if not self.is_folder:
            return f"sha256:{next(iter(self.files.values())).sha256}"
        return f"sha256:{folder_sha256({name: file.sha256 for name, file in self.files.items()})}"


def folder_sha256(files: Mapping[str, str]) -> str:
    """SHA-256 over the sorted relative names and the digests (hexadecimal) of a folder's files."""
    whole = hashlib.sha256()
    for name in sorted(files, key=PurePosixPath):
        whole.update(name.encode("utf-8", "surrogateescape") + b"\0")
        whole.update(bytes.fromhex(files[name]))
    return whole.hexdigest()


def copy(source: Path, target: Path, max_bytes: int = sys.maxsize, roots: Sequence[Path] | None = None) -> Snapshot:
    """Copy a model's folder or bare file, and hash what was copied.

    Parameters
    ----------
    source : Path
    target : Path
        Must not exist; its folder is private to this process.
    max_bytes : int, default no limit
        The most that is copied.
    roots : sequence of Path, optional
        Resolved folders that links may lead into, besides `source` itself, which has to be resolved, too; default any
        place.

    Raises
    ------
    ModelForbiddenError
        It is too large, or holds a link that leads out of `roots`, or something that is neither file nor folder.
    ArtifactError
        A file cannot be read.
    """
    try:
        return Snapshot(target, *_read(source, target, roots, max_bytes))
    except OSError as e:
        raise _unreadable(e) from e


def describe(path: Path) -> Snapshot:
    """Describe a copy that is private already, such as a download; a link out of it is refused.

    Raises
    ------
    ModelForbiddenError, ArtifactError
    """
    try:
        return Snapshot(path, *_read(path.resolve(), None, ()))
    except OSError as e:
        raise _unreadable(e) from e


def digest(path: Path, roots: Sequence[Path] | None = None) -> str:
    """The identity of a model's content where it lies, as `Snapshot.digest`.

    Raises
    ------
    ModelForbiddenError
        As `copy`.
    OSError
    """
    return Snapshot(path, *_read(path, None, roots)).digest


def check_size(path: Path, max_bytes: int) -> None:
    """Raise ModelForbiddenError where a folder or file is larger than a model may be, before it is read."""
    budget = _Budget(max_bytes)
    for name in _names(path, budget) if path.is_dir() else [""]:
        try:
            budget.add((path / name).stat().st_size)
        except OSError as e:  # a link that leads nowhere
            raise ModelForbiddenError(_ELSEWHERE) from e


class _Budget:
    """Counts bytes, files and folders, and raises ModelForbiddenError beyond what a model may have."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes, self._bytes, self._files = max_bytes, 0, 0

    def add_file(self) -> None:
        self._files += 1
        self._check()

    def add(self, n: int) -> None:
        self._bytes += n
        self._check()

    def _check(self) -> None:
        check_total(self._bytes, self._files, self._max_bytes)


def check_total(total: int, count: int, max_bytes: int) -> None:
    """Raise ModelForbiddenError for more bytes or files than a model may have."""
    if total > max_bytes or count > MAX_FILES:
        raise ModelForbiddenError(
            f"The model is larger than this server loads (deployment.api.models.max_bytes, {max_bytes} bytes, and "
            f"{MAX_FILES} files and folders)."
        )


def _read(
    source: Path, target: Path | None, roots: Sequence[Path] | None, max_bytes: int = sys.maxsize
) -> tuple[dict[str, FileDigest], bool]:
    """Hash a model's files, and copy them where there is a target; also whether it is a folder."""
    inside = None if roots is None else (source, *roots)
    budget = _Budget(max_bytes)
    if not source.is_dir():
        return {source.name: _read_file(source, target, inside, budget)}, False
    if target is not None:
        target.mkdir(mode=0o700)
    files = {}
    for name in _names(source, budget):
        copied = None if target is None else target / name
        if copied is not None:
            copied.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        files[name] = _read_file(source / name, copied, inside, budget)
    return files, True


def _unreadable(error: OSError) -> ArtifactError:
    return ArtifactError(f"The model's files cannot be read ({error.strerror}): fetch or log the model again.")


def _names(folder: Path, budget: _Budget) -> Iterator[str]:
    """The files of a folder as relative names; a linked folder is refused rather than left out silently."""
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                budget.add_file()
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_symlink() and os.path.isdir(entry):  # noqa: PTH112 - which a link to itself is not
                    raise ModelForbiddenError(_ODD)
                else:
                    yield name


def _read_file(source: Path, target: Path | None, inside: Sequence[Path] | None, budget: _Budget) -> FileDigest:
    """Hash one file, and copy it where there is a target."""
    whole, size = hashlib.sha256(), 0
    with contextlib.ExitStack() as opened:
        reading = opened.enter_context(os.fdopen(_open(source, inside), "rb"))
        writing = None
        if target is not None:
            created = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            writing = opened.enter_context(os.fdopen(created, "wb"))
        while piece := reading.read(_PIECE):
            size += len(piece)
            budget.add(len(piece))
            whole.update(piece)
            if writing is not None:
                writing.write(piece)
    return FileDigest(sha256=whole.hexdigest(), size=size)


def _open(path: Path, inside: Sequence[Path] | None) -> int:
    """Open a file for reading once it is known to be one, and to lie where it may.

    The path is followed once: what is looked at is what is opened, whatever is exchanged meanwhile. A device or a pipe
    that a link leads to is not opened at all, where the system can look at a file without that (Linux).
    """
    try:
        looked_at = os.open(path, getattr(os, "O_PATH", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY))
    except OSError as e:
        if path.is_symlink() and e.errno in (errno.ENOENT, errno.ELOOP):
            raise ModelForbiddenError(_ELSEWHERE) from e
        raise
    try:
        if not stat.S_ISREG(os.fstat(looked_at).st_mode):
            raise ModelForbiddenError(_ODD)
        opened = Path(f"{_DESCRIPTORS}/{looked_at}")
        lies_at = opened.readlink() if sys.platform == "linux" else path.resolve()
        if inside is not None and not any(lies_at.is_relative_to(root) for root in inside):
            raise ModelForbiddenError(_ELSEWHERE)
        return os.open(opened, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    finally:
        os.close(looked_at)
