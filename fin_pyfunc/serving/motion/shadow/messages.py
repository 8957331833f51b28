"""What a worker and the process of its shadow say to each other, and how that goes through a pipe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec

from fin_pyfunc.model.decision import Label
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.settings import Models

T = TypeVar("T")

#: Bytes before a message, which say how many it has; least significant first.
_LENGTH = 4


class Opening(msgspec.Struct, array_like=True, tag=0):
    """Which model to open, and how to go about it: the first message.

    Parameters
    ----------
    path : str
        Its folder, or the bare file.
    uri, model_id, kind : str
        As `Resolved` has them.
    backend : str or None
        As the server's models are opened with.
    is_data : bool
        Nothing executable may be opened.
    part_of_time : float
        Of one processor, from 0 to 1.
    tolerance : float or None
        As `comparison.compare` takes it.
    differences_file : str or None
    differences_bytes : int
    log_level : str
    is_json : bool
        How the log is written.
    models : Models
    request_seconds : float
        As the settings have them, for a model that may run code.
    """

    path: str
    uri: str
    model_id: str
    kind: str
    backend: str | None
    is_data: bool
    part_of_time: float
    tolerance: float | None
    differences_file: str | None
    differences_bytes: int
    log_level: str
    is_json: bool
    models: Models = Models()
    request_seconds: float = 30.0


class Answered(msgspec.Struct, array_like=True, tag=1):
    """What answered the rows that follow, until it is said again.

    Parameters
    ----------
    model_id : str
    classes : list of label
    features : FeatureSpec or None
    """

    model_id: str
    classes: list[Label]
    features: FeatureSpec | None


class Rows(msgspec.Struct, array_like=True, tag=2, gc=False):
    """The rows of requests that one model answered, and what it answered; one request after another.

    Parameters
    ----------
    requests : list of (str, int)
        Each one's id, and how many rows it had.
    index : bytes
        `Scores.index` of all rows.
    probabilities : bytes or None
        `Scores.probabilities` of all rows.
    matrix : bytes or None
        The float64 table of all rows as it was scored, where the shadow takes the same.
    sent : list of bytes or None
        Else each request's rows as the client sent them, JSON.
    pickled : bytes or None
        Else the list of each request's table as it was scored.
    """

    requests: list[tuple[str, int]]
    index: bytes
    probabilities: bytes | None
    matrix: bytes | None
    sent: list[bytes] | None
    pickled: bytes | None


class Clear(msgspec.Struct, array_like=True, tag=3):
    """Drop what waits: the shadow has been stopped."""


class Ready(msgspec.Struct, array_like=True, tag=4):
    """The model is open, and warm."""


class Refused(msgspec.Struct, array_like=True, tag=5):
    """The model could not be opened.

    Parameters
    ----------
    problem : str
    """

    problem: str


class Report(msgspec.Struct, array_like=True, tag=6):
    """What came of rows since the last report.

    Parameters
    ----------
    taken : int
        Rows that wait no more.
    agreed, failed, stopped : int
        Rows of the same class; rows that the shadow could not answer; and rows that were dropped with `Clear`.
    pairs : dict of (str, str) to int
        Rows of another class, by the class answered and the shadow's.
    compared : int
        Rows whose probabilities could be compared.
    difference, greatest : float
        Sum over those rows, and the greatest, of their greatest difference of a probability.
    """

    taken: int = 0
    agreed: int = 0
    failed: int = 0
    stopped: int = 0
    pairs: dict[tuple[str, str], int] = {}
    compared: int = 0
    difference: float = 0.0
    greatest: float = 0.0


ToShadow = Opening | Answered | Rows | Clear
ToWorker = Ready | Refused | Report

_encode = msgspec.msgpack.Encoder().encode


def framed(message: ToShadow | ToWorker) -> bytes:
    """A message as it goes through the pipe."""
    content = _encode(message)
    return len(content).to_bytes(_LENGTH, "little") + content


class Frames(Generic[T]):
    """Messages out of the pieces that a pipe gives.

    Parameters
    ----------
    kinds : type
        What messages there may be.
    """

    def __init__(self, kinds: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(kinds)
        self._rest = bytearray()

    def feed(self, piece: bytes) -> Iterator[T]:
        """The messages that a further piece completes."""
        self._rest += piece
        at = 0
        while len(self._rest) >= at + _LENGTH:
            end = at + _LENGTH + int.from_bytes(self._rest[at : at + _LENGTH], "little")
            if len(self._rest) < end:
                break
            yield self._decoder.decode(bytes(self._rest[at + _LENGTH : end]))
            at = end
        del self._rest[:at]
