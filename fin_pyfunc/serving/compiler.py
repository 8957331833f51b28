"""Compiles a model that was not logged by this project while its estimator already answers."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import weakref
from pathlib import Path
from typing import Literal, cast

import msgspec

from fin_pyfunc.compiling.job import JOB, OUTCOME, Job, Outcome
from fin_pyfunc.model.backends.forms import open_forms
from fin_pyfunc.model.backends.native import NativeBackend, labels_of
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import FinPyfuncError

logger = logging.getLogger("fin_pyfunc.server")

#: Seconds that compiling may take; a model that takes longer goes on as it is.
LIMIT = 120.0
#: One at a time in a worker, however many models are loaded: it is to leave the processor to those that answer.
_turn = threading.Lock()


def compile_later(model: Classifier, path: Path, kind: str) -> threading.Thread | None:
    """Start compiling a model's estimator in another process; from when it is done on, the model answers with it.

    Parameters
    ----------
    model : Classifier
        Its one backend is the estimator itself.
    path : Path
        Where the estimator came from.
    kind : {"mlflow", "pickle", "joblib", "skops"}

    Returns
    -------
    Thread or None
        What waits for it; None where nothing can be compiled: the model's features are not known, or a backend was
        asked for by name.
    """
    native = model.dispatch.backends[0]
    if model.features is None or model.dispatch.wanted == "native" or not isinstance(native, NativeBackend):
        return None
    thread = threading.Thread(target=_compile, args=(model, native, path, kind), name="compile", daemon=True)
    thread.start()
    return thread


def _compile(model: Classifier, native: NativeBackend, path: Path, kind: str) -> None:
    try:
        # a form may be opened long after: its files go when the model does
        folder = tempfile.mkdtemp(prefix="fin_pyfunc-")
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        with _turn:
            outcome = _outcome(Path(folder), model, path, kind)
            times: dict[str, dict[int, float]] = {form.backend: form.seconds for form in outcome.forms}
            times["native"] = outcome.native_seconds
            classes, wanted = labels_of(native.estimator), model.dispatch.wanted
            compiled = open_forms(Path(folder), outcome.forms, times, classes, model.thresholds, native, wanted, True)
        if compiled:
            dispatch = Dispatch([*compiled, native], wanted)
            dispatch.adopt({backend.name: times[backend.name] for backend in dispatch.backends})
            model.dispatch = dispatch
        said: list[str] = [form.backend for form in outcome.forms]
        said = said or [f"nothing ({reason})" for reason in outcome.dropped.values()]
        logger.info("compiled %s to %s", type(native.estimator).__name__, ", ".join(said))
    except (OSError, FinPyfuncError, subprocess.SubprocessError, msgspec.MsgspecError) as e:
        logger.warning(
            "%s could not be compiled (%s) and goes on as it is", type(native.estimator).__name__, type(e).__name__
        )


def _outcome(folder: Path, model: Classifier, path: Path, kind: str) -> Outcome:
    named = cast('Literal["mlflow", "pickle", "joblib", "skops"]', kind)
    assert model.features is not None  # noqa: S101 - for the type checker; `compile_later` has looked
    (folder / JOB).write_bytes(msgspec.json.encode(Job(path=str(path), kind=named, features=model.features)))
    command = [sys.executable, "-m", "fin_pyfunc.compiling", str(folder)]
    # its output is of no use to an operator, and may quote the model
    subprocess.run(
        command, check=True, timeout=LIMIT, preexec_fn=_be_nice, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return msgspec.json.decode((folder / OUTCOME).read_bytes(), type=Outcome)


def _be_nice() -> None:
    with contextlib.suppress(OSError):
        os.nice(10)
