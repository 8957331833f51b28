"""A tree ensemble in treelite's form through nvForest, on a GPU or on the CPU."""

from __future__ import annotations

import ctypes
import hashlib
import threading
import weakref
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.backends.forest import is_forest, trees_that_vote
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.device import is_out_of_memory
from fin_pyfunc.model.errors import ArtifactError, DeviceError
from fin_pyfunc.model.form import LEAST_BAND, Form
from fin_pyfunc.model.soundness.treelite import check_treelite

#: nvForest holds Python's lock while it computes, so no call is to take much longer than the interpreter lets one
#: thread keep it: a 200-tree forest scores so many rows in a few milliseconds.
CPU_ROWS, GPU_ROWS = 256, 131_072
#: Device memory that the rows and answers of one call may take, in bytes.
GPU_BYTES = 256 << 20
#: Fewer rows than this a call are not worth another try after the device ran out of memory.
LEAST_ROWS = 1024

#: Forests in memory, by their file's digest and their device: however often a worker opens a model, it holds one copy,
#: which goes when the last backend that uses it does.
_FORESTS: weakref.WeakValueDictionary[tuple[str, str], Any] = weakref.WeakValueDictionary()
_OPENING = threading.Lock()
_THIS_THREAD = threading.local()


class NvForestBackend(CompiledBackend):
    """Scores with nvForest on the CPU; made as any `CompiledBackend`, from a form of treelite."""

    name = "nvforest-cpu"
    chunk_rows = CPU_ROWS

    def open(self, folder: Path, form: Form) -> None:
        """Read the form's files; see `CompiledBackend.open`."""
        content = (folder / form.file).read_bytes()
        self._forest = _forest(content, self.device)
        # it adds up in an order of its own, which is the same to the last bit only for whole numbers
        self._votes = trees_that_vote(check_treelite(content, len(self._classes))) if is_forest(form) else 0
        self._band = 0.0 if self._votes else max(form.band, LEAST_BAND)

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The trees' scores; see `CompiledBackend.run`."""
        _one_thread()
        X = matrix.astype(np.float32) if self.form.casts else matrix
        return self._scores(np.asarray(self._forest.predict_proba(X), dtype=np.float64))

    def _scores(self, answered: Probabilities) -> Probabilities:
        """Scores of every class: a boosted ensemble of two answers, as (n, 1), the second one's alone."""
        if answered.shape[1] == 1:
            return np.column_stack([1 - answered, answered])
        if self._votes:
            np.rint(answered * self._votes, out=answered)
            answered /= self._votes
        return answered


class NvForestGpuBackend(NvForestBackend):
    """Scores with nvForest on the GPU; made as any `CompiledBackend`, from a form of treelite."""

    name = "nvforest-gpu"
    device: Literal["cpu", "gpu"] = "gpu"
    chunk_rows = GPU_ROWS

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The trees' scores; see `CompiledBackend.run`.

        Raises
        ------
        DeviceError
            The device failed, and would not have with fewer rows a call.
        """
        row_bytes = 2 * matrix.itemsize * (matrix.shape[1] + len(self._classes))  # as sent, and as compared
        rows = max(LEAST_ROWS, min(self.chunk_rows, GPU_BYTES // row_bytes))
        scored: list[Probabilities] = []
        at = 0
        while at < len(matrix) or not scored:
            try:
                scored.append(self.on_device(matrix[at : at + rows]))
            except Exception as e:  # of CUDA, cupy and rmm, which share no base
                if not is_out_of_memory(e) or rows <= LEAST_ROWS:
                    raise DeviceError(f"the GPU failed while it scored ({type(e).__name__})") from e
                rows = max(LEAST_ROWS, min(rows, len(matrix) - at) // 4)
            else:
                at += rows
        return self._scores(np.concatenate(scored) if len(scored) > 1 else scored[0])

    def on_device(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The forest's own answer to rows that fit the device, copied there and back."""
        import cupy

        # float32 is half of what has to be copied; nvForest makes of it what it compares in, on the device
        X = cupy.asarray(matrix.astype(np.float32) if self.form.casts else matrix)
        answered: Probabilities = cupy.asnumpy(self._forest.predict_proba(X)).astype(np.float64)
        return answered


def _forest(content: bytes, device: str) -> Any:
    """The forest of a file, opened once however many want it."""
    key = (hashlib.sha256(content).hexdigest(), device)
    with _OPENING:
        if (known := _FORESTS.get(key)) is not None:
            return known
        import rmm  # noqa: F401 - first: without it nvForest does not find the library that rmm brings
        import nvforest  # isort: skip
        import treelite

        try:
            model = treelite.Model.deserialize_bytes(content)
            forest = nvforest.load_from_treelite_model(model, device=device)
        except (treelite.TreeliteError, ValueError) as e:
            raise ArtifactError("The model's treelite file could not be read: log the model again.") from e
        except (RuntimeError, MemoryError) as e:
            if device == "cpu":
                raise
            raise DeviceError(f"the GPU could not take the model ({type(e).__name__})") from e
        _FORESTS[key] = forest
        if device == "gpu":
            import cupy

            # what cupy keeps for rows to come goes back to the device with the model
            weakref.finalize(forest, cupy.get_default_memory_pool().free_all_blocks).atexit = False
        return forest


def _one_thread() -> None:
    """Have nvForest use this thread alone, as every other backend here: the server has threads of its own."""
    if not getattr(_THIS_THREAD, "is_alone", False):
        for library in _openmp():
            library.omp_set_num_threads(1)  # of this thread only
        _THIS_THREAD.is_alone = True


@cache
def _openmp() -> list[ctypes.CDLL]:
    """The OpenMP that nvForest brings or, where it uses the system's, that one."""
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped] # it ships no types

    loaded = [lib.filepath for lib in ThreadpoolController().lib_controllers if lib.user_api == "openmp"]
    return [ctypes.CDLL(path) for path in [path for path in loaded if "nvforest" in path] or loaded]
