"""Model files on this machine: which kind they are, and the digest that is their identity."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fin_pyfunc.model.errors import ModelForbiddenError, ModelNotFoundError
from fin_pyfunc.serving.snapshot import folder_sha256
from fin_pyfunc.serving.uris import FILE_KINDS


def local_path(location: str) -> Path | None:
    """The absolute path that a plain path or a ``file:`` URI names; None for any other scheme."""
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*:", location) and not location.startswith("file:"):
        return None
    path = url2pathname(urlsplit(location).path) if location.startswith("file:") else location
    return Path(path).absolute()


def identify(path: Path, suffix: str, missing: str, roots: Sequence[Path] | None = None) -> tuple[str, str]:
    """Tell what is at a path, and its digest.

    Parameters
    ----------
    path : Path
    suffix : str
        The suffix that it was asked for by, such as ``".onnx"``; a link's target may be called something else.
    missing : str
        The sentence to say where there is no model.
    roots : sequence of Path, optional
        Folders that no link in a model's folder may lead out of; default: links are followed.

    Returns
    -------
    tuple of (str, str)
        The kind, as `Resolved` has it, and ``sha256:<hex>``.

    Raises
    ------
    ModelNotFoundError
        There is no model.
    ModelForbiddenError
        The folder holds a link that leads out of the roots, or a thing that is neither file nor folder.
    """
    kind = FILE_KINDS.get(suffix, "mlflow")
    try:
        if kind == "mlflow" or (roots is None and path.is_dir()):
            kind, there = "mlflow", (path / "MLmodel").is_file()
        else:
            there = path.is_file()
        if not there:
            raise ModelNotFoundError(missing)
        return kind, digest(path, roots)
    except (OSError, ValueError) as exc:
        raise ModelNotFoundError(missing) from exc


def digest(path: Path, roots: Sequence[Path] | None = None) -> str:
    """SHA-256 over a file, or over the sorted relative names and contents of a folder's files.

    Every file counts, ``__pycache__`` too: Python runs what is in it.
    """
    if path.is_file():
        return f"sha256:{_file_digest(path)}"
    # a linked folder is listed but not walked, so it is no file below
    files = [entry for entry in path.rglob("*") if entry.is_symlink() or not entry.is_dir()]
    for entry in files:
        real = entry.resolve()
        # a link must not lead a client out of the roots, and a pipe would be read for ever
        if not real.is_file() or (roots is not None and not any(real.is_relative_to(root) for root in roots)):
            raise ModelForbiddenError(
                "The model's folder holds something that is not a file, or a link that leads elsewhere; remove it."
            )
    return f"sha256:{folder_sha256({entry.relative_to(path).as_posix(): _file_digest(entry) for entry in files})}"


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
