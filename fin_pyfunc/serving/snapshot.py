"""Private copies of model files, hashed while they are copied: what was checked is what is opened.

Whoever can write to an artifact store can replace a file after it was checked. So a model's files are never opened
where they lie: they are copied into a folder that only this process writes to, and everything later reads the copy.
"""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fin_pyfunc.model.artifact import FileDigest
from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError

#: Most files in a model's folder.
MAX_FILES = 10_000
#: Bytes that are copied at once.
_PIECE = 1 << 20

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
        Resolved folders that links may lead into, besides `source` itself; default any place.

    Raises
    ------
    ModelForbiddenError
        It is too large, or holds a link that leads out of `roots`, or something that is neither file nor folder.
    ArtifactError
        A file cannot be read.
    """
    inside = None if roots is None else (source.resolve(), *roots)
    budget = _Budget(max_bytes)
    try:
        if not source.is_dir():
            return Snapshot(target, {source.name: _copy_file(source, target, inside, budget)}, is_folder=False)
        target.mkdir(mode=0o700)
        files = {}
        for name in _names(source):
            (target / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            files[name] = _copy_file(source / name, target / name, inside, budget)
    except OSError as e:
        raise ArtifactError(f"The model's files cannot be read ({e.strerror}): fetch or log the model again.") from e
    return Snapshot(target, files, is_folder=True)


def describe(path: Path) -> Snapshot:
    """Describe a copy that is private already, such as a download; a link in it is refused."""
    names = _names(path) if path.is_dir() else [path.name]
    files = {}
    for name in names:
        file = path / name if path.is_dir() else path
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise ModelForbiddenError(_ODD)
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            files[name] = FileDigest(sha256=digest, size=os.fstat(stream.fileno()).st_size)
    return Snapshot(path, files, is_folder=path.is_dir())


def check_size(path: Path, max_bytes: int) -> None:
    """Raise ModelForbiddenError where a folder or file is larger than a model may be, before it is read."""
    budget = _Budget(max_bytes)
    for name in _names(path) if path.is_dir() else [""]:
        budget.add_file()
        try:
            budget.add((path / name).stat().st_size)
        except OSError as e:  # a link that leads nowhere
            raise ModelForbiddenError(_ELSEWHERE) from e


class _Budget:
    """Counts bytes and files, and raises ModelForbiddenError beyond what a model may have."""

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
            f"{MAX_FILES} files)."
        )


def _names(folder: Path) -> Iterator[str]:
    """The files of a folder as relative names; a linked folder is refused rather than left out silently."""
    pending = [""]
    while pending:
        below = pending.pop()
        with os.scandir(folder / below) as entries:
            for entry in entries:
                name = f"{below}/{entry.name}" if below else entry.name
                if entry.is_dir(follow_symlinks=False):
                    pending.append(name)
                elif entry.is_symlink() and entry.is_dir():
                    raise ModelForbiddenError(_ODD)
                else:
                    yield name


def _copy_file(source: Path, target: Path, inside: Sequence[Path] | None, budget: _Budget) -> FileDigest:
    """Copy one file; the checks are of the file that is open, which nobody can exchange any more."""
    budget.add_file()
    digest, size = hashlib.sha256(), 0
    # a pipe would be waited for, and a terminal taken over
    with os.fdopen(os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY), "rb") as reading:
        if not stat.S_ISREG(os.fstat(reading.fileno()).st_mode):
            raise ModelForbiddenError(_ODD)
        if inside is not None and not any(_opened_path(reading.fileno(), source).is_relative_to(r) for r in inside):
            raise ModelForbiddenError(_ELSEWHERE)
        with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as writing:
            while piece := reading.read(_PIECE):
                size += len(piece)
                budget.add(len(piece))
                digest.update(piece)
                writing.write(piece)
    return FileDigest(sha256=digest.hexdigest(), size=size)


def _opened_path(descriptor: int, path: Path) -> Path:
    """Where the file that is open really lies; where the system does not say, where its path leads now."""
    try:
        return Path(f"/proc/self/fd/{descriptor}").readlink()
    except OSError:
        return path.resolve()
