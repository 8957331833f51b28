"""A server started and asked in every way while its image is built: what it needs is there, and is compiled by Python.

Run as ``python -m fin_pyfunc.image.trial URI``; any failure fails the build.
"""

from __future__ import annotations

import io
import signal
import subprocess
import sys
import time
from importlib import import_module

import numpy as np
import pyarrow
import pyarrow.csv
import pyarrow.parquet
import requests

import fin_pyfunc

_URL = "http://127.0.0.1:8000"
#: What is to compute a forest in an image.
BACKENDS = ("trees", "native")
#: Longest that the server may take to be ready, in seconds.
_READY_SECONDS = 120.0


def main(uri: str) -> None:
    """Serve the model, ask for one row and for batches in each content type, and end the server.

    Parameters
    ----------
    uri : str
        A forest that `fin_pyfunc.log_model` logged.

    Raises
    ------
    BackendError
        A backend of `BACKENDS` is not there.
    requests.HTTPError
        An answer was not 200.
    SystemExit
        The server ended on its own, was never ready, or did not end well when asked to.
    """
    manifest = fin_pyfunc.load_model(uri).manifest
    if manifest is None:
        raise SystemExit("the trial needs a model that fin_pyfunc logged")
    row = manifest.example.features
    import_module("onnxruntime")  # other models' forms need it
    for backend in BACKENDS:
        fin_pyfunc.load_model(uri, backend=backend).predict_one(row)
    table = pyarrow.table({name: np.full(3, value) for name, value in row.items()})
    server = subprocess.Popen(["fin-pyfunc", "serve", "-m", uri, "--port", "8000"])
    try:
        _wait_ready(server)
        requests.post(f"{_URL}/predict", json={"features": row, "return_proba": True}, timeout=60).raise_for_status()
        requests.post(f"{_URL}/predict/batch", json={"features_list": [row, row]}, timeout=60).raise_for_status()
        for content_type, body in _bodies(table).items():
            headers = {"Content-Type": content_type, "Accept": content_type}
            requests.post(f"{_URL}/predict/batch", data=body, headers=headers, timeout=60).raise_for_status()
        for path in ("/models", "/openapi.json", "/health"):
            requests.get(_URL + path, timeout=60).raise_for_status()
    finally:
        server.send_signal(signal.SIGTERM)
        status = server.wait(60)
    if status:
        raise SystemExit(f"the server ended with status {status}")


def _wait_ready(server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(f"{_URL}/health/ready", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass  # not listening yet
        time.sleep(0.1)
    raise SystemExit("the server was never ready: what it said is above")


def _bodies(table: pyarrow.Table) -> dict[str, bytes]:
    """The rows in each content type that a batch may have."""
    arrow, parquet, csv = io.BytesIO(), io.BytesIO(), io.BytesIO()
    with pyarrow.ipc.new_stream(arrow, table.schema) as stream:
        stream.write_table(table)
    pyarrow.parquet.write_table(table, parquet)
    pyarrow.csv.write_csv(table, csv)
    return {
        "application/vnd.apache.arrow.stream": arrow.getvalue(),
        "application/vnd.apache.parquet": parquet.getvalue(),
        "text/csv": csv.getvalue(),
    }


if __name__ == "__main__":
    main(sys.argv[1])
