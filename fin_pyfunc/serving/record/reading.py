"""Records as they are read again: found by a request's id, or all of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from fin_pyfunc.model.decision import Label
from fin_pyfunc.serving.record.lines import digest, read
from fin_pyfunc.serving.record.verify import Place, RecordError, chains


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The answer for one row, as `/predict` gives it with probabilities."""

    prediction: Label
    probability: float | None
    probabilities: dict[str, float] | None
    confidence: str


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """From which probability on an answer counted as sure."""

    high: float
    medium: float


class Joined(msgspec.Struct, frozen=True, kw_only=True):
    """The call that a row was computed in, together with rows of other requests."""

    call: str
    row: int
    of: int


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One request that a model was asked; docs/operations.md says what each member means."""

    seq: int
    prev: str
    request_id: str
    client_request_id: str | None
    received: datetime
    decided: datetime
    principal: str | None
    route: str
    status: int
    error: str | None = None
    answers: list[Answer] | None
    joined: Joined | None = None
    model_uri: str
    default_model: bool
    model_id: str
    run_id: str | None
    artifact_sha256: str | None
    feature_order_sha256: str | None
    thresholds: Limits
    backend: str | None
    features: list[msgspec.Raw] | None
    features_hmac_sha256: list[str] | None = None
    identifiers: list[dict[str, Any]] | None = None

    @property
    def n_rows(self) -> int:
        """How many rows were asked for."""
        return len(self.features if self.features is not None else self.features_hmac_sha256 or ())


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """What wrote a segment: the first line of it."""

    format: int
    host: str
    pid: int
    machine: str
    key_id: str | None
    libraries: dict[str, str]


class Entry(NamedTuple):
    """A record, where it is, and what wrote it (None where the segment's first line is damaged)."""

    place: Place
    record: Record
    process: Process | None


_record = msgspec.json.Decoder(Record).decode
_process = msgspec.json.Decoder(Process).decode


def entries(folder: Path, containing: bytes = b"", damaged: list[Place] | None = None) -> Iterator[Entry]:
    """Records of predictions, chain by chain and in order; what cannot be read is left out, and `verify` names it.

    Parameters
    ----------
    folder : Path
    containing : bytes
        Only lines that hold this.
    damaged : list of Place, optional
        Given the place of each line that was left out because it is no record any more.

    Raises
    ------
    RecordError
    """
    for chain in chains(folder):
        for segment in chain.segments():
            process: Process | None = None
            try:
                for i, line in enumerate(segment.lines(), 1):
                    if i == 1:
                        process = _head_of(line)
                    if containing not in line:
                        continue
                    place = Place(chain=chain.number, segment=segment.number, line=i)
                    if (record := _read(line)) is not None:
                        yield Entry(place, record, process)
                    elif damaged is not None and _is_damaged(line):
                        damaged.append(place)
            except OSError as e:
                raise RecordError(
                    f"Segment {segment.number} of chain {chain.number} cannot be read ({e.strerror or e}): "
                    "'fin-pyfunc record verify' says more."
                ) from e


def find(folder: Path, request_id: str) -> list[Entry]:
    """The records of a request, by our id of it or by the caller's, which may have been used more than once.

    Raises
    ------
    RecordError
        There is none.
    """
    needle, damaged = msgspec.json.encode(request_id), list[Place]()
    found = [
        entry
        for entry in entries(folder, needle, damaged)
        if request_id in (entry.record.request_id, entry.record.client_request_id)
    ]
    if not found and damaged:
        raise RecordError(
            f"What is recorded of this request id cannot be read any more ({damaged[0]}): "
            "'fin-pyfunc record verify' says more."
        )
    if not found:
        raise RecordError(
            "There is no record of this request id: it is what X-Request-ID said in the answer; was it removed by age, "
            "or recorded in another folder?"
        )
    return found


def was_changed(folder: Path, entry: Entry) -> bool:
    """Whether what was written after a record, the next one or the chain's head, speaks of another one in its place.

    Raises
    ------
    RecordError
    """
    place = entry.place
    chain = next(chain for chain in chains(folder) if chain.number == place.chain)
    own: str | None = None
    try:
        for segment in chain.segments():
            if segment.number < place.segment:
                continue
            for i, line in enumerate(segment.lines(), 1):
                if own is not None:
                    link = read(line.rstrip(b"\n"))
                    return link is not None and link.prev != own
                if (segment.number, i) == (place.segment, place.line):
                    own = digest(line.rstrip(b"\n"))
    except OSError:
        return False  # nobody can tell; `verify` says what is damaged
    head = chain.head()
    return head is not None and head.seq == entry.record.seq and head.sha256 != own


def shown(entry: Entry, row: int | None = None) -> dict[str, Any]:
    """An entry as plain JSON values, for a reader.

    Parameters
    ----------
    entry : Entry
    row : int, optional
        Only this row of it.

    Raises
    ------
    RecordError
        It has no such row.
    """
    record = entry.record
    rows = slice(None)
    if row is not None:
        if not 0 <= row < record.n_rows:
            raise RecordError(f"This request has the rows 0 to {record.n_rows - 1}.")
        rows = slice(row, row + 1)
    values: dict[str, Any] = {"place": str(entry.place), **msgspec.to_builtins(record, enc_hook=_plain)}
    for name in ("answers", "features", "features_hmac_sha256", "identifiers"):
        if values.get(name) is not None:
            values[name] = values[name][rows]
    process = entry.process
    return {**values, "written_by": None if process is None else msgspec.to_builtins(process)}


def _plain(value: Any) -> Any:
    return msgspec.json.decode(bytes(value))


def _read(line: bytes) -> Record | None:
    link = read(line.rstrip(b"\n"))
    if link is None or link.kind != "prediction":
        return None
    try:
        return _record(line)
    except msgspec.MsgspecError:
        return None


def _is_damaged(line: bytes) -> bool:
    link = read(line.rstrip(b"\n"))
    return link is None or link.kind == "prediction"


def _head_of(line: bytes) -> Process | None:
    try:
        return _process(line)
    except msgspec.MsgspecError:
        return None
