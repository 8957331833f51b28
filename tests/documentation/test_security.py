"""Every threat in docs/security.md names tests that are there."""

from __future__ import annotations

import re

import pytest

from tests.documentation.blocks import ROOT, read

ROWS = [
    line for line in read("docs/security.md").splitlines() if line.startswith("|") and not re.match(r"\|-|\| who", line)
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[:60])
def test_each_threat_names_a_test_and_each_test_that_is_named_is_there(row: str) -> None:
    cells = row.strip("| ").split(" | ")
    named = re.findall(r"`(?:tests/)?([\w/]+\.py)::(test_\w+)`", cells[-1])
    assert named, "no test is named"
    for file, test in named:
        assert f"def {test}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), f"{file}::{test}"
