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
import numpy as np

from fin_pyfunc.compiling.job import JOB, OUTCOME, Job, Outcome
from fin_pyfunc.host.wire import printable
from fin_pyfunc.model import artifact
from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.backends.decoded import DecodedBackend
from fin_pyfunc.model.backends.forms import open_forms
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.encoders import without_codes
from fin_pyfunc.model.errors import ArtifactError, FinPyfuncError
from fin_pyfunc.model.plan import ROW_COUNTS, measure
from fin_pyfunc.serving.hosts.hosted_model import HostedBackend
from fin_pyfunc.serving.hosts.hosts import Hosts
from fin_pyfunc.serving.snapshot import copy

logger = logging.getLogger("fin_pyfunc.server")

#: Seconds that compiling may take; a model that takes longer goes on as it is.
LIMIT = 120.0
#: Most bytes that a job may write.
MAX_BYTES = 2 << 30
#: Seconds that measuring a backend may take that was not measured where the model was compiled.
MEASURED = 0.1


class Compiler:
    """Compiles in a process of its own, one model at a time however many are loaded: those that answer come first.

    Parameters
    ----------
    hosts : Hosts, optional
        Runs the process confined, as model hosts are; default it is started from here, as it was for a person's own
        commands.
    """

    def __init__(self, hosts: Hosts | None = None) -> None:
        self._hosts = hosts
        self._turn, self._lock = threading.Lock(), threading.Lock()
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._is_closed = False

    def later(self, model: Classifier, path: Path, kind: str) -> threading.Thread | None:
        """Start compiling a model's estimator; from when it is done on, the model answers with what came of it.

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
        if model.features is None or model.dispatch.wanted == "native" or native.name != NativeBackend.name:
            return None
        if not isinstance(native, NativeBackend | HostedBackend):
            return None
        thread = threading.Thread(target=self._compile, args=(model, native, path, kind), name="compile", daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """End what is being compiled, and remove the files of what was."""
        with self._lock:
            self._is_closed = True
            if self._process is not None:
                self._process.kill()
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _compile(self, model: Classifier, native: NativeBackend | HostedBackend, path: Path, kind: str) -> None:
        assert model.features is not None  # noqa: S101 - for the type checker; `later` has looked
        try:
            with self._turn:
                folder = self._folder_of(model) / "forms"
                outcome = self._outcome(self._folder_of(model), folder, model, path, kind)
                times: dict[str, dict[int, float]] = {form.backend: form.seconds for form in outcome.forms}
                times["native"] = outcome.native_seconds
                wanted = model.dispatch.wanted
                # no rows of such a model are at hand that a device could be measured with
                estimator: Backend = native
                if (features := outcome.features) is not None:
                    estimator = DecodedBackend(native, features)
                compiled = open_forms(
                    folder,
                    outcome.forms,
                    times,
                    native.classes,
                    model.thresholds,
                    estimator,
                    wanted,
                    True,
                    on_devices=False,
                    features=features,
                )
            if compiled:
                times |= {b.name: _measured(b, len(model.features.names)) for b in compiled if b.name not in times}
                dispatch = Dispatch([*compiled, estimator], wanted)
                dispatch.adopt({backend.name: times[backend.name] for backend in dispatch.backends})
                # in this order: rows are read as codes only when there is what takes them
                model.dispatch, model.features = dispatch, features or model.features
            said: list[str] = [form.backend for form in outcome.forms]
            said = said or [f"nothing ({reason})" for reason in outcome.dropped.values()]
            logger.info("compiled %s to %s", native.type_name, printable(", ".join(said)))
        except (OSError, FinPyfuncError, subprocess.SubprocessError, msgspec.MsgspecError) as e:
            if not self._is_closed:
                logger.warning(
                    "%s could not be compiled (%s) and goes on as it is",
                    native.type_name,
                    type(e).__name__,
                )

    def _folder_of(self, model: Classifier) -> Path:
        """A new folder for a model's forms; one may be opened long after, so it goes when the model does."""
        with self._lock:
            if self._is_closed:
                raise OSError("the server stops")
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="fin_pyfunc-"))  # 0700
            folder = tempfile.mkdtemp(dir=self._folder)
        weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
        return Path(folder)

    def _outcome(self, folder: Path, copied: Path, model: Classifier, path: Path, kind: str) -> Outcome:
        named = cast('Literal["mlflow", "pickle", "joblib", "skops"]', kind)
        assert model.features is not None  # noqa: S101 - for the type checker; `later` has looked
        (folder / JOB).write_bytes(msgspec.json.encode(Job(path=str(path), kind=named, features=model.features)))
        code = self._run(folder) if self._hosts is None else self._hosts.compile(folder, LIMIT).code
        if code:
            raise subprocess.CalledProcessError(code, "fin_pyfunc.compiling")
        # code of the model may have run there, and may still: what it wrote is copied before it is looked at
        written = copy(folder, copied, MAX_BYTES, roots=())
        outcome = msgspec.json.decode(artifact.read_bounded(written.path / OUTCOME), type=Outcome)
        if any(name not in written.files for form in outcome.forms for name in form.files):
            raise ArtifactError("a compiled form names a file that was not written")
        if outcome.features is not None and without_codes(outcome.features) != without_codes(model.features):
            raise ArtifactError("compiled forms are of other features than the model's")
        return outcome

    def _run(self, folder: Path) -> int:
        """Do the job in a process that is started from here; its exit code."""
        with self._lock:
            if self._is_closed:
                raise OSError("the server stops")
            # its output is of no use to an operator, and may quote the model
            self._process = process = subprocess.Popen(
                [sys.executable, "-m", "fin_pyfunc.compiling", str(folder)],
                preexec_fn=_be_nice,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        try:
            return process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            with self._lock:
                self._process = None


def _be_nice() -> None:
    with contextlib.suppress(OSError):
        os.nice(10)


def _measured(backend: CompiledBackend, n_features: int) -> dict[int, float]:
    """Seconds by rows of a backend that was not there when the model was compiled, on rows that are all numbers."""
    rows = np.random.default_rng(0).standard_normal((ROW_COUNTS[-1], n_features))
    return measure(lambda n_rows: backend.run(rows[:n_rows]), MEASURED)
