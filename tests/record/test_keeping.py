"""Segments are closed, packed and removed, workers come and go, and the record stays whole."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from fin_pyfunc.serving.record.keeping import Keeper
from fin_pyfunc.serving.record.verify import verify
from tests.record.chains import body, only, opened, plain, problems, written


def keeper(folder: Path, keep_days: float | None = None, keep_bytes: int | None = None) -> Keeper:
    return Keeper(folder, compress=True, keep_days=keep_days, keep_bytes=keep_bytes)


def test_a_segment_that_is_full_is_followed_by_another(tmp_path: Path) -> None:
    written(tmp_path, [200], rotate_bytes=4096)
    report = only(tmp_path)
    assert report.segments > 5
    assert report.records == 200 + report.segments
    assert all(path.stat().st_size <= 4096 for path in plain(tmp_path))


def test_a_record_larger_than_a_segment_has_one_of_its_own(tmp_path: Path) -> None:
    writer = opened(tmp_path, rotate_bytes=4096)
    for size in (10, 9000, 10):
        writer.append([body(1) + b',"x":"' + b"y" * size + b'"\n'])
    writer.sync()
    writer.close()
    assert only(tmp_path).records == 3 + only(tmp_path).segments


def test_closed_segments_are_packed_and_the_record_reads_as_before(tmp_path: Path) -> None:
    written(tmp_path, [200], rotate_bytes=4096)
    before, was = only(tmp_path), sum(path.stat().st_size for path in plain(tmp_path))
    keeper(tmp_path).tidy()
    assert only(tmp_path) == before
    assert len(plain(tmp_path)) == 1
    packed = list(tmp_path.glob("chain-*/*.zst"))
    assert sum(path.stat().st_size for path in packed) < was / 2
    assert all(path.stat().st_mode & 0o077 == 0 for path in packed)
    written(tmp_path, [50], rotate_bytes=4096)  # another worker goes on
    assert only(tmp_path).sha256 != before.sha256


def test_packing_that_was_broken_off_is_done_again(tmp_path: Path) -> None:
    written(tmp_path, [100], rotate_bytes=4096)
    before, first = only(tmp_path), plain(tmp_path)[0]
    content = first.read_bytes()
    first.with_name(f"{first.name}.zst.part").write_bytes(b"half")
    keeper(tmp_path).tidy()
    first.write_bytes(content)  # as if it had ended between giving the new file its name and removing the old one
    assert only(tmp_path) == before
    keeper(tmp_path).tidy()
    assert only(tmp_path) == before
    assert not first.exists()


def test_what_is_too_old_is_removed_and_the_anchor_says_so(tmp_path: Path) -> None:
    written(tmp_path, [200], rotate_bytes=4096)
    old = plain(tmp_path)[:3]
    for path in old:
        os.utime(path, (time.time() - 3 * 86400,) * 2)
    keeper(tmp_path, keep_days=2).tidy()
    report = only(tmp_path)
    assert not any(path.exists() for path in old)
    assert report.removed is not None
    assert report.removed.endswith("older than 2 days")
    assert report.first > 0
    assert report.last - report.first + 1 == report.records
    written(tmp_path, [5])
    assert only(tmp_path).first == report.first


def test_the_oldest_of_all_chains_go_when_there_is_too_much(tmp_path: Path) -> None:
    first, second = opened(tmp_path, 4096), opened(tmp_path, 4096)
    for i in range(200):
        (first, second)[i % 2].append([body(i) + b"\n"])
    for writer in (first, second):
        writer.sync()
        writer.close()
    keeper(tmp_path, keep_bytes=15_000).tidy()
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 16_000
    reports = verify(tmp_path)
    assert [report.problems for report in reports] == [[], []]
    assert all(report.removed for report in reports)


def test_what_was_removed_by_somebody_else_is_named(tmp_path: Path) -> None:
    written(tmp_path, [200], rotate_bytes=4096)
    keeper(tmp_path, keep_bytes=15_000).tidy()
    first = min(tmp_path.glob("chain-000/*.jsonl*"))
    first.unlink()
    assert "missing before this line" in str(problems(tmp_path)[0])


def test_the_anchor_stays_whole_if_it_ends_before_the_segment_is_gone(tmp_path: Path) -> None:
    written(tmp_path, [200], rotate_bytes=4096)
    content = {path: path.read_bytes() for path in plain(tmp_path)[:2]}
    for path in content:
        os.utime(path, (0, 0))
    keeper(tmp_path, keep_days=1).tidy()
    before = only(tmp_path)
    for path, was in content.items():
        path.write_bytes(was)
    assert only(tmp_path) == before


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_that_start_go_on_with_chains_that_nobody_writes(tmp_path: Path, workers: int) -> None:
    for life in range(3):
        writers = [opened(tmp_path) for _ in range(workers)]
        for i, writer in enumerate(writers):
            writer.append([body(life * 10 + i) + b"\n"])
            writer.sync()
        assert all(report.is_written for report in verify(tmp_path))
        for writer in writers:
            writer.close()
    reports = verify(tmp_path)
    assert [report.problems for report in reports] == [[]] * workers
    assert [report.segments for report in reports] == [3] * workers


def test_a_worker_that_starts_mends_every_chain_that_nobody_writes(tmp_path: Path) -> None:
    writers = [opened(tmp_path) for _ in range(3)]
    for writer in writers:
        writer.append([body(1) + b"\n"])
        writer.sync()
        writer.close()
    for path in plain(tmp_path):
        with path.open("ab") as file:
            file.write(b"half a rec")
    opened(tmp_path).close()
    writer = opened(tmp_path)
    writer.append([body(2) + b"\n"])
    writer.sync()
    writer.close()
    reports = verify(tmp_path)
    assert [report.problems for report in reports] == [[]] * 3
    assert all("10 bytes of segment 0" in " ".join(report.cuts) for report in reports[1:])


def test_what_was_appended_and_not_made_safe_can_be_taken_back(tmp_path: Path) -> None:
    writer = opened(tmp_path)
    writer.append([body(1) + b"\n"])
    writer.sync()
    writer.append([body(2) + b"\n" + body(3) + b"\n"])
    writer.take_back()
    writer.append([body(4) + b"\n"])
    writer.sync()
    writer.close()
    assert only(tmp_path).last == 2
    assert b'"r4"' in plain(tmp_path)[0].read_bytes()
    assert b'"r2"' not in plain(tmp_path)[0].read_bytes()
