"""An estimator compiled to ONNX, through ONNX Runtime."""

from __future__ import annotations

import mmap
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.backends.onnx_session import open_session
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.form import Form

#: The graph's one input, float64 (n_rows, n_features), and its one output, float64 (n_rows, k).
INPUT, OUTPUT = "features", "scores"
_OUTPUTS = [OUTPUT]


class OnnxBackend(CompiledBackend):
    """Scores with the ONNX graph that `fin_pyfunc.compiling` made; made as any `CompiledBackend`."""

    name = "onnx"

    def open(self, folder: Path, form: Form) -> None:
        """Read the form's files; see `CompiledBackend.open`."""
        self._run = _runner(open_session((folder / form.file).read_bytes()))
        # the layout for many rows costs no memory before a batch comes, and is still there if its file is not
        self._batch_content = None if form.batch_file is None else _mapped(folder / form.batch_file)
        self._run_batch: Callable[..., Any] | None = None
        self._opening = threading.Lock()

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The graph's scores; see `CompiledBackend.run`."""
        run = self._run
        if self._batch_content is not None and len(matrix) >= self.form.batch_from:
            run = self._run_batch or self._open_batch(self._batch_content)
        scores: Probabilities = run(_OUTPUTS, {INPUT: matrix}, None)[0]
        return scores

    def _open_batch(self, content: mmap.mmap) -> Callable[..., Any]:
        with self._opening:
            if self._run_batch is None:
                self._run_batch = _runner(open_session(bytes(content)))
        return self._run_batch


def _mapped(path: Path) -> mmap.mmap:
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _runner(session: Any) -> Callable[..., Any]:
    """What runs a session: its own inner `run`, where it is to be had. The outer one checks names that are known here,
    which takes a quarter of the time of a row.
    """
    run: Callable[..., Any] = getattr(session, "_sess", session).run
    return run
