"""A model's ``requirements.txt``, read as text: distributions by name, extras, version, marker and hash.

pip, uv and MLflow follow what such a file refers to: other files (``-r``, ``-c``), links, indexes, folders, environment
variables. Here nothing is followed, and `parse` refuses whatever would have to be.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as Packaged
from packaging.utils import InvalidName, canonicalize_name

from fin_pyfunc.model.errors import ArtifactError

FILE = "requirements.txt"
#: Most bytes and lines of such a file, and most characters of one requirement: a lock file of 300 distributions with
#: all their hashes takes 1 MB.
MAX_BYTES = 2 << 20
MAX_LINES = 10_000
MAX_CHARACTERS = 16_384
#: What `fin_pyfunc.log_model` writes to have pip find our own wheel; nothing is installed from there here.
_OWN_FOLDER = re.compile(r"--find-links[ =]code/?")
_BOMS = {
    codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF32_LE: "utf-32-le", codecs.BOM_UTF32_BE: "utf-32-be",
    codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be",
}  # fmt: skip
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r" --hash[= ](sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128})(?= |$)")
_OPTION = re.compile(r"(^| )-")
_LOCATION = re.compile(r"[@/\\]|^\w+[+:]")
#: An archive in the folder that pip or uv runs in goes before a distribution of that name.
_ARCHIVE = re.compile(r"\.(whl|zip|tar|tgz|tbz|txz|tlz|tar\.\w+)$", re.IGNORECASE)
_UNREADABLE = f"The model's {FILE} {{}}: write it as UTF-8 text with one requirement a line, and log the model again."


class Requirement(NamedTuple):
    """One distribution that a model needs.

    Parameters
    ----------
    name : str
        Canonical (PEP 503), such as ``"scikit-learn"``.
    text : str
        The requirement in canonical form (PEP 508), hashes included.
    version : str or None
        The exact version, where ``==`` names one.
    """

    name: str
    text: str
    version: str | None


def parse(content: bytes) -> list[Requirement]:
    """Read a requirements file in which every line is a plain requirement.

    ``--find-links code``, which `fin_pyfunc.log_model` writes, is passed over.

    Parameters
    ----------
    content : bytes
        UTF-8, or UTF-16 or UTF-32 with a byte order mark.

    Raises
    ------
    ArtifactError
        The file is too large or no text, or a line is something else; the message has its number and not what it says.
    """
    requirements = []
    for number, line in _lines(content):
        if _OWN_FOLDER.fullmatch(line):
            continue
        parsed = _requirement(line)
        if isinstance(parsed, str):
            raise ArtifactError(
                f"Line {number} of the model's {FILE} {parsed}, and only names, extras, versions, markers and hashes "
                "are taken: log the model again with plain pip_requirements."
            )
        requirements.append(parsed)
    return requirements


def parse_plain(content: bytes) -> list[Requirement]:
    """Read the plain requirements of a file and pass over everything else; nothing of a file that is no text."""
    try:
        parsed = [_requirement(line) for _, line in _lines(content)]
    except ArtifactError:
        return []
    return [requirement for requirement in parsed if not isinstance(requirement, str)]


def text_of(requirements: Iterable[Requirement]) -> str:
    """Write requirements as the text of a file, one a line."""
    return "".join(f"{requirement.text}\n" for requirement in requirements)


def _lines(content: bytes) -> Iterator[tuple[int, str]]:
    """Logical lines, comments and blank ones left out, each with the number of its first line."""
    lines = _decoded(content).splitlines()
    if len(lines) > MAX_LINES:
        raise ArtifactError(_UNREADABLE.format(f"has more than {MAX_LINES} lines"))
    pending: list[str] = []
    first = 1
    for number, line in enumerate(lines, 1):
        if not pending:
            first = number
        is_comment = line.lstrip().startswith("#")
        # as pip has it: a comment is never continued, and ends what was
        pending.append("" if is_comment else line.removesuffix("\\"))
        if line.endswith("\\") and not is_comment and number < len(lines):
            continue
        if whole := _COMMENT.sub("", "".join(pending)).strip():
            yield first, whole
        pending = []


def _decoded(content: bytes) -> str:
    if len(content) > MAX_BYTES:
        raise ArtifactError(_UNREADABLE.format(f"is larger than {MAX_BYTES >> 20} MiB"))
    bom = next((bom for bom in _BOMS if content.startswith(bom)), b"")
    try:
        return content[len(bom) :].decode(_BOMS.get(bom, "utf-8"))
    except UnicodeDecodeError as e:
        raise ArtifactError(_UNREADABLE.format("is not text")) from e


def _requirement(line: str) -> Requirement | str:
    """A requirement, or what the line is instead."""
    if len(line) > MAX_CHARACTERS:
        return f"is longer than {MAX_CHARACTERS} characters"
    line = " ".join(line.split())  # or searching thousands of spaces takes seconds
    if "$" in line:  # uv and pip expand ${NAME}
        return "names an environment variable"
    hashes = sorted(set(_HASH.findall(line)))
    plain = _HASH.sub("", line)
    if _OPTION.search(plain):
        return "has an option"
    if not plain.isascii() or not plain.isprintable() or "\\" in plain:
        return "is no requirement"
    try:
        parsed = Packaged(plain)
        name = canonicalize_name(parsed.name, validate=True)  # packaging takes "six_", and not the "six-" it becomes
    except (InvalidRequirement, InvalidName, RecursionError):
        return "names a path or a URL" if _LOCATION.search(plain) else "is no requirement"
    if parsed.url is not None or _ARCHIVE.search(parsed.name):
        return "names a path or a URL"
    if any(specifier.operator == "===" for specifier in parsed.specifier):  # anything may follow it
        return "compares a version by ==="
    parsed.name = name
    exact = [each.version for each in parsed.specifier if each.operator == "==" and not each.version.endswith(".*")]
    return Requirement(
        name,
        " ".join([str(parsed), *(f"--hash={digest}" for digest in hashes)]),
        exact[0] if len(parsed.specifier) == len(exact) == 1 else None,
    )
