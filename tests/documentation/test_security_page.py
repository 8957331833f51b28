"""The threat model: every test that it names is there."""

from __future__ import annotations

import re

import pytest

from tests.documentation.blocks import ROOT, read

NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", read("docs/security.md"))


def test_every_threat_names_a_test() -> None:
    rows = [line for line in read("docs/security.md").splitlines() if line.startswith("| ") and "| who |" not in line]
    assert len(rows) >= 20
    for line in rows:
        assert "::" in line or "to be written" in line.lower(), line


@pytest.mark.parametrize(("file", "name"), sorted(set(NAMED)))
def test_a_test_that_the_threat_model_names_is_there(file: str, name: str) -> None:
    assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8")
