"""What is tried again, and what is not: against servers on loopback that fail on purpose."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.client import ClientError, ConnectError, Retry, TimedOutError, UnavailableError
from tests.client.test_client import Both

ANSWER = {"prediction": 1, "probability": None, "probabilities": None, "confidence": "high"}
FAST = Retry(attempts=4, base=0.001)
KINDS = pytest.mark.parametrize("kind", ["requests", "httpx"])


@contextmanager
def answering(*script: Any) -> Iterator[tuple[str, list[str]]]:
    """A server that answers each request with the next of `script` (the last for ever): its URL, the ids it saw.

    A number is a status, ``(status, seconds)`` one with a Retry-After, ``"break"`` ends the connection, ``"hang"`` says
    nothing, ``"move"`` redirects.
    """
    seen: list[str] = []
    over = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["X-Request-ID"])
            step = script[min(len(seen), len(script)) - 1]
            if step == "hang":
                over.wait(10)
            if step in ("hang", "break"):
                self.close_connection = True
                return
            status, wait = step if isinstance(step, tuple) else (step, None)
            status = 302 if status == "move" else status
            body = json.dumps(ANSWER if status == 200 else {"detail": f"status {status}."}).encode()
            self.send_response(status)
            if wait is not None:
                self.send_header("Retry-After", str(wait))
            if status == 302:
                self.send_header("Location", "http://127.0.0.1:9/")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", seen
    finally:
        over.set()
        server.shutdown()
        server.server_close()


@KINDS
@pytest.mark.parametrize("status", [429, 503, (503, 0), (429, 0.01)])
def test_what_did_nothing_is_tried_again_under_the_same_id(kind: str, status: Any) -> None:
    with answering(status, status, 200) as (url, seen):
        assert Both(kind, url, retry=FAST).predict({"x": 1.0}).prediction == 1
    assert len(seen) == 3
    assert len({*seen}) == 1


@KINDS
@pytest.mark.parametrize("step", [400, 404, 413, 422, 500, 502, 504, "break", "move"])
def test_anything_else_is_not(kind: str, step: Any) -> None:
    with answering(step, 200) as (url, seen), pytest.raises(ClientError):
        Both(kind, url, retry=FAST).predict({"x": 1.0})
    assert len(seen) == 1


@KINDS
def test_tries_end_and_the_last_answer_is_the_error(kind: str) -> None:
    with answering(503) as (url, seen), pytest.raises(UnavailableError, match="status 503") as failed:
        Both(kind, url, retry=FAST).predict({"x": 1.0})
    assert len(seen) == 4
    assert failed.value.status == 503


@KINDS
def test_a_wait_longer_than_the_limit_is_left_to_the_caller(kind: str) -> None:
    with answering((429, 60), 200) as (url, seen), pytest.raises(UnavailableError) as failed:
        Both(kind, url, retry=FAST).predict({"x": 1.0})
    assert len(seen) == 1
    assert failed.value.retry_after == 60


@KINDS
def test_silence_ends_in_time_and_is_not_tried_again(kind: str) -> None:
    with answering("hang") as (url, seen), pytest.raises(TimedOutError):
        Both(kind, url, retry=FAST, timeout=(1.0, 0.2)).predict({"x": 1.0})
    assert len(seen) == 1


@KINDS
def test_a_broken_connection_says_that_the_request_may_have_been_served(kind: str) -> None:
    with answering("break") as (url, _), pytest.raises(ConnectError, match="broke before the answer") as failed:
        Both(kind, url, retry=FAST).predict({"x": 1.0})
    assert not failed.value.is_safe


@given(st.integers(1, 8), st.floats(0, 5), st.floats(0, 20), st.none() | st.floats(0, 30))
def test_waits_are_bounded_and_never_shorter_than_asked_for(
    attempts: int, base: float, longest: float, asked: float | None
) -> None:
    policy = Retry(attempts, base, longest)
    for tried in range(1, attempts + 1):
        delay = policy.delay(tried, asked)
        if tried == attempts or (asked or 0) > longest:
            assert delay is None
        else:
            assert delay is not None
            assert (asked or 0) <= delay <= (asked or 0) + longest


def test_a_policy_that_makes_no_sense_is_refused() -> None:
    for wrong in ({"attempts": 0}, {"base": -1.0}, {"longest": -1.0}):
        with pytest.raises(ValueError, match="attempts of at least 1"):
            Retry(**wrong)  # type: ignore[arg-type]
