"""The walk of trees under AddressSanitizer and UndefinedBehaviorSanitizer: its tests, and arrays of any numbers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from fin_pyfunc.model.backends import trees

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
SOURCE = Path(trees.__file__).with_name("_trees.c")
FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")

#: Puts the module in place of the one that was built for use, and runs what it is told.
DRIVER = """
import importlib.util, sys
import fin_pyfunc.model.backends
name = "fin_pyfunc.model.backends._trees"
spec = importlib.util.spec_from_file_location(name, sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
sys.modules[name] = fin_pyfunc.model.backends._trees = module
"""
TESTS = """
import pytest
which = "bits or module or file or refused or narrow"
files = "tests/compiling/test_trees.py", "tests/compiling/test_tree_files.py"
sys.exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *files, "-k", which]))
"""
FUZZER = """
import time
import numpy as np
from fin_pyfunc.model.tree_file import DTYPES

rng = np.random.default_rng(int(sys.argv[2]))
until, made, refused = time.monotonic() + 30, 0, 0
VALUES = (0.0, -0.0, 1.0, -0.5, -1.0, -9.0, 2.7, 63.0, 64.0, 1e10, -1e10, 1e300, -1e300, np.inf, -np.inf, np.nan, 1e-36)
X = rng.choice(VALUES, (300, 3))

def numbers(size, least=-2, most=9):
    return rng.integers(least, most, size)

def starts(count, length):
    spans = np.sort(numbers(count + 1, 0, length + 1))
    if rng.random() < 0.8:
        spans[0], spans[-1] = 0, length
    return spans[: rng.choice([len(spans), len(spans), 0])]

while time.monotonic() < until:
    n, n_trees, width = int(rng.integers(1, 12)), int(rng.integers(1, 3)), int(rng.integers(1, 4))
    n_values, n_bytes, n_terms, n_codes = (int(value) for value in rng.integers(1, 9, 4))
    left = numbers(n, -2, n + 1)
    arrays = {
        "roots": numbers(n_trees, 0, n), "left": left, "right": np.where(left < 0, -1, numbers(n, 0, n + 1)),
        "feature": numbers(n, 0, 3), "threshold": rng.choice(X.ravel(), n), "flags": numbers(n, 0, 16),
        "item": numbers(n, 0, 3), "target": numbers(n_trees, 0, 2), "values": rng.normal(size=n_values * width),
        "base": rng.normal(size=int(rng.integers(1, 5))), "category_starts": starts(3, n_bytes),
        "categories": numbers(n_bytes, 0, 256),
    }
    if rng.random() < 0.7:  # a tree, and not any numbers
        left[:] = -1
        order = 1
        for node in range(n):
            if order + 2 <= n and node < order and rng.random() < 0.9:
                left[node], arrays["right"][node] = order, order + 1
                order += 2
        arrays["right"] = np.where(left < 0, -1, arrays["right"])
        arrays["roots"], arrays["target"] = np.zeros(1, int), arrays["target"][:1]
    if rng.random() < 0.3:
        arrays |= {"linear_starts": starts(n_values, n_terms), "linear_feature": numbers(n_terms, 0, 4),
                   "linear_slope": rng.normal(size=n_terms), "linear_missing": rng.normal(size=n_values)}
    if rng.random() < 0.3:
        arrays["zeros"] = numbers(3, 0, 3)
    if rng.random() < 0.3:
        arrays |= {"code_starts": starts(3, n_codes), "codes": np.sort(rng.choice(X.ravel(), n_codes))}
    if rng.random() < 0.3:
        name = str(rng.choice(list(arrays)))
        if len(arrays[name]):
            arrays[name] = arrays[name].copy()
            arrays[name][int(rng.integers(len(arrays[name])))] = int(rng.choice([-1, 0, 5, 200, 255]))
    given = tuple(np.asarray(arrays.get(name, []), dtype=dtype) for name, dtype in DTYPES.items())
    how = bool(rng.random() < 0.5), bool(rng.random() < 0.3), rng.choice([np.nan, 0.0]), rng.choice([1.0, 3.0])
    try:
        trees = module.Trees(3, width, *how, given)
    except (ValueError, OverflowError):
        refused += 1
        continue
    made += 1
    for rows in (1, 7, 300):
        scores = np.empty((rows, len(arrays["base"])))
        trees.score(np.ascontiguousarray(X[:rows]), scores)
        module.link(scores, made % 2, bool(made % 3))
print(made, refused)
assert made > 100 and refused > 100
"""


@pytest.fixture(scope="module")
def sanitized(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The module with its sanitizers, and the environment that it can be imported in."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no gcc")
    libraries = [_library(compiler, name) for name in ("libasan.so", "libubsan.so")]
    built = tmp_path_factory.mktemp("sanitized") / "_trees.abi3.so"
    include = sysconfig.get_paths()["include"]
    command = [compiler, *FLAGS, "-ffp-contract=off", "-shared", "-fPIC", f"-I{include}", str(SOURCE), "-lm"]
    subprocess.run([*command, "-o", str(built)], check=True, timeout=120)
    environ = os.environ | {
        "LD_PRELOAD": " ".join(libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1",  # Python itself never frees all of its memory
        "PYTHONMALLOC": "malloc",
        "OMP_NUM_THREADS": "1",
    }
    return built, environ


def _library(compiler: str, name: str) -> str:
    found = subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
    path = found.stdout.strip()
    if not Path(path).is_absolute():
        pytest.skip(f"gcc has no {name}")
    return str(Path(path).resolve())


def ran(code: str, sanitized: tuple[Path, dict[str, str]], *arguments: str) -> None:
    built, environ = sanitized
    command = [sys.executable, "-c", DRIVER + code, str(built), *arguments]
    folder = Path(__file__).parents[2]
    done = subprocess.run(command, env=environ, cwd=folder, capture_output=True, text=True, timeout=800, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]


def test_the_tests_of_the_engine_reach_nothing_beyond_its_arrays(sanitized: tuple[Path, dict[str, str]]) -> None:
    ran(TESTS, sanitized)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_arrays_of_any_numbers_are_refused_or_scored(seed: str, sanitized: tuple[Path, dict[str, str]]) -> None:
    ran(FUZZER, sanitized, seed)
