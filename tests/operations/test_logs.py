"""The log of a real server: one JSON object a line, whoever writes it, and nothing in it that is nobody's business."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from fin_pyfunc.serving.logs.lines import JsonFormatter, Line
from tests.servers import COMMAND, Serving, serving
from tests.test_api import row

SECRET = "s3cret-of-a-caller"


def lines(server: Serving) -> list[dict[str, Any]]:
    """Every line of a log, each of which must be one object that holds nothing but the fields there are."""
    found = [json.loads(line) for line in server.log().splitlines()]
    for line in found:
        assert set(line) <= set(Line.__struct_fields__), line
        assert {"time", "level", "logger", "pid", "message"} <= set(line)
        assert datetime.fromisoformat(line["time"]).tzinfo == UTC
    return found


@pytest.fixture(scope="module")
def served(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    env = {"FIN_PYFUNC__LOG_FORMAT": "json"}
    with serving("-m", str(model_folder), folder=tmp_path_factory.mktemp("logs"), env=env) as server:
        yield server


def of_requests(server: Serving, request_id: str) -> list[dict[str, Any]]:
    server.wait_for_log(request_id)
    return [line for line in lines(server) if line.get("request_id") == request_id]


def test_each_request_is_a_line_with_what_was_asked_and_how_it_went(served: Serving) -> None:
    answered = requests.post(
        served.url + "/predict", json={"features": row()}, headers={"X-Request-ID": "desk-1"}, timeout=30
    )
    (line,) = of_requests(served, "desk-1")
    assert (line["method"], line["route"], line["status"], line["level"]) == ("POST", "/predict", 200, "info")
    assert line["model_id"] == answered.headers["X-Model-ID"]
    assert line["backend"] == answered.headers["X-Model-Backend"]
    assert line["rows"] == 1
    assert 0 < line["seconds"] < 30


def test_a_refused_request_is_a_line_too_and_names_the_model_that_refused_it(served: Serving) -> None:
    headers = {"X-Request-ID": "desk-2"}
    requests.post(served.url + "/predict", json={"features": {}}, headers=headers, timeout=30)
    (line,) = of_requests(served, "desk-2")
    assert line["status"] == 422
    assert line["model_id"].startswith("sha256:")
    assert "rows" not in line


def test_neither_features_nor_keys_nor_made_up_paths_are_told(served: Serving) -> None:
    headers = {"X-Request-ID": "desk-3", "Authorization": f"Bearer {SECRET}", "X-API-Key": SECRET}
    asks: list[tuple[str, Any]] = [
        ("/predict", {"features": {**row(), "spread": SECRET}}),
        ("/predict", {"features": {**row(), SECRET: 1}}),
        ("/predict", {"features": row(), "model_uri": f"models:/{SECRET}/1"}),
        ("/predict/batch", {"features_list": [{**row(), "spread": SECRET}]}),
        ("/invocations", {"dataframe_records": [{**row(), "spread": SECRET}]}),
        (f"/{SECRET}", {}),
        (f"/models?{SECRET}=1", {}),
    ]
    for path, body in asks:
        requests.post(served.url + path, json=body, headers=headers, timeout=30)
    served.wait_for_log("desk-3", times=len(asks))
    assert len(of_requests(served, "desk-3")) >= len(asks)
    assert SECRET not in served.log()
    assert "0.0985" not in served.log()


def test_gunicorn_and_libraries_write_json_too_and_probes_are_left_out(served: Serving) -> None:
    found = lines(served)
    assert {"gunicorn.error", "fin_pyfunc.server"} <= {line["logger"] for line in found}
    assert any("ready" in line["message"] for line in found)
    assert not [line for line in found if line.get("route") in ("/health/ready", "/metrics")]


@pytest.mark.parametrize(("asked", "told"), [("all", True), ("failed", False)])
def test_text_is_for_people_and_tells_every_request_only_if_asked_to(
    model_folder: Path, tmp_path: Path, asked: str, told: bool
) -> None:
    env = {"FIN_PYFUNC__LOG_REQUESTS": asked}
    with serving("-m", str(model_folder), folder=tmp_path, env=env) as server:
        for status, features in ((200, row()), (422, {})):
            headers = {"X-Request-ID": f"desk-{status}"}
            requests.post(server.url + "/predict", json={"features": features}, headers=headers, timeout=30)
        server.wait_for_log("desk-422")
        assert ("request desk-200: POST /predict 200 in" in server.log()) == told
        assert re.search(
            r"^\[.*\] \[INFO\] request desk-422: POST /predict 422 \(FeatureError\) in", server.log(), re.M
        )


def test_a_start_that_fails_is_a_line_of_json(tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__LOG_FORMAT": "json", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [*COMMAND, "-m", "./nowhere", "--port", "0"], cwd=tmp_path, env=env, capture_output=True, timeout=120
    )
    assert done.returncode != 0
    said = [json.loads(line) for line in done.stderr.splitlines()]
    assert any("cannot be loaded" in line["message"] and line["level"] == "error" for line in said)


def test_a_trace_is_within_its_line() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("a.b", logging.ERROR, "", 1, "went %s", ("wrong",), sys.exc_info())
    record.request_id = "desk-9"
    text = JsonFormatter().format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["error"], line["request_id"]) == ("went wrong", "ValueError", "desk-9")
    assert line["trace"].endswith("ValueError: two\nlines")


def test_the_log_ends_with_the_server(model_folder: Path, tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__LOG_FORMAT": "json"}
    with serving("-m", str(model_folder), folder=tmp_path, env=env) as server:
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(60) == 0
        assert any("Shutting down" in line["message"] for line in lines(server))
