"""A scikit-learn estimator rebuilt on a GPU, as the cuML estimator that it is the twin of."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.backends.native import LazyNative, NativeBackend
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.errors import ArtifactError, DeviceError, ScoringError
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.parts import exchanged, qualified_name, to_host

#: Rows of one call, so that a large batch takes a bounded part of the device's memory.
GPU_ROWS = 65_536


class CumlBackend(CompiledBackend):
    """Scores with cuML; made as any `CompiledBackend`, its estimator being the one to rebuild."""

    name = "cuml"
    device: Literal["cpu", "gpu"] = "gpu"
    chunk_rows = GPU_ROWS

    def open(self, folder: Path, form: Form) -> None:  # noqa: ARG002 - the estimator's own file is all there is
        """Rebuild the estimator; see `CompiledBackend.open`.

        Raises
        ------
        DeviceError
            cuML does not take it here.
        """
        twin = self._estimator
        if not isinstance(twin, LazyNative):
            raise TypeError("what cuML rebuilds is the estimator itself")
        loaded = twin.load()
        if not isinstance(loaded, NativeBackend):
            raise DeviceError("cuML cannot rebuild an estimator that is in a process of its own")
        self._on_gpu = rebuilt(loaded, form.parts)

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """CuML's scores; see `CompiledBackend.run`."""
        return scores(self._on_gpu, matrix, self.form.output)


def rebuilt(twin: NativeBackend, parts: Mapping[str, str]) -> NativeBackend:
    """The same model with its parts on the GPU.

    Parameters
    ----------
    twin : NativeBackend
    parts : mapping of str to str
        scikit-learn class to cuML class, as `Form` holds them.

    Raises
    ------
    DeviceError
        cuML does not take it here.
    """
    try:
        return twin.of(exchanged(twin.estimator, partial(_from_sklearn, parts)), "gpu")
    except ArtifactError:
        raise
    except Exception as e:  # of cuML, CUDA or cupy, which share no base
        raise DeviceError(f"cuML could not take the model ({type(e).__name__})") from e


def scores(on_gpu: NativeBackend, matrix: np.ndarray[Any, np.dtype[np.float64]], output: str) -> Probabilities:
    """Probabilities, or one decision value a class, of shape (n_rows, k).

    Raises
    ------
    ScoringError, DeviceError
    """
    if output == "probabilities":
        found = on_gpu.score(matrix).probabilities
        if found is None:
            raise ScoringError("cuML answered no probabilities")
        return found
    if not len(matrix):  # estimators refuse to look at no rows at all
        return np.empty((0, on_gpu.n_classes))
    decided = np.asarray(to_host(on_gpu.call("decision_function", matrix)), dtype=np.float64)
    decided = decided.reshape(-1) if decided.ndim == 2 and decided.shape[1] == 1 else decided
    return np.column_stack([-decided, decided]) if decided.ndim == 1 else decided


def _from_sklearn(parts: Mapping[str, str], part: Any) -> Any:
    name = parts.get(qualified_name(type(part)))
    if name is None:
        return None
    module, _, kind = name.rpartition(".")
    if not module.startswith("cuml."):  # a manifest is data: it names no code but cuML's
        raise ArtifactError("The model's manifest names a class that is none of cuML's: log the model again.")
    return getattr(import_module(module), kind).from_sklearn(part)
