"""`fin-pyfunc score --engine spark` on a real standalone cluster: a master and two workers, each its own process."""

from __future__ import annotations

import importlib.util
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.batch.conftest import Scored, content, rows, run
from tests.cli.commands import run as run_here
from tests.conftest import free_port, stop_process

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed"),
    pytest.mark.skipif(shutil.which("java") is None and "JAVA_HOME" not in os.environ, reason="there is no Java"),
]


class Cluster(NamedTuple):
    master: str
    work: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    import pyspark

    folder = tmp_path_factory.mktemp("spark")
    port = free_port()
    master = f"spark://127.0.0.1:{port}"
    launcher = str(Path(pyspark.__file__).parent / "bin" / "spark-class")
    worker = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder), "--host", "127.0.0.1", "--webui-port", "0"]
    commands = [
        ["Master", "--host", "127.0.0.1", "--port", str(port), "--webui-port", "0"],
        ["Worker", *worker, master],
        ["Worker", *worker, master],
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        # several splits of a file, so that several tasks answer for it
        options = ["sql.files.maxPartitionBytes=250000", "sql.files.openCostInBytes=1", "task.maxFailures=1"]
        submitted = " ".join(f"--conf spark.{option}" for option in (*options, "executor.memory=512m"))
        patch.setenv("PYSPARK_SUBMIT_ARGS", f"{submitted} pyspark-shell")
        processes, logs = [], []
        for i, (role, *arguments) in enumerate(commands):
            logs.append(folder / f"{i}-{role}.log")
            with logs[-1].open("wb") as log:
                called = [launcher, f"org.apache.spark.deploy.{role.lower()}.{role}", *arguments]
                # what is asked for on a worker's machine does not change what was chosen for the whole of it
                environ = {**os.environ, "FIN_PYFUNC_BACKEND": "abacus"}
                processes.append(subprocess.Popen(called, stdout=log, stderr=subprocess.STDOUT, env=environ))
        try:
            deadline = time.monotonic() + 90
            while logs[0].read_text().count("Registering worker") < 2:
                assert time.monotonic() < deadline, "\n".join(log.read_text() for log in logs)
                time.sleep(0.2)
            yield Cluster(master, folder)
        finally:
            for process in processes:
                stop_process(process)


def test_two_workers_refuse_a_row_in_one_sentence_and_go_on_once_it_is_mended_to_the_same_bytes_as_one_machine(
    scored: Scored, cluster: Cluster, tmp_path: Path
) -> None:
    source, target = tmp_path / "bars", tmp_path / "preds"
    source.mkdir()
    for name, seed in (("a", 1), ("b", 2)):
        frame = rows(9000, seed)
        frame.loc[17, "spread"] = 0.012345  # stored once, as it is: a byte of the footer more would be another input
        plain = {"compression": None, "use_dictionary": False, "write_statistics": False}
        frame.to_parquet(source / f"{name}.parquet", row_group_size=2000, **plain)
    here = run_here("score", "-m", scored.model, "-i", source, "-o", tmp_path / "here")
    assert here.code == 0, here

    good = (source / "b.parquet").read_bytes()
    bad = good.replace(struct.pack("<d", 0.012345), struct.pack("<d", np.nan))
    assert good != bad
    (source / "b.parquet").write_bytes(bad)
    failed = run(scored.model, source, target, "--engine", "spark", "--spark-master", cluster.master)
    assert failed.returncode == 1
    told = failed.stderr.splitlines()[-1]
    assert told.startswith("Error: b.parquet: Spark could not score it")
    assert "feature 'spread' is NaN" in told
    assert "--engine local names the row" in told
    assert "at org.apache" not in failed.stderr
    assert list(content(target)) == ["a-00000.parquet"]
    done = (target / "a-00000.parquet").stat().st_mtime_ns

    (source / "b.parquet").write_bytes(good)
    answered = run(scored.model, source, target, "--engine", "spark", "--spark-master", cluster.master)
    assert answered.returncode == 0, answered.stderr
    assert content(target) == content(tmp_path / "here")
    assert (target / "_SUCCESS").is_file()
    assert (target / "a-00000.parquet").stat().st_mtime_ns == done
    for run_of_two in cluster.work.glob("app-*"):
        assert len([path for path in run_of_two.iterdir() if path.is_dir()]) == 2, "each worker had an executor"
