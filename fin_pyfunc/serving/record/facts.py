"""What records have in common: of a process (its libraries), and of a model (what it is, and who computes it)."""

from __future__ import annotations

import hashlib
import os
import platform
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from fin_pyfunc._version import __version__
from fin_pyfunc.serving.loaded_model import LoadedModel

#: The format of a record's lines. Raise it when an older version could misread what a newer one writes.
FORMAT = 1


def of_process(key_id: str | None) -> bytes:
    """The members that the first line of each segment has: where it was written, and with which libraries.

    Parameters
    ----------
    key_id : str or None
        Of the key that digests are made with.
    """
    libraries = {"python": python(), **installed()}
    values = {
        "format": FORMAT,
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "machine": machine(),
        "key_id": key_id,
        "libraries": libraries,
    }
    return members(values)


def python() -> str:
    """Python's version."""
    return platform.python_version()


def installed() -> dict[str, str]:
    """Every installed distribution, by its name in lower case and with dashes, and its version.

    Read off the names of folders: the files in them take a tenth of a second, for which first answers would wait.
    """
    found: dict[str, str] = {}
    for place in sys.path:
        for folder in Path(place or ".").glob("*.dist-info"):
            name, _, version = folder.name.removesuffix(".dist-info").rpartition("-")
            found.setdefault(spelled(name), version)
    found["fin-pyfunc"] = __version__  # which may be imported from where it is not installed
    return dict(sorted(found.items()))


def spelled(name: str) -> str:
    """A distribution's name as `installed` has it."""
    return name.lower().replace("_", "-").replace(".", "-")


def machine() -> str:
    """The processor, whose instructions may decide the last bit of a sum."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{platform.machine()} {model}".strip()


def of_model(loaded: LoadedModel, asked: str | None, backend: str | None) -> bytes:
    """The members that every record of a model has, as one backend answers what was asked by one URI."""
    known = loaded.recorded.get((asked, backend))
    if known is not None:
        return known
    resolved, thresholds = loaded.resolved, loaded.model.thresholds
    values: dict[str, Any] = {
        "model_uri": loaded.asked_by(asked),
        "default_model": asked is None,
        "model_id": resolved.model_id,
        "run_id": resolved.run_id,
        "artifact_sha256": loaded.artifact_sha256,
        "feature_order_sha256": None if loaded.model.features is None else order_sha256(loaded.model.features.names),
        "thresholds": {"high": thresholds.high, "medium": thresholds.medium},
        "backend": backend,
    }
    loaded.recorded[asked, backend] = made = members(values)
    return made


def order_sha256(names: Sequence[str]) -> str:
    """SHA-256 of the JSON list of feature names, in the model's order and without blanks."""
    return hashlib.sha256(msgspec.json.encode(list(names))).hexdigest()


def members(values: Any) -> bytes:
    """The members of a JSON object, without its braces."""
    return msgspec.json.encode(values)[1:-1]
