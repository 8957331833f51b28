"""Clients that mean harm or are broken: each is refused or cut off, in bounded memory, and the others are answered."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from tests.models import bars, labels
from tests.raw_http import answers, connect, exchange, is_closed_within, post, until_closed
from tests.servers import Serving, serving

CLIENT_SECONDS = 2


@pytest.fixture(scope="module")
def row() -> dict[str, float]:
    return {name: float(value) for name, value in bars().iloc[0].items()}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, row: dict[str, float]) -> Iterator[Serving]:
    """One worker with a small model, and little patience; it is alive and well at the end."""
    folder = tmp_path_factory.mktemp("abused")
    fin_pyfunc.save_model(LogisticRegression().fit(bars(), labels(-1, 0, 1)), bars(), folder / "model")
    env = {"FIN_PYFUNC__LIMITS__CLIENT_SECONDS": str(CLIENT_SECONDS), "FIN_PYFUNC__LIMITS__MAX_CONNECTIONS": "1200"}
    with serving("-m", str(folder / "model"), folder=folder, env=env) as server:
        (worker,) = psutil.Process(server.process.pid).children()
        yield server
        assert worker.is_running()
        assert server.predict(row).status_code == 200
        assert "Traceback" not in server.log()


def memory(server: Serving) -> int:
    """MiB of all its processes."""
    first = psutil.Process(server.process.pid)
    return sum(p.memory_info().rss for p in (first, *first.children())) >> 20


class Others:
    """Somebody else's requests, one after the other while the block runs: all of them have to be answered."""

    def __init__(self, server: Serving, row: dict[str, float]) -> None:
        self._server, self._row, self._stop = server, row, threading.Event()
        self.answered: list[int] = []
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        with requests.Session() as session:
            while not self._stop.is_set():
                body = {"features": self._row}
                self.answered.append(session.post(self._server.url + "/predict", json=body, timeout=30).status_code)
                time.sleep(0.01)

    def __enter__(self) -> Others:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        assert self.answered
        assert set(self.answered) == {200}


# --- heads ------------------------------------------------------------------------------------------------------------


def test_too_many_or_too_large_headers_are_431(server: Serving) -> None:
    many = "".join(f"X-{i}: 1\r\n" for i in range(101))
    large = f"X: {'a' * 70_000}\r\n"
    lots = "".join(f"X-{i}: {'a' * 8000}\r\n" for i in range(10))
    for headers in (many, large, lots):
        (answer,) = exchange(server, f"GET /health HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
        assert answer.status == 431
        assert "max_headers" in answer.detail()
        assert answer.headers["connection"] == "close"
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_head_that_never_ends_is_431_before_it_fills_the_memory(server: Serving) -> None:
    before = memory(server)
    for start in (b"GET / HTTP/1.1\r\nX: ", b"GET /", b"GET / HTTP/1.1\r\n"):
        with connect(server) as connection:
            connection.sendall(start)
            sent = 0
            try:
                while sent < 1 << 26:
                    connection.sendall((b"a" * 65_536) if start[-1:] != b"\n" else b"X-A: b\r\n" * 8192)
                    sent += 65_536
            except ConnectionError:
                pass
            assert sent < 1 << 24
            got = until_closed(connection)
            assert all(answer.status in (400, 414, 431) for answer in answers(got))
    assert memory(server) - before < 50


def test_a_long_address_is_414(server: Serving) -> None:
    (answer,) = exchange(server, b"GET /models?experiment_name=" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.status == 414
    assert answer.detail()


@pytest.mark.parametrize(
    "sent",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),
        b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX\x00: y\r\n\r\n",
        b"GET / HTTP/9.9\r\nHost: x\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 1e3\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n",
    ],
)
def test_what_is_no_http_is_400_in_one_sentence(server: Serving, sent: bytes) -> None:
    (answer,) = exchange(server, sent)
    assert answer.status == 400
    assert "not valid HTTP" in answer.detail()


# --- requests within requests -----------------------------------------------------------------------------------------

INNER = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "headers",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 50",
        "Content-Length: 5, 50",
        "Content-Length: +5",
        "Content-Length: 0x5",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        " Transfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding:\x0bchunked",
        "X: y\nTransfer-Encoding: chunked",
    ],
)
def test_a_length_that_two_readers_may_read_differently_is_400_and_no_second_request_is_seen(
    server: Serving, headers: str
) -> None:
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{headers}\r\n\r\n".encode("latin-1")
    for body in (b"0\r\n\r\n", b"5\r\n{}   \r\n0\r\n\r\n"):
        found = exchange(server, head + body + INNER)
        assert [answer.status for answer in found] == [400]


