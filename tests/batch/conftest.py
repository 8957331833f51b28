"""A model's folder, a folder of bars, and what an undisturbed run on this machine makes of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd
import pytest

import fin_pyfunc
from tests.models import bars, small_forest

N_ROWS = (20_000, 12_000, 30_000, 25_000, 8_000, 15_000)


class Scored(NamedTuple):
    model: Path
    bars: Path
    preds: Path


def command(model: Path, source: Path, target: Path, *more: str) -> list[str]:
    """`fin-pyfunc score` as a process."""
    paths = ["-m", str(model), "--input", str(source), "--output", str(target)]
    return [sys.executable, "-m", "fin_pyfunc_cli", "score", *paths, *more]


def run(model: Path, source: Path, target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(model, source, target, *more), capture_output=True, text=True, timeout=250)


def content(folder: Path) -> dict[str, bytes]:
    """Every file that a run left, but for the two that hold times."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if name not in ("_fin_pyfunc.json", "_SUCCESS")}


def rows(n: int, seed: int) -> pd.DataFrame:
    """Rows for `small_forest`, with an identifier whose type Spark does not have, and a column it does not know."""
    drawn = bars().sample(n, replace=True, random_state=seed).reset_index(drop=True)
    times = pd.Series(pd.date_range("2026-01-05", periods=n, freq="s", unit="ns", tz="Europe/Zurich"))
    return drawn.assign(time=times, note="open")


@pytest.fixture(scope="session")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    folder = tmp_path_factory.mktemp("score")
    forest = small_forest()
    sample = rows(100, 0).drop(columns="note")
    fin_pyfunc.save_model(forest.estimator, sample, folder / "model", identifiers=["time"])
    for i, n in enumerate(N_ROWS):
        path = folder / "bars" / f"2026-{i % 3 + 1:02}" / f"bars-{i}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        rows(n, i).to_parquet(path, row_group_size=4000)
    (folder / "bars" / "_SUCCESS").touch()
    answered = run(folder / "model", folder / "bars", folder / "preds")
    assert answered.returncode == 0, answered.stderr
    return Scored(folder / "model", folder / "bars", folder / "preds")
