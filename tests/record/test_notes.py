"""Under `interval` most records are made of notes, many at a time: they say what others say, and replay as they do."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pytest
import requests

from fin_pyfunc.model.decision import Decisions, Scores, Thresholds
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.prediction import Prediction
from fin_pyfunc.serving.record.facts import members
from fin_pyfunc.serving.record.reading import Entry, entries, find
from fin_pyfunc.serving.record.recorder import Recorder
from fin_pyfunc.serving.record.replay import replay
from fin_pyfunc.serving.record.verify import verify
from fin_pyfunc.serving.settings import Record
from tests.record.chains import plain
from tests.servers import Serving, serving
from tests.shelf import IDENTIFIER, Shelf
from tests.test_api import row


class Noting(NamedTuple):
    """A server that records under `interval`, and where."""

    server: Serving
    folder: Path

    def ask(self, body: bytes, **headers: str) -> requests.Response:
        headers = {"Content-Type": "application/json", **headers}
        answered = requests.post(self.server.url + "/predict", data=body, headers=headers, timeout=60)
        assert answered.status_code == 200, answered.text
        return answered

    def recorded(self, answered: requests.Response) -> Entry:
        """The record of an answer, which may come after it."""
        deadline = time.monotonic() + 10
        while True:
            try:
                [entry] = find(self.folder, answered.headers["X-Request-ID"])
            except FinPyfuncError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            else:
                return entry


@pytest.fixture(scope="module")
def noting(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Noting]:
    folder = tmp_path_factory.mktemp("notes")
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__RECORD__FOLDER": str(folder / "record"),
        "FIN_PYFUNC__RECORD__SYNC": "interval",
    }
    with serving("-m", "models:/eurusd_rf@champion", folder=folder, env=env) as running:
        noting = Noting(running, folder / "record")
        # it is this one's record that the others' text is taken from
        noting.recorded(noting.ask(json.dumps({"features": row()}).encode()))
        yield noting
    for report in verify(folder / "record"):
        assert report.problems == []
        assert report.unconfirmed == 0


def test_a_note_says_what_a_record_says_that_is_made_alone(noting: Noting) -> None:
    entry = noting.recorded(noting.ask(json.dumps({"features": row()}).encode()))
    [segment] = plain(noting.folder)
    lines = [json.loads(line) for line in segment.read_bytes().splitlines()]
    alone, noted = lines[1], lines[entry.place.line - 1]
    assert noted["decided"] > noted["received"] > alone["decided"]
    differing = {name: noted[name] for name in ("seq", "prev", "request_id", "received", "decided")}
    assert noted["request_id"] != alone["request_id"]
    assert list(noted) == list(alone)
    assert noted == {**alone, **differing}


def test_from_the_second_request_on_there_is_nothing_to_wait_for_but_a_note(tmp_path: Path) -> None:
    said = {"model_uri": "models:/m/1", "default_model": True, "backend": "forest", "run_id": None, "model_id": "m-1"}
    digests = {"artifact_sha256": None, "feature_order_sha256": None, "thresholds": {"high": 0.8, "medium": 0.6}}
    known = {(None, "forest"): members({**said, **digests})}
    model: Any = SimpleNamespace(noted={}, recorded=known, model=SimpleNamespace(features=None))
    scores = Scores(classes=[0, 1], index=np.array([1]), probabilities=np.array([[0.25, 0.75]]))
    noted: list[bool] = []

    def asked(name: str, path: str = "/predict") -> tuple[dict[str, Any], Prediction]:
        decisions = Decisions(scores, Thresholds(), "forest")
        sent = msgspec.Raw(b'{"x":1}') if path == "/predict" else msgspec.Raw(b'[{"x":1}]')
        now = time.perf_counter()
        scope = {"path": path, "state": {"request_id": name}}
        return scope, Prediction(None, model, np.zeros((1, 1)), decisions, now, now, sent)

    async def record() -> None:
        recorder = Recorder(Record(folder=str(tmp_path), sync="interval"), 1.0)
        recorder.start()
        for name, path in (("a", "/predict"), ("b", "/predict"), ("c", "/predict/batch"), ("d", "/predict")):
            waited = recorder.before_answer(*asked(name, path))
            noted.append(waited is None)
            if waited is not None:
                await waited
        await recorder.close()

    asyncio.run(record())
    assert noted == [False, True, False, True]
    found = {entry.record.request_id: entry.record for entry in entries(tmp_path)}
    assert sorted(found) == ["a", "b", "c", "d"]
    assert [found[name].route for name in "abcd"] == ["/predict", "/predict", "/predict/batch", "/predict"]
    assert len({str(record.answers) for record in found.values()}) == 1


def test_a_server_that_stops_records_what_it_has_just_answered(shelf: Shelf, tmp_path: Path) -> None:
    env = {
        "MLFLOW_TRACKING_URI": shelf.tracking_uri,
        "FIN_PYFUNC__RECORD__FOLDER": "record",
        "FIN_PYFUNC__RECORD__SYNC": "interval",
    }
    with serving("-m", "models:/eurusd_rf@champion", folder=tmp_path, env=env) as running:
        noting = Noting(running, tmp_path / "record")
        answered = [noting.ask(json.dumps({"features": row()}).encode()) for _ in range(20)]
    assert {entry.record.request_id for entry in entries(noting.folder)} == {
        each.headers["X-Request-ID"] for each in answered
    }
    [report] = verify(noting.folder)
    assert report.problems == []
    assert report.unconfirmed == 0  # the last ones were made safe, too


@pytest.mark.parametrize("is_asked_for", [True, False])
def test_probabilities_are_recorded_whether_or_not_they_are_asked_for(
    noting: Noting, is_asked_for: bool, shelf: Shelf
) -> None:
    answered = noting.ask(json.dumps({"features": row(7), "return_proba": is_asked_for}).encode())
    entry = noting.recorded(answered)
    assert entry.record.answers is not None
    [answer] = entry.record.answers
    assert answer.prediction == answered.json()["prediction"]
    assert answer.probabilities is not None
    assert replay(entry, shelf.tracking_uri).is_same


@pytest.mark.parametrize(("name", "is_kept"), [("caller-1", True), ('with "quotes"', False), ("x" * 1000, False)])
def test_an_id_of_the_callers_is_kept_beside_ours(noting: Noting, name: str, is_kept: bool) -> None:
    answered = noting.ask(json.dumps({"features": row()}).encode(), **{"X-Request-ID": name})
    record = noting.recorded(answered).record
    assert record.client_request_id == (name if is_kept else None)
    assert len(record.request_id) == 32
    assert record.request_id != name


@pytest.mark.parametrize("sent", [{IDENTIFIER: "Büro 7"}, {IDENTIFIER: "line\nbreak"}, {IDENTIFIER: "\u2028"}])
@pytest.mark.parametrize("indent", [None, 2])
def test_rows_are_kept_as_they_were_sent(
    noting: Noting, sent: dict[str, str], indent: int | None, shelf: Shelf
) -> None:
    features = {**sent, **row(3)}
    body = json.dumps({"features": features}, ensure_ascii=False, indent=indent).encode()
    entry = noting.recorded(noting.ask(body))
    assert entry.record.features is not None
    assert json.loads(bytes(entry.record.features[0])) == features
    assert replay(entry, shelf.tracking_uri).is_same
