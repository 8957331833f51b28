"""Compiling an estimator in a process of its own: a job in a folder, and its outcome beside it.

A converter may take seconds of Python's lock, a lot of memory, or for ever; native code may end its process. What is
done so far is written before each form is begun, so that one form costs no other.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from fin_pyfunc.model import estimators
from fin_pyfunc.model.backends.native import labels_of, single_threaded
from fin_pyfunc.model.decision import Label
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.form import Form

#: The job and its outcome, in the folder that the forms are written to.
JOB, OUTCOME = "job.json", "outcome.json"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What to compile.

    Parameters
    ----------
    path : str
        A model's folder, or an estimator's file.
    kind : {"mlflow", "pickle", "joblib", "skops"}
    features : FeatureSpec
    classes : list of Label or None, default None
        In `predict_proba`'s column order; None for the estimator's own.
    sample : str or None, default None
        A file of rows as `numpy.save` writes it, without pickles.
    tolerance, backends
        As in `compile_estimator`.
    environ : dict of str to str or None
        Variables to set, or with None to unset, before the estimator is read.
    """

    path: str
    kind: Literal["mlflow", "pickle", "joblib", "skops"]
    features: FeatureSpec
    classes: list[Label] | None = None
    sample: str | None = None
    tolerance: float = 1e-6
    backends: tuple[str, ...] | None = None
    environ: dict[str, str | None] = {}


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; the other fields are those of `Compiled`.

    Parameters
    ----------
    features : FeatureSpec or None, default None
        The job's features with codes, where a form computes with these.
    making : str or None, default None
        The backend whose form was begun last; None once everything is done.
    """

    forms: list[Form]
    dropped: dict[str, str]
    native_seconds: dict[int, float]
    features: FeatureSpec | None = None
    making: str | None = None


def run(folder: Path) -> None:
    """Do the job in a folder, and leave its outcome there."""
    import numpy as np

    from fin_pyfunc.compiling.forms import Compiled, coded_for, compile_estimator
    from fin_pyfunc.model.encoders import with_codes

    job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
    _set(job.environ)
    estimator = _read(job)
    features = with_codes(job.features, estimator)
    classes: Sequence[Label] = labels_of(estimator) if job.classes is None else job.classes
    sample = None if job.sample is None else np.load(job.sample, allow_pickle=False)

    def leave(compiled: Compiled, making: str | None) -> None:
        outcome = Outcome(
            forms=compiled.forms, dropped=compiled.dropped, native_seconds=compiled.native_seconds,
            features=coded_for(compiled.forms, features), making=making,
        )  # fmt: skip
        written = folder / f"{OUTCOME}.new"
        written.write_bytes(msgspec.json.encode(outcome))
        written.replace(folder / OUTCOME)

    with single_threaded(estimator):
        compiled = compile_estimator(
            estimator, features, classes, folder, sample, tolerance=job.tolerance, backends=job.backends,
            begun=leave,
        )  # fmt: skip
    leave(compiled, None)


def _set(environ: dict[str, str | None]) -> None:
    for name, value in environ.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _read(job: Job) -> Any:
    if job.kind != "mlflow":
        return estimators.load_file(Path(job.path), job.kind)
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(job.path, suppress_warnings=True).get_raw_model()
