"""Rows and answers between a worker and a model host, over a connected pair of stream sockets.

A worker asks, the host answers, one after the other. A host reads whatever its worker sends. A worker trusts nothing
that a host sends: it knows how long an answer may be before it reads one, and what it reads is numbers in buffers whose
lengths follow from the question, or msgpack of known types. Anything else is a `MalformedError`.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from fin_pyfunc.host.frames import decode_frame, encode_frame
from fin_pyfunc.host.opening import Described, Failure, Invoked
from fin_pyfunc.model.backends.native import ROUNDING
from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.features import Table

#: Bytes after the head, kind, and a number or two that say what is in them.
_HEAD = struct.Struct("<QBBHI")
#: What is received at once; most questions and answers about one row are shorter.
_PIECE = 1 << 16
#: Longest text of one label, in bytes of UTF-8, and longest of everything else that is not rows.
MAX_LABEL, MAX_TEXT, MAX_TRACE, MAX_CLASSES = 4096, 1 << 25, 1 << 14, 10_000
#: Longest sentence of a failure, in characters.
MAX_SAID = 500


class Word(IntEnum):
    """What a message is."""

    MATRIX = 1  # rows: float64; the number is how many
    FRAME = 2  # rows: Arrow IPC
    INVOCATIONS = 3  # a request's body; the number is how long the content type before it is
    DESCRIBED = 11
    FAILED = 12
    SCORES = 13  # int32 positions, then float64 probabilities if there are any
    LABELS = 14  # int32 positions, then the labels as msgpack
    INVOKED = 15


class MalformedError(Exception):
    """A host sent something that no host of this project sends."""


class Received(NamedTuple):
    """One message; `data` is overwritten by the next."""

    word: int
    flag: int
    number: int
    data: memoryview


class Channel:
    """One end of the pair. For one thread at a time.

    Parameters
    ----------
    sock : socket
        Closed with it.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._held = memoryview(bytearray(_PIECE))

    def send(self, word: Word, *parts: Any, flag: int = 0, number: int = 0) -> None:
        """Send a message made of bytes-like parts; raises OSError where nobody reads it."""
        views = [view.cast("B") for part in parts if (view := memoryview(part)).nbytes]
        size = sum(view.nbytes for view in views)
        views.insert(0, memoryview(_HEAD.pack(size, word, flag, 0, number)))
        sent, whole = self._sock.sendmsg(views, (), socket.MSG_NOSIGNAL), _HEAD.size + size
        if sent < whole:
            for view in views:
                if sent < view.nbytes:
                    self._sock.sendall(view[sent:], socket.MSG_NOSIGNAL)
                sent = max(0, sent - view.nbytes)

    def receive(self, max_bytes: int, deadline: float | None = None) -> Received | None:
        """Take the next message; None where the other side has closed.

        Parameters
        ----------
        max_bytes : int
            Longest message that is read at all.
        deadline : float, optional
            In the seconds of ``time.monotonic``; TimeoutError beyond.

        Raises
        ------
        MalformedError, TimeoutError, OSError
        """
        held = self._held
        n = self._take(held, deadline)
        while 0 < n < _HEAD.size:
            more = self._take(held[n:], deadline)
            n = n + more if more else 0
        if not n:
            return None
        size, word, flag, _, number = _HEAD.unpack_from(held)
        if size > max_bytes or n > _HEAD.size + size:
            raise MalformedError(f"a message of {size} bytes, of at most {max_bytes}")
        if _HEAD.size + size > _PIECE:
            whole = np.empty(_HEAD.size + size, np.uint8).data  # a bytearray would be filled with zeros first
            whole[:n] = held[:n]
            held = whole
        while n < _HEAD.size + size:
            more = self._take(held[n : _HEAD.size + size], deadline)
            if not more:
                return None
            n += more
        return Received(word, flag, number, held[_HEAD.size : n])

    def limit(self, deadline: float | None) -> None:
        """Have what is sent from now on raise TimeoutError beyond a deadline."""
        self._sock.settimeout(None if deadline is None else max(0.001, deadline - time.monotonic()))

    def break_off(self) -> None:
        """End whatever another thread sends or receives here."""
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            return

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def _take(self, into: memoryview, deadline: float | None) -> int:
        if deadline is not None:
            self.limit(deadline)
        return self._sock.recv_into(into)


# what a worker sends


def send_table(channel: Channel, table: Table) -> None:
    """Send rows."""
    if isinstance(table, np.ndarray):
        matrix = np.ascontiguousarray(table, dtype=np.float64)
        # a sum may depend on the order in memory
        is_by_columns = not table.flags.c_contiguous and table.flags.f_contiguous
        channel.send(Word.MATRIX, matrix, flag=is_by_columns, number=len(matrix))
    else:
        channel.send(Word.FRAME, encode_frame(table))


def send_invocations(channel: Channel, content_type: str, body: bytes) -> None:
    """Send the body of a request for MLflow's scoring server."""
    named = content_type.encode()
    channel.send(Word.INVOCATIONS, named, body, number=len(named))


# what a host reads


def read_table(received: Received) -> Table:
    """Rows that a worker has sent."""
    if received.word == Word.FRAME:
        return decode_frame(pa.py_buffer(bytes(received.data)))
    if not received.data.nbytes:
        return np.empty((received.number, 0))
    matrix = np.frombuffer(received.data, np.float64).reshape(received.number, -1)
    return np.array(matrix, order="F" if received.flag else "C")  # a copy: the model may keep it


