"""The forest behind BentoML, with its adaptive batching.

Runs in BentoML's own environment: ``bentoml serve bentoml_service:Forest``. Needs ``BENCH_FOREST``, a joblib file.
"""

import os

import bentoml
import joblib
import numpy as np


@bentoml.service(workers=1, traffic={"timeout": 60}, logging={"access": {"enabled": False}})
class Forest:
    """Rows in, classes out."""

    def __init__(self) -> None:
        self.forest = joblib.load(os.environ["BENCH_FOREST"])

    @bentoml.api(batchable=True, max_batch_size=64, max_latency_ms=1000)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        labels: np.ndarray = self.forest.predict(rows)
        return labels
