"""From the compiled forms of a manifest to the backends that run them here."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.compiled import CompiledBackend
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

    Raises
    ------
    ArtifactError
        A form's file cannot be read.
    """
    opened = []
    for form in forms:
        if wanted not in ("auto", "cpu", form.backend):
            continue
        others = [f for f in forms if f is not form and f.backend != wanted]
        if wanted != form.backend and form is not forms[0] and any(_is_slower(form, f, times) for f in others):
            continue
        try:
            # a row that is too close to call goes to a form that is equal to the last bit, if there is one
            equal = next((f for f in forms if form.band and not f.band and f is not form), None)
            asked = _Equal(partial(_open, folder, equal, classes, thresholds, estimator, wary)) if equal else estimator
            opened.append(_open(folder, form, classes, thresholds, asked, wary))
        except ImportError as e:
            logger.warning("the model's %s form is not used: package %s is not installed here", form.backend, e.name)
    return opened


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


def _open(folder: Path, form: Form, *args: Any) -> CompiledBackend:
    return _BACKENDS[form.backend](folder, form, *args)


def _onnx(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.onnx import OnnxBackend

    return OnnxBackend(*args)


def _treelite(*args: Any) -> CompiledBackend:
    from fin_pyfunc.model.backends.treelite import TreeliteBackend

    return TreeliteBackend(*args)


#: Each imports its library when it is called.
_BACKENDS = {"onnx": _onnx, "treelite": _treelite}
