"""`fin-pyfunc score` on this machine: every row once, whatever happens to the process; and one model a folder."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import fin_pyfunc
from fin_pyfunc.batch.parts import split
from tests.batch.conftest import N_ROWS, Scored, command, content, rows
from tests.cli.commands import refused
from tests.cli.commands import run as run_here
from tests.models import logistic, small_forest


def test_every_row_has_the_estimators_answer_beside_its_own_identifier(scored: Scored) -> None:
    estimator = small_forest().estimator
    names = ["time", "prediction", "probability", "confidence", "probability_-1", "probability_0", "probability_1"]
    for path in sorted(scored.bars.rglob("*.parquet")):
        source, part = pd.read_parquet(path), scored.preds / path.relative_to(scored.bars).with_suffix("")
        answered = pd.read_parquet(f"{part}-00000.parquet")
        assert list(answered.columns) == names
        assert pq.read_schema(f"{part}-00000.parquet").field("time") == pq.read_schema(path).field("time")
        pd.testing.assert_series_equal(answered["time"].astype(source["time"].dtype), source["time"])
        expected = estimator.predict_proba(source[list(estimator.feature_names_in_)])
        np.testing.assert_allclose(answered[names[4:]], expected, atol=1e-6)
        np.testing.assert_array_equal(answered["prediction"], estimator.classes_[expected.argmax(axis=1)])
    assert (scored.preds / "_SUCCESS").is_file()


def test_the_record_says_which_model_scored_which_files(scored: Scored) -> None:
    record = json.loads((scored.preds / "_fin_pyfunc.json").read_text())
    assert record["model_id"].startswith("sha256:")
    for name, digest in record["files"].items():
        assert digest == hashlib.sha256(next(scored.model.rglob(name)).read_bytes()).hexdigest()
    assert "estimator.skops" in record["files"]
    assert [known["n_rows"] for known in record["inputs"]] == [N_ROWS[i] for i in (0, 3, 1, 4, 2, 5)]
    assert record["backend"] in ("trees", "native")


def test_killed_at_any_moment_it_goes_on_and_ends_with_the_same_bytes(scored: Scored, tmp_path: Path) -> None:
    target, chance, kills = tmp_path / "preds", random.Random(4), 0
    for attempt in range(40):
        process = subprocess.Popen(
            command(scored.model, scored.bars, target), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        if attempt < 5:
            had = len(list(target.rglob("*.parquet")))
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:  # until it writes, then at some moment
                if target.exists() and (any(target.rglob(".*.part")) or len(list(target.rglob("*.parquet"))) > had):
                    break
                time.sleep(0.001)
            time.sleep(chance.random() * 0.1)
            process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=100)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, err
        kills += 1
        assert {name for name in content(target) if not name.rpartition("/")[2].startswith(".")} <= set(
            content(scored.preds)
        )
    assert kills >= 2
    assert content(target) == content(scored.preds)


def test_what_is_done_is_not_done_again(scored: Scored) -> None:
    before = {path: path.stat().st_mtime_ns for path in scored.preds.rglob("*")}
    again = run_here("score", "-m", scored.model, "-i", scored.bars, "-o", scored.preds)
    assert (again.code, again.out) == (0, "")
    assert f"{sum(N_ROWS):,} rows" in again.err
    assert {path: path.stat().st_mtime_ns for path in scored.preds.rglob("*")} == before


def test_another_model_or_a_changed_input_is_not_mixed_into_a_folder(scored: Scored, tmp_path: Path) -> None:
    fitted = logistic()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "other")
    assert "begun with other model id" in refused(
        "score", "-m", tmp_path / "other", "-i", scored.bars, "-o", scored.preds
    )
    shutil.copytree(scored.bars, tmp_path / "bars")
    rows(50, 9).to_parquet(tmp_path / "bars" / "more.parquet")
    told = refused("score", "-m", scored.model, "-i", tmp_path / "bars", "-o", scored.preds)
    assert "begun with other inputs" in told
    assert "another folder" in told


def test_a_bad_row_is_named_by_file_and_number_and_a_mended_file_may_follow(scored: Scored, tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    bad = rows(25_000, 3)
    bad.loc[21_017, "spread"] = np.inf
    bad.to_parquet(tmp_path / "bars" / "b.parquet", row_group_size=7000)
    told = refused("score", "-m", scored.model, "-i", tmp_path / "bars", "-o", tmp_path / "preds")
    assert "b.parquet, row 21017 (data rows are counted from 0)" in told
    assert "spread" in told
    assert not content(tmp_path / "preds")
    rows(25_000, 3).to_parquet(tmp_path / "bars" / "b.parquet")
    mended = run_here("score", "-m", scored.model, "-i", tmp_path / "bars", "-o", tmp_path / "preds", "--no-proba")
    assert mended.code == 0, mended
    answered = pd.read_parquet(tmp_path / "preds" / "b-00000.parquet")
    assert list(answered.columns) == ["time", "prediction", "confidence"]
    assert len(answered) == 25_000


def test_a_folder_that_cannot_be_what_is_meant_is_refused(scored: Scored, tmp_path: Path) -> None:
    def told(source: Path, target: Path) -> str:
        return refused("score", "-m", scored.model, "-i", source, "-o", target)

    assert "not to be the input folder or in it" in told(scored.bars, scored.bars / "preds")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    assert "name an empty folder" in told(scored.bars, tmp_path / "full")
    (tmp_path / "empty").mkdir()
    assert "no Parquet file" in told(tmp_path / "empty", tmp_path / "preds")
    (tmp_path / "full" / "text.parquet").write_text("bar_id,spread\n")
    assert "text.parquet is not a Parquet file" in told(tmp_path / "full", tmp_path / "preds")
    rows(9, 0).drop(columns="spread").to_parquet(tmp_path / "empty" / "less.parquet")
    assert "less.parquet lacks column 'spread'" in told(tmp_path / "empty", tmp_path / "preds")
    assert not (tmp_path / "preds").exists()


def test_a_file_without_rows_gets_one_without_predictions(scored: Scored, tmp_path: Path) -> None:
    (tmp_path / "bars").mkdir()
    rows(9, 0).head(0).to_parquet(tmp_path / "bars" / "none.parquet")
    answered = run_here("score", "-m", scored.model, "-i", tmp_path / "bars", "-o", tmp_path / "preds")
    assert answered.code == 0, answered
    assert pd.read_parquet(tmp_path / "preds").shape[0] == 0


@pytest.mark.parametrize("part_rows", [1, 4000, 9000, 10**9])
def test_parts_hold_every_row_group_once_and_in_order(scored: Scored, part_rows: int) -> None:
    path = next(scored.bars.rglob("bars-2.parquet"))
    cut = list(split(path, scored.bars, part_rows))
    assert [group for part in cut for group in part.row_groups] == list(range(8))
    assert [part.first_row for part in cut] == list(np.cumsum([0, *(part.n_rows for part in cut)])[:-1])
    assert all(part.n_rows >= part_rows for part in cut[:-1])
    assert len({part.name for part in cut}) == len(cut)


def test_memory_does_not_grow_with_the_rows(scored: Scored, tmp_path: Path) -> None:
    peaks = []
    for n, folder in ((10_000, "few"), (600_000, "many")):
        (tmp_path / folder).mkdir()
        rows(n, 1).to_parquet(tmp_path / folder / "bars.parquet", row_group_size=50_000)
        called = command(scored.model, tmp_path / folder, tmp_path / f"{folder}-preds")
        process = subprocess.Popen(called, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        peaks.append(usage.ru_maxrss / 1024)
    assert peaks[1] - peaks[0] < 120, peaks  # MiB; the rows and answers themselves are 70
