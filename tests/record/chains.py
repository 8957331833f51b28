"""Records made without a server, and what verifying them says."""

from __future__ import annotations

from pathlib import Path

from fin_pyfunc.serving.record.chain import ChainWriter, take
from fin_pyfunc.serving.record.verify import ChainReport, Problem, verify

#: Of every segment that is made here.
PREAMBLE = b'"format":1,"host":"h","pid":1,"machine":"m","key_id":null,"libraries":{}'


def body(i: int) -> bytes:
    return b'"kind":"prediction","request_id":"r%d","answers":[%d]' % (i, i * 7)


def opened(folder: Path, rotate_bytes: int = 1 << 20) -> ChainWriter:
    return take(folder, PREAMBLE, rotate_bytes, lambda: "2026-11-24T10:00:00+00:00")


def written(folder: Path, counts: list[int], rotate_bytes: int = 1 << 20) -> None:
    """A record of one worker that was started once a count, and wrote so many records each time."""
    i = 0
    for count in counts:
        writer = opened(folder, rotate_bytes)
        for _ in range(count):
            writer.append([body(i) + b"\n"])
            i += 1
        writer.sync()
        writer.close()


def plain(folder: Path) -> list[Path]:
    """Segments that are not packed, oldest first."""
    return sorted(folder.glob("chain-*/*.jsonl"))


def problems(folder: Path) -> list[Problem]:
    return [problem for report in verify(folder) for problem in report.problems]


def only(folder: Path) -> ChainReport:
    """The report on a record that has one chain and no problem."""
    [report] = verify(folder)
    assert report.problems == []
    return report
