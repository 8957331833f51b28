"""What the record costs: the same server without it, with `sync: interval`, and with `sync: always`, driven in turn."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import contenders
from benchmarks.bench import Bench
from benchmarks.row import Row
from benchmarks.servers import ROOT
from benchmarks.settings import Windows, beside, medians, side_by_side
from fin_pyfunc.serving.record.reading import entries
from fin_pyfunc.serving.record.verify import verify

CONNECTIONS = 64
OFF, INTERVAL, ALWAYS = "no record", "record, sync: interval", "record, sync: always"
#: What a record of one row takes, about.
RECORD_BYTES = 1000
#: Of the throughput without the record, this much is to be left under `interval`; under `always` so many a second.
LEFT, PER_SECOND = 0.9, 2000
SYNCS = 300


def measure(bench: Bench) -> list[Row]:
    """The same server once a setting, side by side; this disk beside them, before and after."""
    uri = bench.models.ours["forest"]
    (ROOT / ".bench").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="record-", dir=ROOT / ".bench") as folder:
        environs = {
            name: {"FIN_PYFUNC__RECORD__FOLDER": f"{folder}/{sync}", "FIN_PYFUNC__RECORD__SYNC": sync}
            for name, sync in ((INTERVAL, "interval"), (ALWAYS, "always"))
        }
        servers = [contenders.ours(uri, name=name, environ=environs.get(name)) for name in (OFF, INTERVAL, ALWAYS)]
        syncs = [_syncs_a_second(Path(folder))]
        found = side_by_side(bench, servers, CONNECTIONS)
        syncs.append(_syncs_a_second(Path(folder)))
        counts = {sync: _whole(Path(folder, sync)) for sync in ("interval", "always")}
    return _rows(found, syncs, counts)


def _syncs_a_second(folder: Path) -> float:
    """How often this disk makes one record safe after another: what nobody without group commit beats."""
    path = folder / "syncs"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        start = time.perf_counter()
        for _ in range(SYNCS):
            os.write(handle, b"x" * RECORD_BYTES)
            os.fdatasync(handle)
        return SYNCS / (time.perf_counter() - start)
    finally:
        os.close(handle)
        path.unlink()


def _whole(folder: Path) -> int:
    """How many predictions a record holds, which must be whole.

    Raises
    ------
    RuntimeError
        It is not.
    """
    problems = [str(problem) for report in verify(folder) for problem in (*report.problems, *report.gaps)]
    if problems:
        raise RuntimeError(f"the record is not whole: {problems[0]}")
    return sum(1 for _ in entries(folder))


def _rows(found: Windows, syncs: list[float], counts: dict[str, int]) -> list[Row]:
    rates = {name: medians(of, lambda window: window.found.rate) for name, of in found.items()}
    what, at = f"requests/s at {CONNECTIONS} connections", f"at {CONNECTIONS} connections"
    limit = f"this disk does {statistics.median(syncs):,.0f} syncs a second, one record each"
    return [
        Row(0, f"{what}: {INTERVAL}, to {OFF}", "×", beside(found[INTERVAL], found[OFF]), LEFT),
        Row(0, f"{what}: {ALWAYS}", "/s", rates[ALWAYS], PER_SECOND, note=limit),
        Row(0, f"{what}: {ALWAYS}, to {OFF}", "×", beside(found[ALWAYS], found[OFF])),
        Row(0, f"{what}: {OFF}", "/s", rates[OFF]),
        Row(0, f"{what}: {INTERVAL}", "/s", rates[INTERVAL], note=f"{counts['interval']:,} records, verified"),
        Row(0, "syncs a second of this disk, one record each", "/s", syncs, note=f"{counts['always']:,} records"),
        *(Row(0, f"{name}: p50 {at}", "ms", medians(of, lambda w: w.found.p50)) for name, of in found.items()),
        *(
            Row(0, f"{name}: p99 {at}", "ms", medians(of, lambda w: w.found.latency[99.0]))
            for name, of in found.items()
        ),
    ]
