"""The scan of answers and logs finds what it looks for: a run of its own, with a server that says too much."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import requests

from tests.scan import ROOT, Scan, caller_values

LEAKY = """
import http.server, json, threading, pytest, requests

SAID = {said!r}

class Leaky(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = SAID.encode()
        self.send_response(422)
        self.send_header("X-Request-ID", "1")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

def test_it():
    server = http.server.HTTPServer(("127.0.0.1", 0), Leaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    row = {{"features": {{"venue": "a-secret-venue"}}}}
    requests.post(f"http://127.0.0.1:{{server.server_port}}/predict", json=row)
    server.shutdown()
"""


@pytest.mark.parametrize("workers", [[], ["-n", "1"]], ids=["alone", "pytest-xdist"])
@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("Traceback (most recent call last):", "a stack trace"),
        ('File "x.py", line 3, in f', "a stack trace"),
        (f"see {ROOT}/fin_pyfunc", "a path of the server"),
        ("venue 'a-secret-venue' is unknown", "a value that was sent"),
        ("fpk_0123456789ab_" + "x" * 43, "a credential"),
        ("eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln", "a credential"),
        ("one sentence that says nothing", None),
    ],
)
def test_what_must_not_be_in_an_answer_fails_the_run(
    tmp_path: Path, workers: list[str], said: str, found: str | None
) -> None:
    if workers and said[0] != "v":
        pytest.skip("once is enough")
    (tmp_path / "test_leaky.py").write_text(LEAKY.format(said=said))
    command = [sys.executable, "-m", "pytest", "-p", "tests.scan", "-q", "-p", "no:cacheprovider", *workers]
    command += ["--rootdir", str(tmp_path), "-c", "/dev/null", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert "1 passed" in done.stdout
    assert done.returncode == (0 if found is None else 1)
    assert found is None or found in done.stdout


def test_what_must_not_be_in_a_log_is_found() -> None:
    scan = Scan()
    scan._sent["8000"] = caller_values('{"features_list": [{"price": 1.23456789, "venue": "a-secret-venue", "n": 7}]}')
    scan.log("http://127.0.0.1:8000", "row 1.23456789 of a-secret-venue\nwith fpk_0123456789ab_" + "x" * 43)
    assert [line.partition(" in ")[0].partition(" (")[0] for line in scan.found] == [
        "a credential",
        "a value that was sent",
        "a value that was sent",
    ]


def test_the_uri_that_a_caller_sent_may_come_back_in_the_answer_and_no_other_path() -> None:
    scan = Scan()
    for said, others in (("", 0), (f"see {ROOT}/b", 1)):
        answered = requests.Response()
        answered.status_code, answered.raw = 200, object()
        answered.headers["X-Request-ID"] = "1"
        asked = f"file://{ROOT}/a"
        answered.request = requests.Request(
            "GET", "http://127.0.0.1:1/models/info", params={"model_uri": asked}
        ).prepare()
        answered._content = json.dumps({"model_uri": asked, "note": said}).encode()
        scan.answer(answered)
        assert len(scan.found) == others