@pytest.mark.parametrize(
    "body",
    [
        b"g\r\n",
        b"-1\r\n",
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"5 \r\n",
        b"5\n{}   \n",
        b"2\r\n{}XX0\r\n\r\n",
        b"0x2\r\n{}\r\n",
        b"\r\n",
    ],
)
def test_a_bad_chunk_is_400(server: Serving, body: bytes) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert [answer.status for answer in exchange(server, head + body + INNER)] == [400]


def test_chunks_are_counted_against_the_body_limit(server: Serving) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    (answer,) = exchange(server, head + b"10000\r\n" + b" " * 65_536 + b"\r\n" + b"200000\r\n" + b" " * 0x200000)
    assert answer.status == 413
    assert "max_row_bytes" in answer.detail()


def test_pipelined_requests_are_answered_in_their_order(server: Serving, row: dict[str, float]) -> None:
    with connect(server) as connection:
        for i in range(100):
            connection.sendall(post({"features": row} if i % 2 else {}, "/predict", f"X-Request-ID: r{i}"))
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        found = answers(until_closed(connection))
    assert [answer.status for answer in found] == [422, 200] * 50 + [200]
    assert [answer.headers["x-request-id"] for answer in found[:100]] == [f"r{i}" for i in range(100)]


def test_nothing_after_a_request_that_closes_is_answered(server: Serving) -> None:
    closing = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert len(exchange(server, closing + INNER)) == 1


# --- bodies -----------------------------------------------------------------------------------------------------------


def deep(n: int) -> bytes:
    return b"[" * n + b"]" * n


def with_key(i: int) -> bytes:
    return b'"k%d":1,' % i


#: What a body may be full of, by what is wrong with it: path, body and status; made when it is its turn.
BODIES: dict[str, Any] = {
    "a feature nested deeply": lambda: ("/predict", b'{"features": {"x": %s}}' % deep(100_000), 422),
    "features nested deeply": lambda: ("/predict", b'{"features": %s}' % deep(100_000), 422),
    "objects nested deeply": lambda: (
        "/predict",
        b'{"features": %s}' % (b'{"a":' * 40_000 + b"1" + b"}" * 40_000),
        422,
    ),
    "lists without an end": lambda: ("/predict", b"[" * 260_000, 422),
    "a batch nested deeply": lambda: ("/predict/batch", b'{"features_list": [{"x": %s}]}' % deep(5_000_000), 422),
    "a batch without an end": lambda: ("/predict/batch", b"[" * 10_000_000, 422),
    "records nested deeply": lambda: ("/invocations", b'{"dataframe_records": [{"x": %s}]}' % deep(1_000_000), 422),
    "a number of 250,000 digits": lambda: ("/predict", b'{"features": {"spread": %s}}' % (b"1" * 250_000), 422),
    "a fraction of 250,000 digits": lambda: ("/predict", b'{"features": {"x": 0.%s}}' % (b"1" * 250_000), 422),
    "a number of a million digits": lambda: ("/predict", b'{"features": {"spread": %s}}' % (b"1" * 1_000_000), 413),
    "a number of 30 MB": lambda: ("/predict/batch", b'{"features_list": [{"x": %s}]}' % (b"1" * 30_000_000), 422),
    "a number of 100 MB": lambda: ("/predict/batch", b'{"features_list": [{"x": %s}]}' % (b"1" * 100_000_000), 413),
    "a row of 1e6 keys": lambda: ("/predict", b'{"features": {%s"x":1}}' % b"".join(map(with_key, range(10**6))), 413),
    "a row of 2e4 keys": lambda: ("/predict", b'{"features": {%s"x":1}}' % b"".join(map(with_key, range(20_000))), 422),
    "a batch's row of 1e6 keys": lambda: (
        *("/predict/batch", b'{"features_list": [{%s"x":1}]}' % b"".join(map(with_key, range(10**6)))),
        422,
    ),
    "a record of 1e6 keys": lambda: (
        *("/invocations", b'{"dataframe_records": [{%s"x":1}]}' % b"".join(map(with_key, range(10**6)))),
        422,
    ),
    "1e6 keys beside the row": lambda: (
        *("/predict/batch", b'{%s"features_list": [{}]}' % b"".join(map(with_key, range(10**6)))),
        422,
    ),
}