def read_invocations(received: Received) -> tuple[str, bytes]:
    """Content type and body."""
    return bytes(received.data[: received.number]).decode(), bytes(received.data[received.number :])


# what a host sends


def send_scores(channel: Channel, scores: Scores, classes: Sequence[Label]) -> None:
    """Send scores, with their labels where those are not the ones that the model was described with."""
    index = scores.index.astype(np.int32)
    if scores.classes is classes or list(scores.classes) == list(classes):
        p = () if scores.probabilities is None else (np.ascontiguousarray(scores.probabilities, dtype=np.float64),)
        channel.send(Word.SCORES, index, *p)
    else:
        channel.send(Word.LABELS, index, msgspec.msgpack.encode(list(scores.classes)))


def send_struct(channel: Channel, word: Word, struct_: msgspec.Struct) -> None:
    """Send a description, a failure or what was invoked."""
    channel.send(word, msgspec.msgpack.encode(struct_))


# what a worker reads

_described = msgspec.msgpack.Decoder(Described)
_failure = msgspec.msgpack.Decoder(Failure)
_invoked = msgspec.msgpack.Decoder(Invoked)
_labels = msgspec.msgpack.Decoder(list[Label])


def answer_bytes(n_rows: int, described: Described) -> int:
    """How long an answer on so many rows may be."""
    a_row = 4 + 8 * len(described.classes) + (MAX_LABEL + 8 if described.kind == "pyfunc" else 0)
    return _PIECE + n_rows * a_row


def read_described(received: Received) -> Described | Failure:
    """What a host says of the model that it was to open.

    Raises
    ------
    MalformedError
    """
    try:
        if received.word == Word.FAILED:
            return _said(_failure.decode(received.data))
        if received.word == Word.DESCRIBED:
            described = _described.decode(received.data)
            _check_labels(described.classes)
            if len(described.classes) > MAX_CLASSES or len({(type(x), x) for x in described.classes}) < len(
                described.classes
            ):
                raise MalformedError("classes that are too many, or named twice")
            if described.kind != "pyfunc" and not described.classes:
                raise MalformedError("a classifier without classes")
            return msgspec.structs.replace(described, type_name=printable(described.type_name))
    except msgspec.MsgspecError as e:
        raise MalformedError("a description that cannot be read") from e
    raise MalformedError("an answer that is no description")


def read_scores(received: Received, n_rows: int, described: Described) -> Scores | Failure:
    """Scores of so many rows; copies, so that the channel can be used again.

    Raises
    ------
    MalformedError
    """
    try:
        if received.word == Word.FAILED:
            return _said(_failure.decode(received.data))
        if received.word not in (Word.SCORES, Word.LABELS) or received.data.nbytes < 4 * n_rows:
            raise MalformedError("an answer that is no scores")
        index = np.frombuffer(received.data, np.int32, n_rows).astype(np.intp)
        rest = received.data[4 * n_rows :]
        is_of_known = received.word == Word.SCORES
        classes = described.classes if is_of_known else _labels.decode(rest)
    except msgspec.MsgspecError as e:
        raise MalformedError("an answer that cannot be read") from e
    if is_of_known != (described.kind != "pyfunc"):
        raise MalformedError("labels other than the model's own")
    if not 0 <= index.min(initial=0) <= index.max(initial=0) < len(classes):
        raise MalformedError("a position beyond the labels")
    if not is_of_known:
        _check_labels(classes)
        return Scores(classes=classes, index=index, probabilities=None)
    if rest.nbytes != described.has_proba * 8 * n_rows * len(classes):
        raise MalformedError("probabilities of another shape")
    if not described.has_proba:
        return Scores(classes=classes, index=index, probabilities=None)
    p = np.array(np.frombuffer(rest, np.float64).reshape(n_rows, len(classes)))
    if not ((p >= -ROUNDING) & (p <= 1 + ROUNDING)).all():  # NaN fails both
        raise MalformedError("a probability that is not between 0 and 1")
    return Scores(classes=classes, index=index, probabilities=p)


def read_invoked(received: Received) -> Invoked:
    """What MLflow's scoring server made of a body.

    Raises
    ------
    MalformedError
    """
    if received.word != Word.INVOKED:
        raise MalformedError("an answer that is not what was invoked")
    try:
        invoked = _invoked.decode(received.data)
    except msgspec.MsgspecError as e:
        raise MalformedError("an answer that cannot be read") from e
    error = None if invoked.error is None else printable(invoked.error)
    return msgspec.structs.replace(invoked, error=error, trace=_trace(invoked.trace))


def _check_labels(labels: Sequence[Label]) -> None:
    for label in labels:
        if isinstance(label, str) and len(label.encode()) > MAX_LABEL:
            raise MalformedError("a label that is too long")
        if isinstance(label, float) and not math.isfinite(label):
            raise MalformedError("a label that is not a number")


def _said(failure: Failure) -> Failure:
    return msgspec.structs.replace(failure, said=printable(failure.said), trace=_trace(failure.trace))


def printable(text: str) -> str:
    """Text for an error or a log line, which a host may have made up."""
    return "".join(c if c.isprintable() else " " for c in text[:MAX_SAID])


def _trace(text: str) -> str:
    """A trace for the log, each of its lines marked: a host may have made up any of them."""
    return "\n".join(f"  | {printable(line)}" for line in text[-MAX_TRACE:].splitlines())
