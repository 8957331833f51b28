"""The wheel that rides along in a model: the same bytes for the same code, with the walk of trees for this platform."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from fin_pyfunc.authoring import wheel

MODULE = "fin_pyfunc/model/backends/_trees.abi3.so"
#: Which walk computes, where the path given first is the one that fin_pyfunc is imported from.
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
import fin_pyfunc
from fin_pyfunc.model.backends.trees import runner
from fin_pyfunc.model.tree_file import Arithmetic, Trees
assert fin_pyfunc.__file__.startswith(sys.argv[1]), fin_pyfunc.__file__
how = Arithmetic(rounds=False, link="sigmoid")
trees = Trees(1, how, *map(np.array, ([0], [1, -1, -1], [2, -1, -1], [0, 0, 0], [0.5, 0, 0], [0, 0, 0], [0, 0, 1], [0],
              [[-1.0], [1.0]], [0.0])))
print(runner(trees)(np.array([[0.0], [1.0]])).tolist(), "fin_pyfunc.model.backends._trees" in sys.modules)
"""
#: What it prints.
ANSWER = "[[0.7310585786300049, 0.2689414213699951], [0.2689414213699951, 0.7310585786300049]]"


def probed(folder: Path) -> str:
    command = [sys.executable, "-I", "-c", PROBE, str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout.strip()


def test_the_same_code_gives_the_same_bytes(tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    built = [wheel.build(folder) for folder in (tmp_path, tmp_path / "again")]
    assert built[0].name.endswith("-py3-none-any.whl")
    assert built[0].read_bytes() == built[1].read_bytes()


@pytest.mark.skipif(find_spec("fin_pyfunc.model.backends._trees") is None, reason="the module in C was not built")
def test_trees_are_walked_by_the_module_that_rides_along_or_by_numpy(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel.build(tmp_path)) as archive:
        assert [name for name in archive.namelist() if name.endswith(".so")] == [MODULE]
        archive.extractall(tmp_path / "site")
    assert probed(tmp_path / "site") == f"{ANSWER} True"
    (tmp_path / "site" / MODULE).write_bytes(b"\x7fELF of another machine")
    assert probed(tmp_path / "site") == f"{ANSWER} False"
