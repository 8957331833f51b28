"""Run the notebooks top to bottom and keep what they show: ``python notebooks/run.py [NAME …]`` (`make notebooks`).

Each runs in an empty folder of its own, on the demo's bars, so that nothing of this machine or of its data is kept.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def run(notebook: Path, folder: Path) -> nbformat.NotebookNode:
    """A notebook with what its cells showed when they ran in `folder`.

    Raises
    ------
    CellExecutionError
        A cell failed.
    """
    content = nbformat.read(notebook, as_version=4)
    client = NotebookClient(content, timeout=300, resources={"metadata": {"path": str(folder)}}, record_timing=False)
    client.execute()
    content.metadata.language_info = {"name": "python"}  # the version it ran under says nothing, and changes
    return content


def main() -> None:
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    for notebook in [FOLDER / name for name in names] or sorted(FOLDER.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            ran = run(notebook, Path(folder))
        nbformat.write(ran, notebook)
        print(notebook.name)


if __name__ == "__main__":
    main()
