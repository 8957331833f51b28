"""Compiling a foreign model in a process of its own: ``python -m fin_pyfunc.compiling FOLDER``.

A process of its own, since a converter may take seconds of Python's lock, a lot of memory, or for ever.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from fin_pyfunc.model import estimators
from fin_pyfunc.model.backends.native import labels_of, single_threaded
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
    """

    path: str
    kind: Literal["mlflow", "pickle", "joblib", "skops"]
    features: FeatureSpec


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it; the fields are those of `Compiled`."""

    forms: list[Form]
    dropped: dict[str, str]
    native_seconds: dict[int, float]


def run(folder: Path) -> None:
    """Do the job in a folder, and leave its outcome there."""
    from fin_pyfunc.compiling.forms import compile_estimator

    job = msgspec.json.decode((folder / JOB).read_bytes(), type=Job)
    estimator = _read(job)
    with single_threaded(estimator):
        compiled = compile_estimator(estimator, job.features, labels_of(estimator), folder)
    outcome = Outcome(forms=compiled.forms, dropped=compiled.dropped, native_seconds=compiled.native_seconds)
    (folder / OUTCOME).write_bytes(msgspec.json.encode(outcome))


def _read(job: Job) -> Any:
    if job.kind != "mlflow":
        return estimators.load_file(Path(job.path), job.kind)
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(job.path, suppress_warnings=True).get_raw_model()