@pytest.mark.parametrize("wrong", BODIES)
def test_a_body_made_to_cost_is_a_4xx_in_bounded_memory(server: Serving, row: dict[str, float], wrong: str) -> None:
    path, body, status = BODIES[wrong]()
    before = memory(server)
    with Others(server, row):
        found = exchange(server, post(body, path, "Connection: close"))
        assert [answer.status for answer in found] == [status]
    assert found[0].headers["content-type"] == "application/json"
    assert memory(server) - before < 400


CSV, PARQUET = "text/csv", "application/vnd.apache.parquet"


def wide_parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({f"c{i}": [1.0] for i in range(100_000)}), sink)
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def columns(n: int) -> bytes:
    return b",".join(b'"k%d"' % i for i in range(n))


#: Bodies of MLflow's route by what is wrong with them: content type, body and status; made when it is its turn.
TABLES: dict[str, Any] = {
    "CSV of 600,000 columns": lambda: (CSV, b"," * 600_000 + b"\n" + b"," * 600_000 + b"\n", 422),
    "CSV of 15,000,000 columns": lambda: (CSV, b"," * 15_000_000 + b"\n" + b"," * 15_000_000 + b"\n", 422),
    "a CSV cell of 30 MB": lambda: (CSV, b"spread\n" + b"x" * 30_000_000 + b"\n", 422),
    "a CSV name of 30 MB": lambda: (CSV, b"x" * 30_000_000 + b"\n1\n", 422),
    "1e6 quotes": lambda: (CSV, b"spread\n" + b'"' * 1_000_000, 422),
    "1e6 quotes and one": lambda: (CSV, b"spread\n" + b'"' * 1_000_001, 422),
    "1e7 carriage returns": lambda: (CSV, b"spread" + b'\r "' * 10_000_000, 422),
    "CSV of 2,500 empty columns": lambda: (CSV, (b"," * 2499 + b"\n") * 13_000, 413),
    "split: 200,000 columns": lambda: (
        "application/json",
        b'{"dataframe_split":{"columns":[%s],"data":[[%s]]}}' % (columns(200_000), b",".join([b"1"] * 200_000)),
        422,
    ),
    "records: a key of its own for each row": lambda: (
        *("application/json", b'{"dataframe_records":[%s]}' % b",".join(b'{"k%d":1}' % i for i in range(1_000_000))),
        422,
    ),
    "inputs: 200,000 keys": lambda: (
        *("application/json", b'{"inputs":{%s}}' % b",".join(b'"k%d":[1]' % i for i in range(200_000))),
        422,
    ),
    "instances: a row of 1,000,000 numbers": lambda: (
        *("application/json", b'{"instances":[[%s]]}' % b",".join([b"1.5"] * 1_000_000)),
        422,
    ),
    "30 MB of empty lists": lambda: ("application/json", b"[" + b"[]," * 10_000_000 + b"[]]", 413),
    "instances: 30 MB of empty lists": lambda: (
        *("application/json", b'{"instances":[' + b"[]," * 10_000_000 + b"[]]}"),
        413,
    ),
    "an index that makes rows": lambda: (
        "application/json",
        b'{"dataframe_split":{"columns":[%s],"index":[%s],"data":null}}'
        % (columns(2_000), b",".join([b"1"] * 1_000_000)),
        413,
    ),
    "a number of 30 MB": lambda: ("application/json", b'{"instances":[0.%s]}' % (b"1" * 30_000_000), 422),
    "Parquet of 100,000 columns": lambda: (PARQUET, wide_parquet(), 413),
}


@pytest.mark.parametrize("wrong", TABLES)
def test_a_table_made_to_cost_is_a_4xx_at_once_and_leaves_no_memory_behind(
    server: Serving, row: dict[str, float], wrong: str, record_property: Any
) -> None:
    content_type, body, status = TABLES[wrong]()
    sent = post(body, "/invocations", "Connection: close").replace(b"application/json", content_type.encode(), 1)
    frame = pd.DataFrame([row] * 3)
    for kind, good in ((CSV, frame.to_csv(index=False).encode()), (PARQUET, frame.to_parquet())):
        for _ in range(4):  # what the first request of each thread imports is not the body's doing
            answered = requests.post(server.url + "/invocations", good, headers={"Content-Type": kind}, timeout=60)
            assert answered.status_code == 200
    with Others(server, row):
        time.sleep(0.5)
        before = resident(server)
        began = time.monotonic()
        with ThreadPoolExecutor(2) as pool:  # two at once
            found = [answer for answers in pool.map(lambda _: exchange(server, sent), range(2)) for answer in answers]
        took = time.monotonic() - began
    assert [answer.status for answer in found] == [status] * 2
    assert found[0].detail()
    assert took < 5  # alone on a machine: within a second
    deadline = time.monotonic() + 10
    while resident(server) - before > 10_000_000:
        assert time.monotonic() < deadline, f"{(resident(server) - before) / 1e6:.0f} MB stay"
        time.sleep(0.1)
    record_property("seconds", took)
    record_property("megabytes", (resident(server) - before) / 1e6)


