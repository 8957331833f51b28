"""The forest behind LitServe: requests that come within a few milliseconds are scored together.

    python litserve_app.py HOST PORT

Runs in LitServe's own environment. Needs ``BENCH_FOREST``, a joblib file.
"""

# without postponed annotations: LitServe reads those of decode_request
import os
import sys
from typing import Any

import joblib
import litserve as ls
import numpy as np


class Forest(ls.LitAPI):  # type: ignore[misc]
    """One row in, one class out."""

    def setup(self, device: str) -> None:  # noqa: ARG002 - LitServe's
        self.forest = joblib.load(os.environ["BENCH_FOREST"])

    def decode_request(self, request: dict[str, Any]) -> list[float]:
        row: list[float] = request["row"]
        return row

    def batch(self, inputs: list[list[float]]) -> np.ndarray:
        return np.array(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.forest.predict(x)
        return labels

    def unbatch(self, output: np.ndarray) -> list[int]:
        labels: list[int] = output.tolist()
        return labels

    def encode_response(self, output: int) -> dict[str, int]:
        return {"prediction": output}


if __name__ == "__main__":
    server = ls.LitServer(Forest(max_batch_size=64, batch_timeout=0.005), accelerator="cpu", workers_per_device=1)
    server.run(
        host=sys.argv[1], port=int(sys.argv[2]), num_api_servers=1, generate_client_file=False, log_level="error"
    )
