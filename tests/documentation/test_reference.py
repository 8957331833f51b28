"""What the documents refer to is there: settings, files, the heading that a link leads to."""

from __future__ import annotations

import re
import sys

import pytest

from tests.documentation.blocks import DOCUMENTS, ROOT, blocks, read

EVERY = sorted({*DOCUMENTS, "CHANGELOG.md", *(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))})


def test_every_setting_is_in_the_reference() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        from generate import reference  # type: ignore[import-not-found]
    finally:
        sys.path.pop(0)
    assert read("docs/configuration.md") == reference(), "run make docs"


@pytest.mark.parametrize("document", EVERY)
def test_every_link_to_a_file_leads_to_one(document: str) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:]+)(?:#([^)]*))?\)", read(document)):
        path = (ROOT / document).parent / target
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.M)
            assert anchor in {re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings}, anchor


@pytest.mark.parametrize("document", [each for each in EVERY if each not in DOCUMENTS])
def test_commands_stand_only_where_a_test_runs_them(document: str) -> None:
    assert not blocks(document)


def test_the_readme_is_one_screen_and_a_table_of_guides() -> None:
    before, _, guides = read("README.md").partition("\n## Guides\n")
    assert len(before.splitlines()) <= 60
    for guide in DOCUMENTS[1:]:
        assert f"]({guide})" in guides
