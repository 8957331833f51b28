"""What is fenced in a document: commands to run, Python to run, files to write, answers to expect."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
#: In the order in which a newcomer reads them.
DOCUMENTS = (
    "README.md",
    "docs/users.md",
    "docs/operators.md",
    "docs/migration.md",
    "CONTRIBUTING.md",
    "deploy/kubernetes/README.md",
)
#: Run by the tests of Docker and of Kubernetes.
ELSEWHERE = {"docker", "kubectl"}


class Block(NamedTuple):
    """A fenced block: its language, what it is for, and its text."""

    language: str
    role: str
    text: str


def read(document: str) -> str:
    """The text of a document of this checkout."""
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    """What is fenced in it, top to bottom."""
    markdown = read(document)
    found = re.findall(r"^```(\w*)(?: ([\w.-]+))?\n(.*?)^```$", markdown, re.M | re.S)
    assert 2 * len(found) == len(re.findall(r"^ *```", markdown, re.M)), f"{document} has a fence that is not read"
    return [Block(*parts) for parts in found]
