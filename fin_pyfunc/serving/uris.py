"""The model URIs that a client may send: one strict grammar, read once."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from fin_pyfunc.model.errors import ModelUriError

Kind = Literal["run", "version", "alias", "latest", "logged", "file"]

#: Longest URI that is read, in characters.
MAX_LENGTH = 1024
#: Suffix of a bare estimator file to the kind of file it is; a path with any other name is a model's folder.
FILE_KINDS = {".pkl": "pickle", ".joblib": "joblib", ".skops": "skops", ".onnx": "onnx"}

#: The sentence for what is no model URI.
UNKNOWN_FORM = (
    "The model URI is not of a form that is loaded here; send runs:/<run_id>/<name>, models:/<name>/<version>, "
    "models:/<name>@<alias>, models:/<name>/latest, models:/m-<id>, file:///<folder> or "
    "file:///<file>.pkl, .joblib, .skops or .onnx, without escapes, '.', '..' or empty segments."
)
# No character that a URL parser, a shell or a file system reads as more than itself; isprintable() takes the rest.
_SEGMENT = r"[^/\\%#?;]+"
_NAME = r"[^/\\%#?;:]+"
_FORMS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    ("logged", re.compile(r"models:/(?P<model_id>m-[0-9a-f]{32})")),
    ("latest", re.compile(rf"models:/(?P<name>{_NAME})/latest")),
    ("version", re.compile(rf"models:/(?P<name>{_NAME})/(?P<version>[1-9][0-9]{{0,8}})")),
    ("alias", re.compile(rf"models:/(?P<name>{_NAME})@(?P<alias>[\w-]{{1,255}})")),
    ("run", re.compile(rf"runs:/(?P<run_id>[a-zA-Z0-9][a-zA-Z0-9_-]{{0,255}})/(?P<name>{_SEGMENT}(?:/{_SEGMENT})*)")),
    ("file", re.compile(rf"file://(?P<path>(?:/{_SEGMENT})+)")),
)


@dataclass(frozen=True, kw_only=True)
class ModelUri:
    """A model URI in its parts; ``str()`` gives the text back.

    Parameters
    ----------
    kind : {"run", "version", "alias", "latest", "logged", "file"}
        Which form it has.
    name : str, optional
        A registered model's name, or the path of a run's model, such as ``"model"``.
    run_id, alias, model_id, path : str, optional
        The part that the form is named for; `path` is absolute.
    version : int, optional
        A registered version, from 1.
    """

    kind: Kind
    name: str = ""
    run_id: str = ""
    version: int = 0
    alias: str = ""
    model_id: str = ""
    path: str = ""

    def __str__(self) -> str:
        match self.kind:
            case "run":
                return f"runs:/{self.run_id}/{self.name}"
            case "version":
                return f"models:/{self.name}/{self.version}"
            case "alias":
                return f"models:/{self.name}@{self.alias}"
            case "latest":
                return f"models:/{self.name}/latest"
            case "logged":
                return f"models:/{self.model_id}"
            case "file":
                return f"file://{self.path}"


def parse(text: str) -> ModelUri:
    """Read a model URI.

    Parameters
    ----------
    text : str
        At most 1,024 characters.

    Returns
    -------
    ModelUri

    Raises
    ------
    ModelUriError
        For anything that is not exactly of one of the forms; the message does not repeat `text`.
    """
    if len(text) > MAX_LENGTH or not text.isprintable():
        raise ModelUriError(UNKNOWN_FORM)
    for kind, form in _FORMS:
        if found := form.fullmatch(text):
            parts = found.groupdict()
            version = int(parts.pop("version", 0))
            if _is_plain(parts.get("path", "").removeprefix("/") or parts.get("name", "")):
                return ModelUri(kind=kind, version=version, **parts)
            break
    raise ModelUriError(UNKNOWN_FORM)


def _is_plain(path: str) -> bool:
    # a trailing or leading blank is trimmed by some of the readers behind us, which would make it another name
    return all(part not in (".", "..") and part == part.strip() for part in path.split("/"))
