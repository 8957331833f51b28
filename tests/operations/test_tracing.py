"""Traces of a real server, sent by OTLP over HTTP to a receiver that decodes them."""

from __future__ import annotations

import http.server
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.servers import serving
from tests.test_api import row

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Receiver(http.server.ThreadingHTTPServer):
    """What an OpenTelemetry collector is to a server."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Receive)
        self.spans: list[Any] = []
        self.services: set[str] = set()

    def wait_for(self, n: int, trace: str = "") -> list[Any]:
        """The spans of a trace, or all, once there are so many: what probes ask is traced too."""
        deadline = time.monotonic() + 60
        while len(found := [each for each in list(self.spans) if trace in ("", each.trace_id.hex())]) < n:
            assert time.monotonic() < deadline, self.spans
            time.sleep(0.05)
        return found


class _Receive(http.server.BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        assert self.path == "/v1/traces"
        sent = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
        for resource in sent.resource_spans:
            named = (a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            self.server.services.update(named)
            for scope in resource.scope_spans:
                self.server.spans += scope.spans
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (its name there)
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    yield receiver
    receiver.shutdown()
    thread.join()
    receiver.server_close()


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


def test_a_callers_trace_goes_on_with_a_span_a_step(receiver: Receiver, model_folder: Path, tmp_path: Path) -> None:
    env = {
        "FIN_PYFUNC__TRACING__ENABLED": "true",
        "FIN_PYFUNC__LOG_FORMAT": "json",
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{receiver.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "100",
    }
    with serving("-m", str(model_folder), folder=tmp_path, env=env, wait_for="/health/ready") as server:
        headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "X-Request-ID": "desk-7"}
        answered = requests.post(server.url + "/predict", json={"features": row()}, headers=headers, timeout=30)
        refused = {"features": {}, "model_uri": "models:/nobody"}
        requests.post(server.url + "/predict", json=refused, headers=headers, timeout=30)
        requests.get(server.url + "/made/up", headers=headers, timeout=30)
        ours = receiver.wait_for(7, TRACE)
        assert f'"trace_id":"{TRACE}"' in server.log()
    spans = {span.name: span for span in reversed(ours)}
    assert set(spans) == {"POST /predict", "GET other", "load", "decode", "score", "encode"}
    whole = spans["POST /predict"]
    assert whole.parent_span_id.hex() == PARENT
    told = attributes(whole)
    assert told["http.response.status_code"] == 200
    assert told["http.route"] == "/predict"
    assert told["fin_pyfunc.request_id"] == "desk-7"
    assert told["fin_pyfunc.model_id"] == answered.headers["X-Model-ID"]
    assert told["fin_pyfunc.backend"] == answered.headers["X-Model-Backend"]
    for step in ("load", "decode", "score", "encode"):
        assert spans[step].parent_span_id == whole.span_id
        assert spans[step].start_time_unix_nano <= spans[step].end_time_unix_nano <= whole.end_time_unix_nano
    assert receiver.services == {"fin-pyfunc"}
    assert str(row()["spread"]) not in str(ours)


def test_a_collector_that_is_away_holds_up_nothing(model_folder: Path, tmp_path: Path) -> None:
    env = {"FIN_PYFUNC__TRACING__ENABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
    with serving("-m", str(model_folder), folder=tmp_path, env=env) as server:
        assert server.predict(row()).status_code == 200
        server.process.terminate()
        assert server.process.wait(60) == 0


def test_off_nothing_of_opentelemetry_is_loaded() -> None:
    program = (
        "import sys; from fin_pyfunc.serving.app import create_app; from fin_pyfunc.serving.settings import Settings; "
        "create_app(Settings()); sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)
