"""Every document can be followed top to bottom: its commands run, its Python runs, its servers answer as it shows."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.documentation.blocks import DOCUMENTS, blocks
from tests.documentation.reader import Reader


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which `fin-pyfunc demo` was run."""
    folder = tmp_path_factory.mktemp("demo")
    Reader(folder).run("fin-pyfunc demo")
    return folder


@pytest.fixture
def reader(tmp_path: Path, demo: Path) -> Iterator[Reader]:
    """In a folder that has the demo model."""
    shutil.copy(demo / "mlflow.db", tmp_path)
    reader = Reader(tmp_path)
    # the copied store's artifacts stay where they are, and beside it are those of what the reader logs
    reader.env["FIN_PYFUNC__MODELS__ARTIFACT_ROOTS"] = f"{demo},{tmp_path}"
    try:
        yield reader
    finally:
        reader.close()


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("document", DOCUMENTS)
def test_it_can_be_followed_top_to_bottom(reader: Reader, document: str) -> None:
    for block in blocks(document):
        reader.follow(block)
