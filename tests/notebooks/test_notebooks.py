"""The notebooks run top to bottom, on real data where it is, and what is kept of them tells nothing of a machine."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from tests.market import FILE
from tests.models import OF_FORESTS

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def pictures(content: Any) -> list[int]:
    """How many pictures each cell showed."""
    shown = ([out for out in cell.get("outputs", []) if "image/png" in out.get("data", {})] for cell in content.cells)
    return [len(of_cell) for of_cell in shown]


@pytest.mark.long
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs_and_shows_the_plots_that_are_kept(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec is not None
    assert spec.loader is not None
    runner = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runner)
    work = tmp_path / "checkout" / "notebooks"
    work.mkdir(parents=True)
    if FILE.is_file():
        (tmp_path / "shared").symlink_to(FILE.parents[1])
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{work / 'mlflow.db'}")
    ran = runner.run(FOLDER / name, work)
    kept = nbformat.read(FOLDER / name, as_version=4)
    assert pictures(ran) == pictures(kept)
    assert sum(pictures(kept)) >= 1


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_what_is_kept_was_run_in_order_and_names_no_place(name: str) -> None:
    kept = nbformat.read(FOLDER / name, as_version=4)
    nbformat.validate(kept)
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    texts = [
        str({k: v for k, v in out.get("data", out).items() if k != "image/png"}) for c in code for out in c.outputs
    ]
    for text in texts:
        assert not re.search(r"/(root|home|work|tmp|Users|var|opt)/|Traceback", text), text
    assert "bars to train on" in " ".join(texts)
    assert "17,995 bars" in " ".join(texts) or "9,595 bars" in " ".join(texts), "kept on the demo's bars"


def test_what_is_kept_names_what_computes_a_forest_now_and_the_route_that_errors_name() -> None:
    kept = (FOLDER / "01_log_serve_predict.ipynb").read_text(encoding="utf-8")
    assert re.findall(r"computed by (\w+);", kept) == [OF_FORESTS]
    assert "fin-pyfunc inspect" not in kept
    assert kept.count("GET /models/info") >= 3
