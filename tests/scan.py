"""Looks through every answer and every log line of the servers that the tests start, for what must never be in one.

A plugin of the whole run: answers are taken from `requests`, which the tests ask with, and logs from `serving`, when a
server is stopped. What is found fails the run at its end, with the test that it was found in; with pytest-xdist each
process looks through its own and says so.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

ROOT = Path(__file__).resolve().parents[1]
#: A stack trace, in a body.
TRACE = re.compile(r'Traceback \(most recent call last\)|File "[^"]+", line \d+')
#: A path of the server's machine, in a body: where the code, its libraries and the tests' files are.
PATHS = tuple(
    {
        str(ROOT),
        sys.prefix,
        os.path.realpath(sys.prefix),
        os.environ.get("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir()) + "/pytest-of-",
        "/site-packages/",
    }
)
#: A key of ours or a JWT, wherever it stands; the documentation's examples have neither.
CREDENTIAL = re.compile(r"fpk_[0-9a-f]{12}_[\w-]{20,}|eyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*")
#: Headers that repeat which model was asked for.
LINEAGE = ("x-model-uri", "x-model-id")
#: Values shorter than this are in a message by chance.
MIN_VALUE = 8


class Scan:
    """What one process of the run has seen and found."""

    def __init__(self) -> None:
        self.answers = self.lines = 0
        self.found: list[str] = []
        self._sent: dict[str, set[str]] = {}

    def answer(self, answered: requests.Response) -> None:
        """Look through one answer of a server of ours."""
        if "X-Request-ID" not in answered.headers or answered.raw is None:
            return
        self.answers += 1
        request = answered.request
        values = caller_values(request.body)
        port = str(request.url).partition("//")[2].partition("/")[0].rpartition(":")[2]
        self._sent.setdefault(port, set()).update(values)
        body = answered.content.decode("utf-8", "replace")
        where = f"{request.method} {answered.status_code}"
        if answered.headers.get("Content-Type", "").startswith(("text/javascript", "text/css")):
            return  # the documentation's own libraries
        # a URI that the caller sent comes back in the answer, and may be of a file
        for sent in parse_qs(urlsplit(str(request.url)).query).get("model_uri", []):
            body = body.replace(json.dumps(sent), '""')
        self._look(f"the body of {where}", body, trace=True, values=values if answered.status_code >= 400 else ())
        # lineage repeats the URI that was asked for, which may be a file's
        headers = {k: v for k, v in answered.headers.items() if k.lower() not in LINEAGE}
        self._look(f"the headers of {where}", str(headers), trace=True, values=())

    def text(self, where: str, text: str) -> None:
        """Look through text that a server of ours has sent."""
        self.answers += 1
        self._look(where, text, trace=True, values=())

    def log(self, url: str, text: str) -> None:
        """Look through all that a server has logged."""
        lines = text.splitlines()
        self.lines += len(lines)
        # what a start prints to be pasted is a row of the training data
        text = "\n".join(line for line in lines if not line.startswith("curl -s "))
        values = self._sent.pop(url.rpartition(":")[2], set())
        self._look("a log", text, trace=False, values=values)

    def _look(self, where: str, text: str, *, trace: bool, values: Any) -> None:
        found = []
        if trace and TRACE.search(text):
            found.append("a stack trace")
        if trace and any(path in text for path in PATHS):
            found.append("a path of the server")
        if CREDENTIAL.search(text):
            found.append("a credential")
        found += [f"a value that was sent ({value[:20]!r})" for value in values if value in text][:3]
        test = os.environ.get("PYTEST_CURRENT_TEST", "?")
        self.found += [f"{what} in {where}, while {test}" for what in found]


def caller_values(body: Any) -> set[str]:
    """The values of the rows in a JSON body that are long enough to be known again; names are no values."""
    try:
        said = json.loads(body or "null")
    except (ValueError, TypeError, RecursionError):
        return set()
    rows: list[Any] = []
    if isinstance(said, dict):
        rows = [said.get("features"), *(said.get("features_list") or []), *(said.get("dataframe_records") or [])]
    flat = [value for row in rows[:50] if isinstance(row, dict) for value in list(row.values())[:100]]
    texts = {value for value in flat if isinstance(value, str)} | {repr(v) for v in flat if isinstance(v, float)}
    return {text for text in texts if MIN_VALUE <= len(text) <= 200}


SCAN = Scan()
_send = requests.Session.send


def _scanned(self: requests.Session, request: requests.PreparedRequest, **more: Any) -> requests.Response:
    answered = _send(self, request, **more)
    if not more.get("stream"):
        SCAN.answer(answered)
    return answered


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    requests.Session.send = _scanned  # type: ignore[method-assign]


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    if SCAN.found:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        output = getattr(session.config, "workeroutput", None)
        if output is not None:
            output["scan"] = SCAN.found
    yield


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """What a process of pytest-xdist has found, told to the one that reports."""
    SCAN.found += getattr(node, "workeroutput", {}).get("scan", [])


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if SCAN.found:
        terminalreporter.section("found in answers and logs", red=True)
        for line in dict.fromkeys(SCAN.found):
            terminalreporter.line(line)
