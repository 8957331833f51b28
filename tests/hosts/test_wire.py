"""What crosses between a worker and a model host, and what a worker makes of a host that lies."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fin_pyfunc.host.opening import Described, Failure, Invoked
from fin_pyfunc.host.wire import (
    MAX_LABEL,
    Channel,
    MalformedError,
    Received,
    Word,
    answer_bytes,
    read_described,
    read_invocations,
    read_invoked,
    read_scores,
    read_table,
    send_invocations,
    send_scores,
    send_struct,
    send_table,
)
from fin_pyfunc.model.decision import Scores

ESTIMATOR = Described(kind="estimator", type_name="SVC", classes=["a", "b"], has_proba=True, features=None)
NO_PROBA = msgspec.structs.replace(ESTIMATOR, has_proba=False)
PYFUNC = Described(kind="pyfunc", type_name="x", classes=[], has_proba=False, features=None)
HEAD = struct.Struct("<QBBHI")
LABELS: Any = st.lists(
    st.text(max_size=5)
    | st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False),
    min_size=1,
)


@pytest.fixture(scope="module")
def ends() -> Iterator[tuple[Channel, Channel]]:
    one, other = map(Channel, socket.socketpair())
    yield one, other
    one.close()
    other.close()


def crossed(ends: tuple[Channel, Channel], send: Any) -> Received:
    """What is received of what is sent, however long it is."""
    sender = threading.Thread(target=send, args=(ends[0],))
    sender.start()
    received = ends[1].receive(1 << 40)
    sender.join()
    assert received is not None
    return received


@given(arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(0, 6))), st.sampled_from("CF"))
def test_a_matrix_crosses_bit_for_bit(ends: tuple[Channel, Channel], matrix: Any, order: Any) -> None:
    matrix = np.asarray(matrix, order=order)
    table = read_table(crossed(ends, lambda channel: send_table(channel, matrix)))
    assert isinstance(table, np.ndarray)
    assert table.shape == matrix.shape
    assert table.tobytes() == matrix.tobytes()
    assert table.flags.f_contiguous == matrix.flags.f_contiguous
    assert table.flags.owndata
    assert table.flags.writeable


def test_a_large_table_crosses(ends: tuple[Channel, Channel]) -> None:
    matrix = np.random.default_rng(0).standard_normal((20_000, 30))
    table = read_table(crossed(ends, lambda channel: send_table(channel, matrix)))
    assert np.array_equal(table, matrix)
    frame = pd.DataFrame(matrix).assign(name="x")
    assert read_table(crossed(ends, lambda channel: send_table(channel, frame))).equals(frame)


@given(LABELS, st.data())
def test_labels_cross_with_their_types(ends: tuple[Channel, Channel], classes: list[Any], data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(0, len(classes) - 1), min_size=1)))
    scores = Scores(classes=classes, index=index, probabilities=None)
    received = crossed(ends, lambda channel: send_scores(channel, scores, []))
    read = read_scores(received, len(index), PYFUNC)
    assert isinstance(read, Scores)
    assert [(type(x), x) for x in read.classes] == [(type(x), x) for x in classes]
    assert (read.index == index).all()


@given(st.integers(1, 9), st.data())
def test_scores_cross_bit_for_bit(ends: tuple[Channel, Channel], n: int, data: st.DataObject) -> None:
    p = data.draw(arrays(np.float64, (n, 2), elements=st.floats(0, 1)))
    scores = Scores(classes=["a", "b"], index=p.argmax(axis=1), probabilities=p)
    received = crossed(ends, lambda channel: send_scores(channel, scores, ESTIMATOR.classes))
    assert received.data.nbytes <= answer_bytes(n, ESTIMATOR)
    read = read_scores(received, n, ESTIMATOR)
    assert isinstance(read, Scores)
    assert read.probabilities is not None
    assert read.probabilities.tobytes() == p.tobytes()
    assert read.index.tolist() == scores.index.tolist()


def test_a_body_crosses_with_its_content_type(ends: tuple[Channel, Channel]) -> None:
    body = b"x" * 100_000
    received = crossed(ends, lambda channel: send_invocations(channel, "text/csv; charset=utf-8", body))
    assert read_invocations(received) == ("text/csv; charset=utf-8", body)


def said(word: int, data: bytes) -> Received:
    return Received(word, 0, 0, memoryview(data))


def ints(*values: int) -> bytes:
    return np.array(values, np.int32).tobytes()


def floats(*values: float) -> bytes:
    return np.array(values, np.float64).tobytes()


@pytest.mark.parametrize(
    ("described", "word", "data"),
    [
        (ESTIMATOR, Word.SCORES, ints(2) + floats(0, 1)),
        (ESTIMATOR, Word.SCORES, ints(-1) + floats(0, 1)),
        (ESTIMATOR, Word.SCORES, ints(0) + floats(0, 1.1)),
        (ESTIMATOR, Word.SCORES, ints(0) + floats(-0.1, 1)),
        (ESTIMATOR, Word.SCORES, ints(0) + floats(float("nan"), 1)),
        (ESTIMATOR, Word.SCORES, ints(0) + floats(float("inf"), 1)),
        (ESTIMATOR, Word.SCORES, ints(0) + floats(1)),
        (ESTIMATOR, Word.SCORES, ints(0) + floats(1, 0, 0)),
        (ESTIMATOR, Word.SCORES, ints(0)),
        (ESTIMATOR, Word.SCORES, b""),
        (ESTIMATOR, Word.LABELS, ints(0) + msgspec.msgpack.encode(["a"])),
        (ESTIMATOR, Word.DESCRIBED, ints(0) + floats(0, 1)),
        (ESTIMATOR, 200, b""),
        (ESTIMATOR, Word.FAILED, b"\xff\xff"),
        (ESTIMATOR, Word.FAILED, msgspec.msgpack.encode({"kind": "exit", "said": ""})),
        (NO_PROBA, Word.SCORES, ints(0) + floats(0, 1)),
        (PYFUNC, Word.SCORES, ints(0)),
        (PYFUNC, Word.LABELS, ints(0) + msgspec.msgpack.encode([])),
        (PYFUNC, Word.LABELS, ints(0) + msgspec.msgpack.encode([None])),
        (PYFUNC, Word.LABELS, ints(0) + msgspec.msgpack.encode([["a"]])),
        (PYFUNC, Word.LABELS, ints(0) + msgspec.msgpack.encode([float("nan")])),
        (PYFUNC, Word.LABELS, ints(0) + msgspec.msgpack.encode(["a" * (MAX_LABEL + 1)])),
        (PYFUNC, Word.LABELS, ints(0) + b"\x80\x04\x95"),
    ],
)
def test_scores_that_no_host_sends_are_malformed(described: Described, word: int, data: bytes) -> None:
    with pytest.raises(MalformedError):
        read_scores(said(word, data), 1, described)


@given(st.integers(0, 255), st.binary(max_size=200), st.sampled_from([ESTIMATOR, NO_PROBA, PYFUNC]), st.integers(1, 9))
def test_no_bytes_of_a_host_do_harm(word: int, data: bytes, described: Described, n_rows: int) -> None:
    for read in (
        lambda received: read_scores(received, n_rows, described),
        read_described,
        read_invoked,
    ):
        try:
            read(said(word, data))
        except MalformedError:
            continue


def test_a_trace_is_marked_line_by_line_so_that_it_makes_no_line_of_a_log() -> None:
    invoked = Invoked(status=400, failure="model", error="E\nrror", trace="a\n[2026-01-01] [INFO] forged\x1b[0m")
    told = read_invoked(said(Word.INVOKED, msgspec.msgpack.encode(invoked)))
    assert told.error == "E rror"
    assert told.trace.splitlines() == ["  | a", "  | [2026-01-01] [INFO] forged [0m"]


def test_a_failures_sentence_is_short_and_printable() -> None:
    failure = Failure(kind="scoring", said="a\x1b[31m\n" + "x" * 100_000)
    read = read_scores(said(Word.FAILED, msgspec.msgpack.encode(failure)), 1, ESTIMATOR)
    assert isinstance(read, Failure)
    assert len(read.said) == 500
    assert read.said.isprintable()


def test_a_description_is_read_or_malformed(ends: tuple[Channel, Channel]) -> None:
    received = crossed(ends, lambda channel: send_struct(channel, Word.DESCRIBED, ESTIMATOR))
    assert read_described(received) == ESTIMATOR
    for wrong in (msgspec.structs.replace(ESTIMATOR, classes=[]), {"kind": "estimator"}):
        with pytest.raises(MalformedError):
            read_described(said(Word.DESCRIBED, msgspec.msgpack.encode(wrong)))


def test_a_message_longer_than_it_may_be_is_not_read() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(HEAD.pack(1 << 40, Word.SCORES, 0, 0, 0))
        with pytest.raises(MalformedError):
            Channel(other).receive(1 << 20)


def test_more_than_one_answer_is_malformed() -> None:
    one, other = socket.socketpair()
    with one, other:
        one.sendall(2 * (HEAD.pack(4, Word.SCORES, 0, 0, 0) + ints(0)))
        with pytest.raises(MalformedError):
            Channel(other).receive(1 << 20)


def test_an_answer_that_trickles_is_given_up_when_its_time_is_up() -> None:
    one, other = socket.socketpair()
    stop = threading.Event()

    def trickle() -> None:
        one.sendall(HEAD.pack(1000, Word.SCORES, 0, 0, 0))
        while not stop.wait(0.02):
            one.sendall(b"x")

    with one, other:
        thread = threading.Thread(target=trickle)
        thread.start()
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            Channel(other).receive(1 << 20, began + 0.3)
        assert time.monotonic() - began < 1
        stop.set()
        thread.join()


def test_a_question_that_nobody_reads_is_given_up_when_its_time_is_up() -> None:
    one, other = socket.socketpair()
    with one, other:
        channel = Channel(one)
        channel.limit(time.monotonic() + 0.2)
        with pytest.raises(TimeoutError):
            send_table(channel, np.zeros((100_000, 10)))


def test_the_end_of_the_other_side_is_no_message() -> None:
    for sent in (b"", b"\0\0", HEAD.pack(10, Word.SCORES, 0, 0, 0) + b"abc"):
        one, other = socket.socketpair()
        with other:
            one.sendall(sent)
            one.close()
            assert Channel(other).receive(1 << 20) is None


@pytest.mark.parametrize("classes", [list(range(10_001)), [1, 1], [float("inf")], ["x" * 5000]])
def test_classes_that_are_too_many_twice_or_no_labels_are_malformed(classes: list[Any]) -> None:
    described = Described(kind="estimator", type_name="A", classes=classes, has_proba=False, features=None)
    with pytest.raises(MalformedError):
        read_described(said(Word.DESCRIBED, msgspec.msgpack.encode(described)))
