"""From the compiled forms of a manifest to the backends that run them here."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.backends.devices import KINDS, Kind, open_on_devices
from fin_pyfunc.model.decision import Label, Scores, Thresholds
from fin_pyfunc.model.features import Table
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.plan import Times

logger = logging.getLogger("fin_pyfunc")

#: A form that at no row count took less than this part of another's time when it was made is opened only by name: it
#: would cost its library's import and its memory, and be chosen by noise alone.
WORTH_IT = 0.8


def open_forms(
    folder: Path,
    forms: Sequence[Form],
    times: Mapping[str, Times],
    classes: Sequence[Label],
    thresholds: Thresholds,
    estimator: Backend,
    wanted: str = "auto",
    wary: bool = False,
    dropped: Mapping[str, str] | None = None,
    on_devices: bool = True,
) -> list[CompiledBackend]:
    """Open what can be of use.

    Parameters
    ----------
    folder : Path
        Where the forms' files are.
    forms : sequence of Form
        The one to prefer first.
    times : mapping of str to mapping of int to float
        By backend, seconds by rows when the forms were made.
    classes, thresholds, estimator
        As `CompiledBackend` takes them.
    wanted : str, default "auto"
        "auto", "cpu", "gpu" or a backend's name: a form of another name is left alone.
    wary : bool, default False
        As `CompiledBackend` takes it.
    dropped : mapping of str to str, optional
        By form, why there is none.
    on_devices : bool, default True
        Open what a GPU or nvForest computes, too. Nothing is known of how long they take: they have to be measured.

    Raises
    ------
    ArtifactError
        A form's file cannot be read.
    BackendError
        A GPU or nvForest was asked for, and why it cannot be had.
    """

    def close_calls() -> Backend:
        """What is asked of a row that is too close to call: a form that is equal to the last bit, if there is one."""
        equal = next((f for f in sorted(forms, key=lambda f: f.backend != "trees") if not f.band), None)
        if equal is None:
            return estimator
        of_trees, of_equal = partial(_forest, folder, [equal]), partial(_open, folder, equal)
        rest = (classes, thresholds, estimator, wary)
        return _Equal(lambda: next(iter(of_trees(*rest)), None) or of_equal(*rest))

    def open_on(kind: Kind, form: Form) -> CompiledBackend:
        asked = estimator if kind.form == "cuml" else close_calls()
        return _BACKENDS[kind.name](folder, form, classes, thresholds, asked, wary)

    opened: list[CompiledBackend] = []
    has_trees = any(form.backend == "trees" for form in forms)
    if wanted == "forest" or (wanted in ("auto", "cpu") and not has_trees):
        opened += _forest(folder, forms, classes, thresholds, estimator, wary)
    for form in forms:
        if form.backend in _ELSEWHERE or wanted not in ("auto", "cpu", form.backend):
            continue
        is_slow = form.backend == "treelite" and has_trees and wanted != "treelite"
        if is_slow or (opened and opened[0].name == "forest"):  # at every row count: by name alone
            continue
        others = [f for f in forms if f is not form and f.backend != wanted]
        if wanted != form.backend and form is not forms[0] and any(_is_slower(form, f, times) for f in others):
            continue
        try:
            asked = close_calls() if form.band else estimator
            opened.append(_open(folder, form, classes, thresholds, asked, wary))
        except ImportError as e:
            logger.warning("the model's %s form is not used: package %s is not installed here", form.backend, e.name)
    return [*opened, *(open_on_devices(forms, dropped or {}, open_on, wanted) if on_devices else ())]


class _Equal:
    """A form that is equal to the estimator to the last bit, opened when it is first asked."""

    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, open_it: Callable[[], CompiledBackend]) -> None:
        self._open, self._opening = open_it, threading.Lock()
        self._backend: CompiledBackend | None = None
        self.name = "equal"

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        with self._opening:
            if self._backend is None:
                self._backend = self._open()
        return self._backend.score(table)


def _is_slower(form: Form, other: Form, times: Mapping[str, Times]) -> bool:
    own, others = times[form.backend], times[other.backend]
    common = own.keys() & others.keys()
    return bool(common) and all(own[n] >= WORTH_IT * others[n] for n in common)


def _forest(folder: Path, forms: Sequence[Form], *args: Any) -> list[CompiledBackend]:
    from fin_pyfunc.model.backends.forest import ForestBackend, NotAForestError, is_forest

    for form in filter(is_forest, forms):
        with contextlib.suppress(NotAForestError):
            return [ForestBackend(folder, form, *args)]
    return []


def _open(folder: Path, form: Form, *args: Any) -> CompiledBackend:
    return _BACKENDS[form.backend](folder, form, *args)


def _trees(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.trees import TreesBackend

    return TreesBackend(*args)


def _program(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.program import ProgramBackend

    return ProgramBackend(*args)


def _onnx(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.onnx import OnnxBackend

    return OnnxBackend(*args)


def _treelite(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.treelite import TreeliteBackend

    return TreeliteBackend(*args)


def _nvforest_cpu(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.nvforest import NvForestBackend

    return NvForestBackend(*args)


def _nvforest_gpu(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.nvforest import NvForestGpuBackend

    return NvForestGpuBackend(*args)


def _cuml(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.cuml import CumlBackend

    return CumlBackend(*args)


#: Each imports its library when it is called.
_BACKENDS: dict[str, Callable[..., CompiledBackend]] = {
    "trees": _trees, "program": _program, "onnx": _onnx, "treelite": _treelite, "nvforest-cpu": _nvforest_cpu,
    "nvforest-gpu": _nvforest_gpu, "cuml": _cuml,
}  # fmt: skip
#: Forms that no CPU runs.
_ELSEWHERE = {kind.form for kind in KINDS if kind.device == "gpu"} - {
    kind.form for kind in KINDS if kind.device == "cpu"
}
