"""Whether a record is whole: every line where it was, as it was, from the first that is kept to the last one made safe.

What this finds is what befell the files. Whoever may write to the folder could also write a whole new record; against
that, keep the heads that this prints on another machine, and have it compare them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.record import folder as folders
from fin_pyfunc.serving.record.chain import Cut
from fin_pyfunc.serving.record.folder import Chain, Segment
from fin_pyfunc.serving.record.lines import Link, Position, digest, read


class RecordError(FinPyfuncError):
    """There is no record, or it cannot be read, or has no such entry."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where a line is: lines of a segment are counted from 1."""

    chain: int
    segment: int
    line: int

    def __str__(self) -> str:
        return f"chain {self.chain}, segment {self.segment}, line {self.line}"


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What is wrong, and where."""

    place: Place
    said: str

    def __str__(self) -> str:
        return f"{self.place}: {self.said}"


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """The head of a chain as it was once verified."""

    chain: int
    seq: int
    sha256: str


class ChainReport(msgspec.Struct, kw_only=True):
    """What was found of one chain.

    Parameters
    ----------
    chain : int
    segments, records : int
        Files; lines, the first one of each segment included.
    first, last : int
        Numbers of the first and of the last record there are; -1 where there is none.
    sha256 : str
        Digest of the last one.
    is_written : bool
        Whether a worker writes it now; then what came after its head was read is not looked at.
    removed : str or None
        What was removed before the first one, as far as the anchor says.
    cuts : list of str
        Torn tails that were cut.
    unconfirmed : int
        Records after the head: what was written when a worker was killed, or is being written.
    gaps : list of str
        Predictions that could not be recorded, as the record itself says.
    problems : list of Problem
    """

    chain: int
    segments: int = 0
    records: int = 0
    first: int = -1
    last: int = -1
    sha256: str = ""
    is_written: bool = False
    removed: str | None = None
    unconfirmed: int = 0
    cuts: list[str] = []
    gaps: list[str] = []
    problems: list[Problem] = []


class _Said(msgspec.Struct, frozen=True):
    """What lines say that are no predictions."""

    segment: int | None = None
    opened: str = ""
    cut: Cut | None = None
    lost: int = 0
    since: str = ""
    until: str = ""


def verify(folder: Path, known: Sequence[Known] = ()) -> list[ChainReport]:
    """Read a whole record, and say what is wrong with it.

    Parameters
    ----------
    folder : Path
    known : sequence of Known, optional
        Heads that were kept elsewhere: the record must still have those lines, unless they were removed by age.

    Raises
    ------
    RecordError
        There is no record, or it cannot be read.
    """
    reports = []
    for chain in chains(folder):
        for is_last_try in (False, True):
            try:
                reports.append(_Walk(chain, _is_written(folder, chain), known).report)
                break
            except OSError as e:  # a segment was packed or removed meanwhile
                if is_last_try:
                    raise RecordError(
                        f"A segment of chain {chain.number} cannot be read ({e.strerror or e}): restore it."
                    ) from e
    there = {report.chain for report in reports}
    for head in known:
        if head.chain not in there:
            place = Place(chain=head.chain, segment=0, line=0)
            said = f"the whole chain is missing; it had records up to {head.seq}"
            reports.append(ChainReport(chain=head.chain, problems=[Problem(place=place, said=said)]))
    return reports


def chains(folder: Path) -> list[Chain]:
    """The chains of a record.

    Raises
    ------
    RecordError
        There are none.
    """
    try:
        found = folders.chains(folder)
    except OSError as e:
        raise RecordError(f"The folder {folder} cannot be read ({(e.strerror or str(e)).lower()}).") from e
    if not found:
        raise RecordError(f"There is no record in {folder}: name the folder that deployment.api.record.folder names.")
    return found


def _is_written(folder: Path, chain: Chain) -> bool:
    # under the lock of those who look for a chain that nobody writes, so that none takes this look for a worker
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(folders.locked(folder / folders.LOCK))
        return chain.is_taken()


class _Walk:
    """One walk along a chain."""

    def __init__(self, chain: Chain, is_written: bool, known: Sequence[Known]) -> None:
        self._chain = chain
        self.report = ChainReport(chain=chain.number, is_written=is_written)
        self._head = chain.head()
        self._known = {head.seq: head.sha256 for head in known if head.chain == chain.number}
        anchor = chain.anchor()
        self._last = chain.begin()
        #: where the line before is, and whether the digest of it is worth anything
        self._place: Place | None = None
        self._is_sure = True
        #: bytes of the segment up to here
        self._offset = 0
        #: two neighbours that do not fit together: the line after them tells which one was changed
        self._unfit: tuple[Place, Place] | None = None
        if anchor is not None:
            self.report.removed = f"records up to {anchor.seq} on {anchor.removed}: {anchor.reason}"
        segments = [s for s in chain.segments() if anchor is None or s.number > anchor.segment]
        for segment in segments:
            self._segment(segment, segment is segments[-1])
        self._end(segments)

    def _segment(self, segment: Segment, is_last: bool) -> None:
        self.report.segments += 1
        place = Place(chain=self._chain.number, segment=segment.number, line=0)
        self._offset = 0
        try:
            for i, line in enumerate(segment.lines(), 1):
                self._offset += len(line)
                place = Place(chain=self._chain.number, segment=segment.number, line=i)
                if line.endswith(b"\n"):
                    self._line(line[:-1], place)
                elif not (is_last and self.report.is_written):
                    self._problem(
                        place,
                        f"{len(line)} bytes at the end are no whole record: a torn tail, which the "
                        "next worker that starts cuts"
                        if is_last
                        else "the line is cut off",
                    )
        except FileNotFoundError:
            raise
        except OSError as e:
            self._problem(place, f"the file {segment.path.name} is damaged after this ({e.strerror or e})")
            self._is_sure = False

    def _line(self, line: bytes, place: Place) -> None:
        link = read(line)
        if link is None:
            self._problem(place, f"record {self._last.seq + 1} was changed: it is no record any more")
            self._go_on(Position(self._last.seq + 1, digest(line)), place, is_sure=False)
            return
        expected, fits = self._last.seq + 1, link.prev == self._last.sha256
        if self._unfit is not None:
            before, after = self._unfit
            # the one that its successor still fits is as it was
            self._problem(before if fits else after, "the record was changed")
            self._unfit, self._is_sure = None, fits
        if link.seq < expected and not fits:
            self._problem(place, f"record {link.seq} is not in its place: it was inserted, or moved here")
            return  # the line after it is to follow the one before it
        if link.seq > expected and not fits:
            missing = (
                f"record {expected} is" if link.seq == expected + 1 else f"records {expected} to {link.seq - 1} are"
            )
            self._problem(place, f"{missing} missing before this line")
        elif link.seq != expected:
            self._problem(place, f"the record was changed: it calls itself {link.seq}, and is {expected}")
            self._go_on(Position(expected, digest(line)), place, is_sure=False)
            self._count(link, line, place)
            return
        elif not fits and self._is_sure:
            if self._place is None:
                self._problem(place, "the record does not follow what was removed before it, or was changed")
            else:
                self._unfit = (self._place, place)
        self._go_on(Position(link.seq, digest(line)), place)
        self._count(link, line, place)

    def _go_on(self, position: Position, place: Place, *, is_sure: bool = True) -> None:
        self._last, self._place, self._is_sure = position, place, is_sure
        expected = self._known.pop(position.seq, position.sha256)
        if expected != position.sha256:
            self._problem(place, "the record is not the one that the head kept elsewhere speaks of")
        head = self._head
        if head is None or head.seq != position.seq:
            return
        # a line before it that is changed may be longer or shorter now
        is_as_long = self._unfit is None and all(p.place.segment != place.segment for p in self.report.problems)
        if head.segment != place.segment or (head.offset != self._offset and is_as_long):
            self._problem(place, f"the chain's {folders.HEAD}, which speaks of this record, was changed")
        if head.sha256 != position.sha256 and is_sure:
            # the head speaks of this line, and of another content: it is this one that was changed
            self._unfit, self._is_sure = None, False
            self._problem(place, "the record was changed: it is not the one that the chain's head speaks of")

    def _count(self, link: Link, line: bytes, place: Place) -> None:
        report = self.report
        report.records += 1
        report.first = link.seq if report.first < 0 else report.first
        report.last, report.sha256 = self._last
        if link.kind == "prediction":
            return None
        try:
            said = msgspec.json.decode(line, type=_Said)
        except msgspec.MsgspecError:
            return self._problem(place, "the record was changed: it is none that a server writes")
        if said.cut is not None:
            report.cuts = [
                *report.cuts,
                f"{said.cut.bytes} bytes of segment {said.cut.segment}, from byte {said.cut.offset}, on {said.opened}",
            ]
        if link.kind == "gap":
            report.gaps = [*report.gaps, f"{said.lost} predictions from {said.since} to {said.until}"]
        return None

    def _end(self, segments: Sequence[Segment]) -> None:
        here = self._place or Place(chain=self._chain.number, segment=0, line=0)
        head = self._head
        if self._unfit is not None:
            before, after = self._unfit
            is_after = head is None or head.seq != self._last.seq or head.sha256 != self._last.sha256
            self._problem(
                before,
                f"the record was changed, or the one after it ({after})" if is_after else "the record was changed",
            )
        if head is None:
            if segments:
                self._problem(
                    here, f"the chain's {folders.HEAD} is missing or damaged, so records after this line may be missing"
                )
        elif head.seq <= self._last.seq:
            self.report.unconfirmed = self._last.seq - head.seq
        else:
            self._problem(here, f"records {self._last.seq + 1} to {head.seq} are missing after this line")
        for seq in (seq for seq in self._known if seq > self._last.seq):
            self._problem(here, f"record {seq}, which a head kept elsewhere speaks of, is missing after this line")

    def _problem(self, place: Place, said: str) -> None:
        self.report.problems = [*self.report.problems, Problem(place=place, said=said)]


def lines_of(report: ChainReport) -> Iterator[str]:
    """A report in words, a line each."""
    yield (
        f"chain {report.chain}: {report.records} lines ({report.first} to {report.last}), "
        f"{report.segments} of which begin a segment, head {report.sha256 or 'none'}"
        + (", being written" if report.is_written else "")
    )
    if report.removed:
        yield f"  removed: {report.removed}"
    if report.unconfirmed:
        yield f"  written after the head, when a worker was killed or just now: {report.unconfirmed} records"
    yield from (f"  cut as a torn tail: {cut}" for cut in report.cuts)
    yield from (f"  NOT RECORDED: {gap}" for gap in report.gaps)
    yield from (f"  PROBLEM at {problem}" for problem in report.problems)


def heads(reports: Sequence[ChainReport]) -> list[Known]:
    """What to keep on another machine."""
    return [Known(chain=r.chain, seq=r.last, sha256=r.sha256) for r in reports if r.last >= 0]


def read_heads(path: Path) -> list[Known]:
    """Heads that were kept.

    Raises
    ------
    RecordError
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Known])
    except OSError as e:
        raise RecordError(f"{path} cannot be read ({(e.strerror or str(e)).lower()}).") from e
    except (msgspec.MsgspecError, UnicodeDecodeError) as e:
        raise RecordError(f"{path} holds no heads: 'fin-pyfunc record verify --heads' writes them.") from e
