"""HTTP as other people's clients speak it: upgrades, compressed bodies, half-closed connections, and invalid HTTP."""

from __future__ import annotations

import gzip
import http.client
import json
import shutil
import signal
import socket
import subprocess
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

import fin_pyfunc
from tests.models import logistic
from tests.raw_http import Answer, answers, connect, exchange, post, until_closed
from tests.servers import Serving, serving

ROW = {name: float(value) for name, value in logistic().train.iloc[0].items()}
MAX_ROW_BYTES = 262_144
H2C = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clients")
    fin_pyfunc.save_model(logistic().estimator, logistic().train, folder / "model")
    return folder / "model"


@pytest.fixture(scope="module")
def server(model: Path) -> Iterator[Serving]:
    with serving("-m", str(model), folder=model.parent) as server:
        yield server
        assert server.predict(ROW).status_code == 200
        assert "Traceback" not in server.log()


def read_answer(connection: socket.socket) -> Answer:
    """The next answer on a connection, as far as it comes in one piece."""
    (answer,) = answers(connection.recv(1 << 16))
    return answer


# --- an upgrade that is not offered -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        H2C,
        ("Connection: keep-alive, Upgrade", "Upgrade: h2c"),
        ("Upgrade: TLS/1.0, IRC/6.9", "Connection: upgrade"),
        (
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZQ==",
            "Sec-WebSocket-Version: 13",
        ),
        ("Upgrade: h2c", "Connection: Upgrade, close"),
    ],
)
def test_a_request_that_asks_to_upgrade_is_answered_without(server: Serving, headers: tuple[str, ...]) -> None:
    answered = exchange(
        server, post({"features": ROW}, "/predict", *headers) + post(b"", "/predict", "Connection: close")
    )
    assert [answer.status for answer in answered] == ([200] if "close" in headers[-1] else [200, 422])
    chunked = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
        + "\r\n".join(headers).encode()
        + b"\r\n\r\n"
    )
    body = json.dumps({"features": ROW}).encode()
    piece = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    (answer, *_) = exchange(server, chunked + piece + post(b"", "/predict", "Connection: close"))
    assert answer.status == 200


def test_a_head_that_asks_to_upgrade_may_come_in_any_pieces(server: Serving) -> None:
    sent = post({"features": ROW}, "/predict", *H2C)
    end = sent.index(b"\r\n\r\n") + 5
    with connect(server) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for i in range(1, end + 1):
            connection.sendall(sent[:i])
            time.sleep(0.002)
            connection.sendall(sent[i:])
            assert read_answer(connection).status == 200, sent[:i]


def test_a_body_that_follows_an_upgrade_is_never_a_request_of_its_own(server: Serving) -> None:
    inner = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
    good = post({"features": ROW})
    for headers in (H2C, ("Connection: Upgrade", "Upgrade: websocket")):
        sent = post(inner, "/predict", *headers)
        end = sent.index(b"\r\n\r\n") + 4
        for cuts in ((), (end,), (end, end + 1), (end - 1, end), (end + 10,), (end - 3, end + 3, len(sent))):
            pieces = [(sent + good)[a:b] for a, b in zip((0, *cuts), (*cuts, len(sent + good)), strict=True)]
            with connect(server) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for piece in pieces:
                    connection.sendall(piece)
                    time.sleep(0.02)
                connection.shutdown(socket.SHUT_WR)
                found = answers(until_closed(connection))
            assert [answer.status for answer in found] == [422, 200], cuts
            assert "not valid JSON" in found[0].detail()


