"""One model behind our server and behind MLflow's own scoring server, asked the same."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import requests
from fastapi.testclient import TestClient
from mlflow.pyfunc import scoring_server

from tests.servers import Serving, serving

CSV, JSON, PARQUET = "text/csv", "application/json", "application/vnd.apache.parquet"


class Pair(NamedTuple):
    """The same model behind our server and behind MLflow's own."""

    server: Serving
    plain: TestClient

    def ask(self, body: bytes, content_type: str) -> requests.Response:
        headers = {"Content-Type": content_type}
        return requests.post(self.server.url + "/invocations", body, headers=headers, timeout=60)

    def ask_mlflow(self, body: bytes, content_type: str) -> Any:
        return self.plain.post("/invocations", content=body, headers={"Content-Type": content_type})

    def require_same(self, body: bytes, content_type: str) -> requests.Response:
        ours, theirs = self.ask(body, content_type), self.ask_mlflow(body, content_type)
        if theirs.status_code == 200:
            assert (ours.status_code, ours.content) == (200, theirs.content), body
            assert ours.headers["Content-Type"] == theirs.headers["Content-Type"]
        else:
            assert ours.status_code >= 400, body
        return ours


def pair(folder: Path, env: Mapping[str, str] | None = None) -> Iterator[Pair]:
    """Serve the model in the folder `model` of this folder; the log of ours must be free of traces at the end."""
    plain = TestClient(scoring_server.init(mlflow.pyfunc.load_model(str(folder / "model"))))
    with serving("-m", str(folder / "model"), folder=folder, env=env) as server:
        yield Pair(server, plain)
        time.sleep(1)  # metrics are counted afterwards
        assert "Traceback" not in server.log()
