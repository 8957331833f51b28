"""What a worker and the process of its shadow say to each other, and how that goes through a pipe."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import msgspec
import numpy as np

from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.features import FeatureSpec, Table

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
    """The rows of one request, and what was answered.

    Parameters
    ----------
    request_id : str
    index : bytes
        `Scores.index`.
    probabilities : bytes or None
        `Scores.probabilities`.
    matrix : bytes or None
        The float64 table that was scored, where the shadow takes the same.
    sent : bytes or None
        Else the rows as the client sent them, JSON.
    pickled : bytes or None
        Else the table that was scored.
    """

    request_id: str
    index: bytes
    probabilities: bytes | None
    matrix: bytes | None
    sent: bytes | None
    pickled: bytes | None

    def __len__(self) -> int:
        return len(self.index) // np.dtype(np.intp).itemsize

    def scores(self, classes: list[Label]) -> Scores:
        """What was answered."""
        p = None if self.probabilities is None else np.frombuffer(self.probabilities).reshape(len(self), -1)
        return Scores(classes=classes, index=np.frombuffer(self.index, np.intp), probabilities=p)

    def table(self) -> Table | None:
        """The table that was scored; None where the rows are as the client sent them."""
        if self.matrix is not None:
            return np.frombuffer(self.matrix).reshape(len(self), -1)
        if self.pickled is None:
            return None
        table: Table = pickle.loads(self.pickled)  # noqa: S301 - of the worker whose child this is
        return table


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


def rows_of(request_id: str, scores: Scores, table: Table, sent: Any, *, is_same: bool) -> Rows:
    """The rows of one request in the form that costs the least to send.

    Parameters
    ----------
    request_id : str
    scores : Scores
        What was answered.
    table : ndarray of shape (n_rows, n_features) or DataFrame
        What was scored.
    sent : bytes-like or None
        The rows as the client sent them, JSON, where it sent JSON.
    is_same : bool
        Whether the shadow takes the same features.
    """
    p = scores.probabilities
    matrix = raw = pickled = None
    if is_same and isinstance(table, np.ndarray) and table.dtype == np.float64:
        matrix = table.tobytes()
    elif sent is not None:
        raw = bytes(sent)
    else:
        pickled = pickle.dumps(table, pickle.HIGHEST_PROTOCOL)
    index = scores.index.astype(np.intp, copy=False).tobytes()
    return Rows(request_id, index, None if p is None else p.tobytes(), matrix, raw, pickled)


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
