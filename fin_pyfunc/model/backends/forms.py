"""From the compiled forms of a manifest to the backends that run them here."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.decision import Label, Thresholds
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.plan import Times

logger = logging.getLogger("fin_pyfunc")

#: A form that took this many times another's time at every row count when it was made is opened only by name: it would
#: cost its library's import and its memory, and never be chosen.
HOPELESS = 2.0


def open_forms(
    folder: Path,
    forms: Sequence[Form],
    times: Mapping[str, Times],
    classes: Sequence[Label],
    thresholds: Thresholds,
    estimator: Backend,
    wanted: str = "auto",
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

    Raises
    ------
    ArtifactError
        A form's file cannot be read.
    """
    opened = []
    for form in forms:
        if wanted not in ("auto", "cpu", form.backend):
            continue
        if wanted != form.backend and any(_hopeless(times[form.backend], times[f.backend]) for f in forms):
            continue
        try:
            opened.append(_open(folder, form, classes, thresholds, estimator))
        except ImportError as e:
            logger.warning("the model's %s form is not used: package %s is not installed here", form.backend, e.name)
    return opened


def _open(
    folder: Path, form: Form, classes: Sequence[Label], thresholds: Thresholds, estimator: Backend
) -> CompiledBackend:
    if form.backend == "onnx":
        from fin_pyfunc.model.backends.onnx import OnnxBackend

        return OnnxBackend(folder, form, classes, thresholds, estimator)
    from fin_pyfunc.model.backends.treelite import TreeliteBackend

    return TreeliteBackend(folder, form, classes, thresholds, estimator)


def _hopeless(own: Times, other: Times) -> bool:
    common = own.keys() & other.keys()
    return bool(common) and all(own[n] >= HOPELESS * other[n] for n in common)
