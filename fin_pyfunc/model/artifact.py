"""The files of a logged model: what they are, what their digests are, and how an older format is raised.

An artifact is a folder with `manifest.json` and the files it names. Its own digest is the SHA-256 of the manifest,
which holds those of every other file; MLflow's MLmodel keeps it under `metadata.fin_pyfunc.manifest_sha256`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fin_pyfunc.model.decision import Label, Thresholds
from fin_pyfunc.model.errors import ArtifactError, FormatError
from fin_pyfunc.model.estimators import Serialization
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.form import Form

#: The format this version writes. Raise it when an older version could misread what a newer one writes.
FORMAT = 4
MANIFEST = "manifest.json"
#: Most bytes of a manifest and of an MLmodel: each takes about a hundred for a feature.
MAX_TEXT = 8 << 20
#: SHA-256 of every models-from-code file that this project has released: the one of this version, and earlier ones.
ENTRIES = frozenset({"db080d83d0e7130f907f90174777a52af24058f001f4d386de9d688a3499854a"})
#: Name of the folder among MLflow's artifacts, and of our key in MLmodel's metadata.
NAME = "fin_pyfunc"

#: One step each: a manifest of format n as JSON values -> the same of format n + 1. Old artifacts must keep loading.
RAISE: dict[int, Callable[[dict[str, Any]], dict[str, Any]]] = {
    1: lambda values: {**values, "format": 2},  # 2 adds compiled forms and the ranges of features: there are none
    2: lambda values: {**values, "format": 3},  # 3 adds what a GPU computes
    3: lambda values: {**values, "format": 4},  # 4 adds codes of text and categories
}


class FileDigest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of the artifact.

    Parameters
    ----------
    sha256 : str
        64 hexadecimal digits.
    size : int
        Bytes.
    """

    sha256: str
    size: int