def resident(server: Serving) -> int:
    """Bytes of its worker."""
    (worker,) = psutil.Process(server.process.pid).children()
    rss: int = worker.memory_info().rss
    return rss


def test_bodies_held_at_once_are_bounded(tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__LIMITS__MAX_HELD_BYTES": str(1 << 20)}
    head = (
        b"POST /predict/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 900000\r\n\r\n"
    )
    with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
        with connect(server) as first, connect(server) as second:
            first.sendall(head + b" " * 800_000)
            time.sleep(0.5)
            second.sendall(head + b" " * 800_000)
            (refused,) = answers(until_closed(second))
            assert refused.status == 503
            assert refused.headers["retry-after"]
            first.sendall(b" " * 100_000)  # it goes on as if nothing had been
            first.settimeout(30)
            assert answers(first.recv(1 << 16))[0].status == 422
        (after,) = exchange(server, head.replace(b"Host: x", b"Host: x\r\nConnection: close") + b" " * 900_000)
        assert after.status == 422  # room was made again


# --- clients that are slow, silent or many ----------------------------------------------------------------------------


def test_1000_idle_connections_keep_nobody_out_and_are_closed(server: Serving, row: dict[str, float]) -> None:
    idle = [connect(server) for _ in range(1000)]
    try:
        with Others(server, row):
            time.sleep(1)
            assert all(is_closed_within(connection, 10 + 5 * CLIENT_SECONDS) for connection in idle[::50])
    finally:
        for connection in idle:
            connection.close()


def test_more_connections_than_there_may_be_are_503(tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__LIMITS__MAX_CONNECTIONS": "5"}
    with serving(folder=tmp_path, env=env, wait_for="/health/live") as server:
        held = [connect(server) for _ in range(5)]
        time.sleep(0.2)
        (answer,) = exchange(server, b"")
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert "connections" in answer.detail()
        for connection in held:
            connection.close()
        time.sleep(0.2)
        assert requests.get(server.url + "/health/live", timeout=30).status_code == 200


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET /health HTTP/1.1\r\nX: ",
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n",
        b"POST /no/route HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n",
    ],
    ids=["nothing", "a head", "a body", "a body that nobody reads"],
)
def test_a_client_that_sends_byte_by_byte_is_cut_off(server: Serving, row: dict[str, float], start: bytes) -> None:
    got = b""
    with Others(server, row), connect(server) as connection:
        connection.sendall(start)
        connection.settimeout(0.2)
        deadline = time.monotonic() + 15 + 3 * CLIENT_SECONDS
        while True:
            assert time.monotonic() < deadline
            try:
                if start:
                    connection.sendall(b"a")
                if not (chunk := connection.recv(1 << 16)):
                    break
                got += chunk
            except TimeoutError:
                continue
            except ConnectionError:
                break
    if start and b"/no/route" not in start:
        assert [answer.status for answer in answers(got)] == [408]


def test_a_client_that_never_reads_its_answers_is_cut_off(server: Serving, row: dict[str, float]) -> None:
    before = memory(server)
    with Others(server, row), connect(server) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 100
        connection.settimeout(1)
        deadline = time.monotonic() + 15 + 5 * CLIENT_SECONDS
        while True:
            assert time.monotonic() < deadline
            try:
                connection.sendall(asked)
            except TimeoutError:
                continue
            except ConnectionError:
                break
    assert memory(server) - before < 100


def test_an_answer_is_sent_in_one_piece_and_one_without_a_body_too(server: Serving, row: dict[str, float]) -> None:
    with connect(server) as connection:
        for ask, status in (
            (post({"features": row}, "/predict"), 200),
            (post({}, "/predict"), 422),
            (b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        ):
            connection.sendall(ask)
            head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d" % status)
            assert body.endswith(b"}")
        connection.sendall(b"HEAD /health HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = connection.recv(1 << 16).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200")
        assert body == b""
