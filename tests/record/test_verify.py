"""A record that is not as it was written: each place is named, whatever was done to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.record.keeping import Keeper
from fin_pyfunc.serving.record.lines import START, chained
from fin_pyfunc.serving.record.verify import Known, heads, read_heads, verify
from tests.record.chains import body, only, opened, plain, problems, written

COUNTS = [4, 1, 3, 9]
#: Lines of the record below, the first one of each segment included.
LINES = sum(COUNTS) + len(COUNTS)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record") / "whole"
    written(folder, COUNTS)
    return folder


class Copy:
    """A copy of a record to do something to: its lines, each with its segment and its number in it."""

    def __init__(self, whole: Path, to: Path) -> None:
        shutil.rmtree(to, ignore_errors=True)
        self.folder = shutil.copytree(whole, to)
        self.segments = [path.read_bytes().splitlines(keepends=True) for path in plain(to)]
        self.places = [(s, i) for s, lines in enumerate(self.segments) for i in range(len(lines))]

    def save(self) -> None:
        for path, lines in zip(plain(self.folder), self.segments, strict=True):
            path.write_bytes(b"".join(lines))

    def named(self) -> set[tuple[int, int]]:
        """Places that verifying names, as (segment, line counted from 1)."""
        self.save()
        return {(problem.place.segment, problem.place.line) for problem in problems(self.folder)}


def test_a_record_that_nobody_touched_is_whole(whole: Path) -> None:
    report = only(whole)
    assert (report.records, report.segments, report.first, report.last) == (LINES, len(COUNTS), 0, LINES - 1)
    assert not report.is_written
    assert report.unconfirmed == 0


@settings(max_examples=150)
@given(data=st.data())
def test_a_changed_byte_is_named(data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = Copy(whole, tmp_path_factory.getbasetemp() / "changed")
    segment, i = data.draw(st.sampled_from(copy.places))
    line = bytearray(copy.segments[segment][i])
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] ^= data.draw(st.integers(1, 255))
    copy.segments[segment][i] = bytes(line)
    named = copy.named()
    assert (segment, i + 1) in named, named
    # a line break that is gone, or is new, makes other lines of it
    if at < len(line) - 1 and b"\n" not in line[:-1]:
        assert named == {(segment, i + 1)}


def test_a_changed_record_is_named_alone_though_it_is_longer_now(whole: Path, tmp_path: Path) -> None:
    copy = Copy(whole, tmp_path / "longer")
    segment, i = copy.places[-3]
    line = copy.segments[segment][i]
    copy.segments[segment][i] = line[:-2] + b',"more":1}\n'
    assert copy.named() == {(segment, i + 1)}


@settings(max_examples=60)
@given(data=st.data())
def test_a_removed_record_is_named(data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = Copy(whole, tmp_path_factory.getbasetemp() / "removed")
    segment, i = data.draw(st.sampled_from(copy.places))
    number = copy.places.index((segment, i))
    del copy.segments[segment][i]
    copy.save()
    said = " ".join(str(problem) for problem in problems(copy.folder))
    assert f"record {number} is missing" in said or f"records {number} to {number} are missing after" in said


@settings(max_examples=60)
@given(data=st.data())
def test_a_swapped_record_is_named(data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    copy = Copy(whole, tmp_path_factory.getbasetemp() / "swapped")
    pair = data.draw(st.lists(st.sampled_from(copy.places), min_size=2, max_size=2, unique=True))
    (s, i), (t, j) = sorted(pair)
    copy.segments[s][i], copy.segments[t][j] = copy.segments[t][j], copy.segments[s][i]
    named = copy.named()
    assert (s, i + 1) in named
    assert (t, j + 1) in named or (t, j + 2) in named or (t + 1, 1) in named


@settings(max_examples=60)
@given(data=st.data())
def test_an_inserted_record_is_named(
    data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    copy = Copy(whole, tmp_path_factory.getbasetemp() / "inserted")
    segment, i = data.draw(st.sampled_from(copy.places))
    from_segment, from_line = data.draw(st.sampled_from(copy.places))
    foreign, _ = chained(START, [body(3) + b"\n"])
    line = data.draw(st.sampled_from([copy.segments[from_segment][from_line], foreign, b'{"a":1}\n', b"\n"]))
    copy.segments[segment].insert(i + 1, line)
    following = [(segment, j) for j in range(i + 2, len(copy.segments[segment]))]
    following += [(segment + 1, 0)] if segment + 1 < len(copy.segments) else []
    named = copy.named()
    if (segment, i + 2) not in named:  # nobody can tell which of two that are the same was inserted
        [(at, j), *_] = following
        assert copy.segments[at][j] == line
        assert (at, j + 1) in named, named


def test_a_record_that_was_forged_with_the_right_digest_is_named(whole: Path, tmp_path: Path) -> None:
    copy = Copy(whole, tmp_path / "forged")
    from fin_pyfunc.serving.record.lines import Position, digest

    before = copy.segments[2][1]
    forged, _ = chained(Position(7, digest(before[:-1])), [body(99) + b"\n"])
    copy.segments[2].insert(2, forged)
    assert {(2, 4)} <= copy.named()


def test_a_missing_segment_is_named(whole: Path, tmp_path: Path) -> None:
    for i in range(len(COUNTS)):
        copy = Copy(whole, tmp_path / f"missing-{i}")
        first = sum(COUNTS[:i]) + i
        plain(copy.folder)[i].unlink()
        said = " ".join(str(problem) for problem in problems(copy.folder))
        last = first + COUNTS[i]
        assert f"record {first} is missing" in said or f"records {first} to {last} are missing" in said


def test_a_head_that_is_gone_or_was_changed_is_named(whole: Path, tmp_path: Path) -> None:
    copy = Copy(whole, tmp_path / "gone")
    (copy.folder / "chain-000" / "head.json").unlink()
    assert "head.json is missing" in str(problems(copy.folder)[0])
    copy = Copy(whole, tmp_path / "changed")
    head = copy.folder / "chain-000" / "head.json"
    content = head.read_bytes()
    for at in range(content.index(b"}")):
        head.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        assert problems(copy.folder), content[at : at + 1]


def test_heads_kept_elsewhere_show_what_was_written_anew(tmp_path: Path) -> None:
    written(tmp_path / "record", [3, 3])
    kept = heads(verify(tmp_path / "record"))
    written(tmp_path / "record", [2])
    assert [p for report in verify(tmp_path / "record", kept) for p in report.problems] == []
    shutil.rmtree(tmp_path / "record")
    written(tmp_path / "record", [9])  # whole in itself, and another one
    [report] = verify(tmp_path / "record", kept)
    assert "the head kept elsewhere" in str(report.problems[0])
    written(tmp_path / "other", [1])
    [report] = verify(tmp_path / "other", kept)
    assert "is missing after this line" in str(report.problems[0])
    chain = Known(chain=5, seq=1, sha256="0" * 64)
    assert any("the whole chain is missing" in str(p) for r in verify(tmp_path / "other", [chain]) for p in r.problems)
    (tmp_path / "heads.json").write_text("[1]")
    with pytest.raises(FinPyfuncError, match="holds no heads"):
        read_heads(tmp_path / "heads.json")


@settings(max_examples=60)
@given(data=st.data())
def test_a_changed_byte_of_a_packed_segment_changes_no_record_unseen(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory, packed: Path
) -> None:
    folder = tmp_path_factory.getbasetemp() / "packed-changed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(packed, folder)
    segments = sorted(folder.glob("chain-*/*.zst"))
    path = data.draw(st.sampled_from(segments))
    content = bytearray(path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    found = problems(folder)
    if found:
        assert int(path.name[:8]) in {problem.place.segment for problem in found}
    else:  # a byte that packing does not use: the records are what they were
        assert _content(path) == _content(packed / path.relative_to(folder))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("record") / "packed"
    written(folder, [30, 30, 3])
    Keeper(folder, compress=True, keep_days=None, keep_bytes=None).tidy()
    assert len(list(folder.glob("chain-*/*.zst"))) == 2
    assert only(folder).records == 66
    return folder


def _content(path: Path) -> bytes:
    import pyarrow as pa

    with pa.input_stream(str(path), compression="zstd") as stream:
        return bytes(stream.read())


def test_a_torn_tail_is_no_whole_record_until_the_next_start_cuts_it(tmp_path: Path) -> None:
    folder = tmp_path / "record"
    written(folder, [3])
    path = plain(folder)[0]
    content = path.read_bytes()
    for torn in (b'{"seq":4,"prev', b"\0" * 700, content[-60:-1]):
        with path.open("ab") as file:
            file.write(torn)
        assert f"{len(torn)} bytes at the end are no whole record" in str(problems(folder)[0])
        writer = opened(folder)
        writer.append([body(9) + b"\n"])
        writer.sync()
        writer.close()
        report = only(folder)
        assert f"{len(torn)} bytes of segment" in report.cuts[-1]
        assert [kept.read_bytes() for kept in folder.glob("chain-000/*.torn")].count(torn) == 1
        path = plain(folder)[-1]


def test_what_was_changed_before_the_head_is_no_torn_tail_and_is_not_cut(whole: Path, tmp_path: Path) -> None:
    copy = Copy(whole, tmp_path / "changed")
    copy.segments[-1][2] = copy.segments[-1][2].replace(b'"r', b'"x')
    copy.save()
    before = [path.read_bytes() for path in plain(copy.folder)]
    written(copy.folder, [2])
    assert [path.read_bytes() for path in plain(copy.folder)][: len(before)] == before
    assert {(problem.place.segment, problem.place.line) for problem in problems(copy.folder)} == {(3, 3)}


def test_a_folder_without_a_record_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(FinPyfuncError, match="no record in"):
        verify(tmp_path)
    with pytest.raises(FinPyfuncError, match="cannot be read"):
        verify(tmp_path / "nowhere")