class Example(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The medians (numbers) and modes (the rest) of the training sample as one row, and the estimator's answer to it.

    It warms a server up, and shows whether a model still answers as it did when it was logged.
    """

    features: dict[str, float | int | str | bool | None]
    prediction: Label
    probabilities: list[float] | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a logged model says of itself.

    Parameters
    ----------
    format : int
        Format of the artifact; see `FORMAT`.
    created : str
        When it was logged, UTC, ISO 8601.
    estimator : str
        Qualified name of the estimator's class.
    serialization : {"skops", "cloudpickle"}
    files : dict of str to FileDigest
        Every file of the folder but the manifest.
    code : dict of str to FileDigest
        What travels outside the folder: the models-from-code file and our own wheel.
    features : FeatureSpec
    classes : list of Label
        In `predict_proba`'s column order.
    has_proba : bool
    thresholds : Thresholds
    backend : str
        The default for `backend`, chosen when logging.
    example : Example
    libraries : dict of str to str
        Versions that computed the example, Python's among them.
    forms : list of Form
        Compiled forms, the one to prefer first.
    dropped : dict of str to str
        By backend, why there is no such form.
    tolerance : float
        How far, in probability, a form was allowed to be from the estimator.
    seconds : dict of int to float
        Seconds that the estimator itself took for this many rows when it was logged.
    ranges : dict of str to (float, float)
        The least and the greatest value of each numeric feature in the training sample.
    gpu_only : bool
        Whether the estimator computes on a GPU and nowhere else.
    """

    format: int
    created: str
    estimator: str
    serialization: Serialization
    files: dict[str, FileDigest]
    code: dict[str, FileDigest]
    features: FeatureSpec
    classes: list[Label]
    has_proba: bool
    thresholds: Thresholds
    backend: str
    example: Example
    libraries: dict[str, str]
    forms: list[Form] = []
    dropped: dict[str, str] = {}
    tolerance: float = 0.0
    seconds: dict[int, float] = {}
    ranges: dict[str, tuple[float, float]] = {}
    gpu_only: bool = False

    @property
    def times(self) -> dict[str, dict[int, float]]:
        """By backend, seconds by rows as measured when it was logged."""
        return {"native": self.seconds, **{form.backend: form.seconds for form in self.forms}}


def digest(path: Path) -> FileDigest:
    """SHA-256 and size of a file."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return FileDigest(sha256=sha256, size=path.stat().st_size)


def write(folder: Path, manifest: Manifest) -> FileDigest:
    """Write the manifest beside the files it names, and say what its own digest is."""
    path = folder / MANIFEST
    path.write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    return digest(path)


def read(folder: Path) -> Manifest:
    """Read a manifest and check every file it names.

    Raises
    ------
    FormatError
        The artifact was written by a newer version than this one.
    ArtifactError
        A file is missing or is not what the manifest says.
    """
    recorded = _recorded_digest(folder)
    content = _content(folder)
    if recorded is not None and recorded != hashlib.sha256(content).hexdigest():
        raise ArtifactError(_damaged(MANIFEST))
    manifest = _decode(content)
    for name, expected in manifest.files.items():
        file = folder / name
        if file.parent != folder or not file.is_file():
            raise ArtifactError(f"The model's file {name!r} is missing: fetch or log the model again.")
        if digest(file) != expected:
            raise ArtifactError(_damaged(name))
    return manifest


def declared(folder: Path) -> Manifest:
    """Read a manifest as data, without a look at the files it names.

    Raises
    ------
    FormatError, ArtifactError
    """
    return _decode(_content(folder))


def _content(folder: Path) -> bytes:
    try:
        return read_bounded(folder / MANIFEST)
    except OSError as e:
        raise ArtifactError(f"The model's {MANIFEST} cannot be read ({e.strerror}): log the model again.") from e


def read_bounded(path: Path) -> bytes:
    """The bytes of a text of a model.

    Raises
    ------
    ArtifactError
        It is larger than `MAX_TEXT`.
    OSError
    """
    with path.open("rb") as file:
        content = file.read(MAX_TEXT + 1)
    if len(content) > MAX_TEXT:
        raise ArtifactError(f"The model's {path.name} is larger than {MAX_TEXT >> 20} MiB, so it is none.")
    return content


def _decode(content: bytes) -> Manifest:
    try:
        values = msgspec.json.decode(content, type=dict[str, Any])
        version = values.get("format")
        if type(version) is int and version > FORMAT:
            raise FormatError(
                f"The model was written in artifact format {version}, and this version of fin_pyfunc reads up to "
                f"{FORMAT}: upgrade fin_pyfunc here to the version named in the model's requirements."
            )
        while type(version) is int and version in RAISE:  # True is no 1
            values = RAISE[version](values)
            version = values["format"]
        manifest = msgspec.convert(values, Manifest, str_keys=True)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as e:
        raise ArtifactError(
            f"The model's {MANIFEST} is not one that fin_pyfunc writes ({e}): log the model again."
        ) from e
    if manifest.format != FORMAT:
        raise ArtifactError(
            f"The model's {MANIFEST} is not one that fin_pyfunc writes (there is no format {manifest.format}): "
            "log the model again."
        )
    return manifest


def mlmodel(path: Path) -> dict[str, Any] | None:
    """The MLmodel file of a model's folder as plain data; None where there is none that can be read.

    Raises
    ------
    ArtifactError
        It is larger than `MAX_TEXT`.
    """
    return read_yaml(path / "MLmodel")


def read_yaml(file: Path) -> dict[str, Any] | None:
    """Read a YAML file of a model as plain data; None where there is no mapping in it, or no file.

    Raises
    ------
    ArtifactError
        It is larger than `MAX_TEXT`.
    """
    from fin_pyfunc.model import yaml_text

    try:
        values = yaml_text.parse(read_bounded(file))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) else None


def _recorded_digest(folder: Path) -> str | None:
    """The manifest's digest as MLmodel recorded it; None where the folder stands alone."""
    try:
        return str((mlmodel(folder.parent.parent) or {})["metadata"][NAME]["manifest_sha256"])
    except (KeyError, TypeError):
        return None


def _damaged(name: str) -> str:
    return (
        f"The model's file {name!r} is damaged: its SHA-256 digest differs from the one recorded when it was logged; "
        "fetch it again from the store, or log the model again."
    )
