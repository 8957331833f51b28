"""A disk that takes no more: answers stop under `always`, and go on under `interval`; neither breaks the record."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

import fin_pyfunc
from fin_pyfunc.serving.record.reading import entries
from fin_pyfunc.serving.record.verify import verify
from tests.models import logistic
from tests.servers import Serving, serving

ROW = {"return_1": 1e-5, "order_flow_imbalance": 0.3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fitted = logistic()
    folder = tmp_path_factory.mktemp("disk") / "model"
    fin_pyfunc.save_model(fitted.estimator, fitted.train, folder)
    return folder


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here: " + mounted.stderr.decode().strip())
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@contextmanager
def recording(model: Path, folder: Path, record: Path, **settings: Any) -> Iterator[Serving]:
    env = {f"FIN_PYFUNC__RECORD__{name.upper()}": str(value) for name, value in settings.items()}
    env["FIN_PYFUNC__RECORD__FOLDER"] = str(record)
    with serving("-m", str(model), folder=folder, env=env) as server:
        yield server


def remount(disk: Path, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", str(disk)], check=True, capture_output=True)


def fill(disk: Path) -> Path:
    """Leave no room; the file to remove to make some."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    assert os.statvfs(disk).f_bavail == 0
    return filler


def until(server: Serving, status: int, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while (answered := server.predict(ROW)).status_code != status:
        assert time.monotonic() < deadline, f"{answered.status_code} {answered.text}\n{server.log()}"
        time.sleep(0.02)
    return answered


def test_on_a_full_disk_answers_stop_under_always_until_there_is_room(model: Path, disk: Path, tmp_path: Path) -> None:
    answered = []
    with recording(model, tmp_path, disk / "record") as server:
        answered.append(server.predict(ROW).headers["X-Request-ID"])
        filler = fill(disk)
        deadline = time.monotonic() + 60
        while (refused := server.predict(ROW)).status_code == 200:  # what is left of the segment's last page
            answered.append(refused.headers["X-Request-ID"])
            assert time.monotonic() < deadline
        for one in (refused, server.predict(ROW), server.predict_batch([ROW] * 40)):
            assert one.status_code == 503
            assert one.headers["Retry-After"]
            assert "could not be recorded" in one.json()["detail"]
        assert (
            server.log().count("THE RECORD CANNOT BE WRITTEN (no space left on device): predictions are refused") == 1
        )
        filler.unlink()
        answered.append(until(server, 200).headers["X-Request-ID"])
        assert "the record can be written again" in server.log()
    found = [entry.record.request_id for entry in entries(disk / "record")]
    assert found == answered
    assert [report.problems for report in verify(disk / "record")] == [[]]


def test_on_a_full_disk_answers_go_on_under_interval_and_the_record_says_what_it_lost(
    model: Path, disk: Path, tmp_path: Path
) -> None:
    settings = {"sync": "interval", "interval_seconds": 0.1, "max_waiting_bytes": 20_000}
    with recording(model, tmp_path, disk / "record", **settings) as server:
        server.predict(ROW)
        _wait_for_records(disk / "record", 1)
        filler = fill(disk)
        for _ in range(100):
            assert server.predict(ROW).status_code == 200
        server.wait_for_log("THE RECORD CANNOT BE WRITTEN (no space left on device): records wait in memory")
        server.wait_for_log("THE RECORD LOSES PREDICTIONS")
        _wait_for_metric(server, "fin_pyfunc_records_failed_total")
        _wait_for_metric(server, "fin_pyfunc_records_waiting")
        filler.unlink()
        server.wait_for_log("the record can be written again")
        assert server.predict(ROW).status_code == 200
    [report] = verify(disk / "record")
    assert report.problems == []
    lost = sum(int(re.match(r"(\d+) predictions", gap)[1]) for gap in report.gaps)  # type: ignore[index]
    assert lost > 0
    assert len(list(entries(disk / "record"))) + lost == 102


def test_in_a_read_only_folder_answers_wait_for_it_to_be_writable(model: Path, disk: Path, tmp_path: Path) -> None:
    remount(disk, "ro")
    with recording(model, tmp_path, disk / "record") as server:
        assert server.predict(ROW).status_code == 503
        server.wait_for_log("THE RECORD CANNOT BE WRITTEN (read-only file system)")
        remount(disk, "rw")
        until(server, 200)
    assert len(list(entries(disk / "record"))) == 1


def test_in_a_read_only_folder_answers_go_on_under_interval(model: Path, disk: Path, tmp_path: Path) -> None:
    remount(disk, "ro")
    with recording(model, tmp_path, disk / "record", sync="interval", interval_seconds=0.1) as server:
        for _ in range(3):
            assert server.predict(ROW).status_code == 200
        server.wait_for_log("THE RECORD CANNOT BE WRITTEN (read-only file system): records wait in memory")
        remount(disk, "rw")
        server.wait_for_log("the record can be written again")
    assert len(list(entries(disk / "record"))) == 3  # those that waited, too


def _wait_for_records(folder: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not folder.exists() or not list(folder.glob("chain-*/*.jsonl")) or len(list(entries(folder))) < count:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _wait_for_metric(server: Serving, name: str) -> None:
    """Until it is more than 0."""
    deadline = time.monotonic() + 30
    while not re.search(
        rf"^{name}(\{{.*\}})? [1-9]", said := requests.get(server.url + "/metrics", timeout=30).text, re.M
    ):
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


def test_a_key_file_that_is_none_stops_the_start(model: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(b"short")
    env = {
        "FIN_PYFUNC__RECORD__FOLDER": "record",
        "FIN_PYFUNC__RECORD__FEATURES": "digest",
        "FIN_PYFUNC__RECORD__KEY_FILE": "key",
    }
    with serving("-m", str(model), folder=tmp_path, env=env, wait_for=None) as server:
        assert server.process.wait(60) == 1
        assert "fewer than 32 bytes" in server.log()
        assert "Traceback" not in server.log()
    assert not (tmp_path / "record").exists()