def test_connect_is_not_implemented_and_what_follows_is_no_request(server: Serving) -> None:
    for target in (b"x:80", b"/predict"):
        (answer,) = exchange(
            server, b"CONNECT %b HTTP/1.1\r\nHost: x\r\n\r\nGET /version HTTP/1.1\r\nHost: x\r\n\r\n" % target
        )
        assert answer.status in (400, 501)


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_that_offers_http_2_is_answered(server: Serving) -> None:
    version = subprocess.run(["curl", "--version"], capture_output=True, text=True, check=True).stdout
    if "HTTP2" not in version:
        pytest.skip("this curl cannot offer HTTP/2")
    asking = ["-sS", "--http2", "-w", "%{http_code}", "-o", "/dev/null", f"{server.url}/predict"]
    asking += ["-H", "Content-Type: application/json", "-d", json.dumps({"features": ROW})]
    done = subprocess.run(["curl", *asking, "--next", *asking], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "200200"


@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
def test_javas_own_client_is_answered(server: Serving) -> None:
    gateways = pytest.importorskip("py4j.java_gateway", reason="py4j, which comes with pyspark, runs Java's client")
    port, token, process = gateways.launch_gateway(
        javaopts=["--add-opens=java.net.http/jdk.internal.net.http=ALL-UNNAMED"],
        die_on_exit=True,
        enable_auth=True,
        return_proc=True,
    )
    gateway = gateways.JavaGateway(
        gateway_parameters=gateways.GatewayParameters(port=port, auth_token=token, auto_convert=True)
    )
    try:
        java = gateway.jvm.java
        client = java.net.http.HttpClient.newHttpClient()  # which offers HTTP/2, as its default is
        bodies, handlers = java.net.http.HttpRequest.BodyPublishers, java.net.http.HttpResponse.BodyHandlers
        for path, body in (
            ("/predict", {"features": ROW}),
            ("/predict/batch", {"features_list": [ROW] * 2000}),
            ("/invocations", {"inputs": [ROW]}),
        ) * 3:
            request = (
                java.net.http.HttpRequest.newBuilder(java.net.URI.create(server.url + path))
                .header("Content-Type", "application/json")
                .POST(bodies.ofString(json.dumps(body)))
                .build()
            )
            answered = client.send(request, handlers.ofString())
            assert answered.statusCode() == 200, answered.body()
    finally:
        gateway.shutdown()
        process.kill()  # the client's threads would keep it
        process.wait()
        process.stdin.close()


# --- what RFC 9112 has a server refuse --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "word"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.1\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.1\r\nAccept: */*\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.1\r\nHost: x, y\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.1\r\nHost: x/y\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.1\r\nHost: user@x\r\n\r\n", "Host"),
        (b"GET /health HTTP/1.1\r\nHost: x:y\r\n\r\n", "Host"),
        (b"GET /health HTTP/2.0\r\nHost: x\r\n\r\n", "HTTP/1.0"),
        (b"GET /health HTTP/0.9\r\nHost: x\r\n\r\n", "HTTP/1.0"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "chunked"),
        (b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "HTTP"),
        (
            b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
            "chunked",
        ),
        (b"POST /predict HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "chunked"),
    ],
)
def test_a_head_that_rfc_9112_refuses_is_400(server: Serving, head: bytes, word: str) -> None:
    (answer,) = exchange(server, head + b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (400, "close")
    assert word in answer.detail()


@pytest.mark.parametrize(
    "head",
    [
        b"GET /health HTTP/1.1\r\nHost:\r\n",
        b"GET /health HTTP/1.1\r\nHost: [::1]:8000\r\n",
        b"GET /health HTTP/1.1\r\nHost: my_service.desk-1:80\r\n",
        b"GET /health HTTP/1.1\r\nhost: 10.0.0.1\r\nUpgrade: h2c\r\n",
        b"GET http://other/health HTTP/1.1\r\nHost: x\r\n",
        b"GET /health HTTP/1.0\r\n",
        b"\r\n\r\nGET /health HTTP/1.1\r\nHost: x\r\n",
    ],
)
def test_a_head_that_rfc_9112_takes_is_answered(server: Serving, head: bytes) -> None:
    (answer,) = exchange(server, head + b"Connection: close\r\n\r\n")
    assert answer.status == 200


# --- ends -------------------------------------------------------------------------------------------------------------


def test_a_client_that_closes_its_half_is_answered(server: Serving) -> None:
    for sent, statuses in (
        (post({"features": ROW}), [200]),
        (post({"features": ROW}) * 3, [200] * 3),
        (post({"features_list": [ROW] * 3000}, "/predict/batch"), [200]),
        (b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", [200]),
        (post({"features": ROW})[:-1], [400]),
        (post({"features": ROW}) + b"GET /health HTT", [200, 400]),
        (b"GET /health HTT", [400]),
        (b"", []),
    ):
        with connect(server) as connection:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            assert [answer.status for answer in answers(until_closed(connection))] == statuses, sent[-20:]


@pytest.mark.parametrize("rest", [b"\r\n", b"\n\r\n\r\n"])
def test_line_ends_after_a_body_are_nothing(server: Serving, rest: bytes) -> None:
    with connect(server) as connection:
        for _ in range(3):
            connection.sendall(post({"features": ROW}) + rest)
            assert read_answer(connection).status == 200


@pytest.mark.parametrize(
    "rest", [b"x", b"  ", b"}\r\n\r\n", b"\0", b"GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n"]
)
def test_what_was_asked_before_bytes_that_are_no_request_is_answered(server: Serving, rest: bytes) -> None:
    for n in (1, 3):
        answered = exchange(server, post({"features_list": [ROW] * 50}, "/predict/batch") * n + rest + b"more" * 100)
        assert [answer.status for answer in answered] == [200] * n + [400]
        assert answered[-1].headers["connection"] == "close"


def test_a_request_that_is_refused_within_its_body_waits_for_those_before_it(server: Serving) -> None:
    chunked = (
        b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    answered = exchange(server, post({"features_list": [ROW] * 50}, "/predict/batch") * 2 + chunked + b"2\r\n{}XX")
    assert [answer.status for answer in answered] == [200, 200, 400]


class Asking(threading.Thread):
    """A client with one connection, which asks until it is told that this is the last answer."""

    def __init__(self, port: int, pause: float) -> None:
        super().__init__()
        self._connection, self._pause = http.client.HTTPConnection("127.0.0.1", port, timeout=30), pause
        self.statuses: list[int] = []
        self.error: Exception | None = None
        self.was_told = False

    def run(self) -> None:
        try:
            while not self.was_told:
                headers = {"Content-Type": "application/json"}
                self._connection.request("POST", "/predict", json.dumps({"features": ROW}), headers)
                answered = self._connection.getresponse()
                answered.read()
                self.statuses.append(answered.status)
                self.was_told = answered.headers["Connection"] == "close"
                time.sleep(self._pause)
        except Exception as e:
            self.error = e
        finally:
            self._connection.close()


def test_clients_kept_alive_through_sigterm_are_told_to_go_and_none_finds_its_connection_closed(model: Path) -> None:
    with serving("-m", str(model), folder=model.parent) as server:
        port = int(server.url.rpartition(":")[2])
        clients = [Asking(port, pause) for pause in (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1.1, 1.3, 1.5)]
        for client in clients:
            client.start()
        with connect(server) as idle:
            time.sleep(0.5)
            server.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            for client in clients:
                client.join(30)
            assert [client.error for client in clients] == [None] * 12
            assert all(client.was_told for client in clients)
            assert {status for client in clients for status in client.statuses} <= {200, 503}
            assert server.process.wait(30) == 0
            assert 1 < time.monotonic() - began < 8  # the one that asks nothing is waited for a moment
            assert until_closed(idle) == b""


# --- bodies -----------------------------------------------------------------------------------------------------------


def ask(server: Serving, path: str, body: bytes, content_type: str = "application/json", **headers: str) -> Any:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return requests.post(server.url + path, body, headers={"Content-Type": content_type, **named}, timeout=60)


def detail(answered: requests.Response, status: int) -> str:
    assert answered.status_code == status, answered.text
    return str(answered.json()["detail"])


#: Bodies of each route, by path and content type.
BODIES = {
    ("/predict", "application/json"): json.dumps({"features": ROW}).encode(),
    ("/predict/batch", "application/json"): json.dumps({"features_list": [ROW] * 1000}).encode(),
    ("/predict/batch", "text/csv"): logistic().train.head(500).to_csv(index=False).encode(),
    ("/predict/batch", "application/vnd.apache.parquet"): logistic().train.head(9).to_parquet(),
    ("/invocations", "application/json"): json.dumps({"inputs": [ROW] * 100}).encode(),
    ("/invocations", "text/csv"): logistic().train.head(500).to_csv(index=False).encode(),
    ("/invocations", "application/vnd.apache.parquet"): logistic().train.head(9).to_parquet(),
}


@pytest.mark.parametrize("route", BODIES, ids=" ".join)
def test_a_compressed_body_is_taken_as_it_was_before(server: Serving, route: tuple[str, str]) -> None:
    path, content_type = route
    plain = ask(server, path, BODIES[route], content_type)
    assert plain.status_code == 200
    for coding, body in (
        ("gzip", gzip.compress(BODIES[route])),
        ("GZip", gzip.compress(BODIES[route], 1)),
        ("x-gzip", gzip.compress(BODIES[route], 0)),
        ("gzip", gzip.compress(BODIES[route][:20]) + gzip.compress(BODIES[route][20:])),
        ("deflate", zlib.compress(BODIES[route])),
        ("identity", BODIES[route]),
        ("identity, gzip", gzip.compress(BODIES[route])),
    ):
        answered = ask(server, path, body, content_type, Content_Encoding=coding)
        assert (answered.status_code, answered.content) == (200, plain.content), coding


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "aes128gcm", "utf-8"])
def test_another_content_encoding_is_415_with_those_there_are(server: Serving, coding: str) -> None:
    for path in ("/predict", "/predict/batch", "/invocations"):
        answered = ask(server, path, b"\x1f\x8b", Content_Encoding=coding)
        assert "gzip" in detail(answered, 415)
        assert answered.headers["Accept-Encoding"] == "gzip, deflate"


def test_a_body_that_cannot_be_inflated_is_422(server: Serving) -> None:
    whole = gzip.compress(BODIES["/predict", "application/json"])
    wrong = {
        "plain": BODIES["/predict", "application/json"],
        "cut off": whole[:-1],
        "damaged": whole[:40] + bytes([whole[40] ^ 255]) + whole[41:],
        "another checksum": whole[:-8] + bytes(4) + whole[-4:],
        "more after it": whole + b"{}",
        "cut off in its second member": whole + whole[:-1],
        "nothing": b"",
    }
    for what, body in wrong.items():
        assert "gzip" in detail(ask(server, "/predict", body, Content_Encoding="gzip"), 422), what


def test_a_bomb_is_413_as_soon_as_it_is_larger_than_a_body_may_be(server: Serving) -> None:
    bomb = gzip.compress(bytes(1 << 27))
    began = time.monotonic()
    for path, limit in (
        ("/predict", "max_row_bytes"),
        ("/predict/batch", "max_body_bytes"),
        ("/invocations", "max_body"),
    ):
        assert limit in detail(ask(server, path, bomb, Content_Encoding="gzip"), 413)
    assert time.monotonic() - began < 5
    exact = b'{"features": {}}'.ljust(MAX_ROW_BYTES)
    assert "missing" in detail(ask(server, "/predict", gzip.compress(exact), Content_Encoding="gzip"), 422)
    assert "max_row" in detail(ask(server, "/predict", gzip.compress(exact + b" "), Content_Encoding="gzip"), 413)
    # what inflates to nothing is counted, too
    empty = gzip.compress(b"")[:10] + b"\x00\x00\x00\xff\xff" * MAX_ROW_BYTES
    assert "max_row" in detail(ask(server, "/predict", empty, Content_Encoding="gzip"), 413)


@pytest.mark.parametrize(
    "content_type", ["Application/JSON", "application/json; charset=utf-8", 'application/json;charset="UTF-8";']
)
def test_a_content_type_is_read_in_any_case_and_with_parameters(server: Serving, content_type: str) -> None:
    for (path, kind), body in BODIES.items():
        if kind == "application/json":
            assert ask(server, path, body, content_type).status_code == 200


def test_text_in_another_encoding_is_415_with_the_reason(server: Serving) -> None:
    for (path, kind), body in BODIES.items():
        if kind.endswith("parquet"):
            continue
        marked = ask(server, path, body.decode().encode("utf-8-sig"), kind)
        assert (marked.status_code, marked.content) == (200, ask(server, path, body, kind).content)
        assert "UTF-8" in detail(ask(server, path, body, f"{kind}; charset=iso-8859-1"), 415)
        for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32"):
            answered = ask(server, path, body.decode().encode(encoding), kind)
            if path == "/invocations" and kind == "application/json":
                assert answered.status_code == 200  # as MLflow takes it
            else:
                assert "UTF-8" in detail(answered, 415), (path, kind, encoding)
    assert "UTF-8" in detail(ask(server, "/predict", '{"features": {"é": 1}}'.encode("latin-1")), 422)
