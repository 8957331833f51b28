"""Model files on this machine: which kind they are, and the digest that is their identity."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from fin_pyfunc.model.errors import ModelNotFoundError
from fin_pyfunc.serving.snapshot import digest
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
