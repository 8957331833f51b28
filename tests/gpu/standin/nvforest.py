"""nvForest as far as a GPU is concerned: treelite computes, and the device fails when the test says so.

The file named by STANDIN_FAILS holds "lost" or "memory"; STANDIN_ROWS is how many rows fit the device's memory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cupy
import rmm  # noqa: F401 - the real one needs it
import treelite

#: Rows of each call, in the order in which they came.
calls: list[int] = []


class Forest:
    def __init__(self, model: Any, device: str) -> None:
        self._model, self._device = model, device

    def predict_proba(self, X: Any) -> Any:
        rows = X.get() if isinstance(X, cupy.DeviceArray) else X
        if self._device == "gpu":
            calls.append(len(rows))
            said = Path(os.environ.get("STANDIN_FAILS", "/nowhere"))
            fails = said.read_text().strip() if said.is_file() else ""
            if fails == "memory" or len(rows) > int(os.environ.get("STANDIN_ROWS", "1000000000")):
                raise cupy.OutOfMemoryError("out of memory")
            if fails == "lost":
                raise RuntimeError("cudaErrorLaunchFailure: unspecified launch failure")
        scores = treelite.gtil.predict(self._model, rows, nthread=1).reshape(len(rows), -1)
        return cupy.asarray(scores) if self._device == "gpu" else scores


def load_from_treelite_model(model: Any, *, device: str) -> Forest:
    return Forest(model, device)
