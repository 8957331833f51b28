"""Compiling in a child process when logging: a converter that crashes or hangs costs its form, and nothing else."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import msgspec
import numpy as np

from fin_pyfunc.compiling.forms import Compiled
from fin_pyfunc.compiling.job import JOB, OUTCOME, Job, Outcome
from fin_pyfunc.compiling.rows import thinned
from fin_pyfunc.model.decision import Label
from fin_pyfunc.model.estimators import Serialization
from fin_pyfunc.model.features import FeatureSpec

logger = logging.getLogger("fin_pyfunc")

#: Time limit of a child.
SECONDS = 120.0
#: Runs a job in a process that was not forked; it finds modules as this process does.
_BOOT = (
    "import sys; sys.path[:] = sys.argv[2:]; from pathlib import Path; from fin_pyfunc.compiling.job import run; "
    "run(Path(sys.argv[1]))"
)


class Compilation:
    """An estimator that is being compiled in a child, which goes on while this process does something else.

    Leaving it as a context ends the child. Other parameters as in `compile_estimator`.

    Parameters
    ----------
    file : Path
        The estimator as `estimators.dump` wrote it.
    serialization : {"skops", "cloudpickle"}
    """

    def __init__(
        self,
        file: Path,
        serialization: Serialization,
        spec: FeatureSpec,
        classes: Sequence[Label],
        sample: np.ndarray[Any, Any] | None,
        tolerance: float,
        backends: Sequence[str],
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fin_pyfunc-", ignore_cleanup_errors=True)
        self._file, self._made = file, Compiled()
        self._left = tuple(backends)
        rows = None
        if sample is not None:
            rows = str(Path(self._folder.name, "sample.npy"))
            np.save(rows, thinned(sample), allow_pickle=False)
        kind: Any = "skops" if serialization == "skops" else "pickle"
        self._job = Job(
            path=str(file), kind=kind, features=spec, classes=list(classes), sample=rows, tolerance=tolerance,
            backends=self._left,
        )  # fmt: skip
        self._child: _Child = self._begun()

    def __enter__(self) -> Compilation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._child.close()
        self._folder.cleanup()

    def result(self) -> Compiled:
        """Wait until it is done; the forms' files are then beside the estimator's.

        A form whose making ends the child, or takes longer than `SECONDS`, is dropped with the reason, and another
        child makes those that were not begun.
        """
        while self._left:
            why, outcome = self._child.result()
            for name in [name for form in outcome.forms for name in form.files]:
                (self._child.folder / name).replace(self._file.with_name(name))
            self._made.forms.extend(outcome.forms)
            self._made.dropped.update(outcome.dropped)
            self._made.native_seconds.update(outcome.native_seconds)
            done = {form.backend for form in outcome.forms} | outcome.dropped.keys()
            if why is not None:
                # where no form was begun it was the estimator itself
                failed = self._left if outcome.making is None else (outcome.making,)
                self._made.dropped.update({name: why for name in failed if name not in done})
                done |= set(failed)
            if any(form.backend == "trees" for form in outcome.forms):
                done.add("onnx")  # as `compile_estimator` leaves it out
            self._left = () if why is None else tuple(name for name in self._left if name not in done)
            if self._left:
                self._job = msgspec.structs.replace(self._job, backends=self._left)
                self._child = self._begun()
        self._made.forms.sort(key=lambda form: form.seconds[1])
        return self._made

    def _begun(self) -> _Child:
        folder = Path(tempfile.mkdtemp(dir=self._folder.name))
        forks = _known()
        job = msgspec.structs.replace(self._job, environ=forks.changes() if forks is not None else {})
        (folder / JOB).write_bytes(msgspec.json.encode(job))
        if forks is not None:
            with suppress(OSError):
                return _Forked(folder, forks)
        return _Started(folder)


class _Child(Protocol):
    """A process that does the job in a folder."""

    folder: Path

    def result(self) -> tuple[str | None, Outcome]:
        """Wait for its end; what ended it early, as a clause, and what it had done until then."""

    def close(self) -> None:
        """End it, if it has not."""


class _Forked:
    """A child of the fork server."""

    def __init__(self, folder: Path, forks: _Forks) -> None:
        from fin_pyfunc.host.messages import Run, send

        self.folder = folder
        self._connection = forks.client.connect()
        path = tuple(os.path.abspath(entry) for entry in sys.path)  # noqa: PTH100 - "" is the working folder
        run = Run(
            target="fin_pyfunc.compiling.job:run", folder=str(folder), seconds=SECONDS, is_confined=False, path=path,
            cwd=str(Path.cwd()),
        )  # fmt: skip
        send(self._connection, run)

    def result(self) -> tuple[str | None, Outcome]:
        from msgspec.msgpack import Decoder

        from fin_pyfunc.host.messages import Finished, receive

        with self._connection:
            received = None
            with suppress(OSError):
                received = receive(self._connection, Decoder(Finished))
        if received is None:
            return "the process that makes it was ended", _outcome(self.folder)
        finished, _ = received
        return _clause(finished.code, finished.is_late), _outcome(self.folder)

    def close(self) -> None:
        with suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()


class _Started:
    """A process of its own, where none can be forked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-W", "ignore", "-c", _BOOT, str(folder), *sys.path]
        nothing = subprocess.DEVNULL
        self._process = subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing)

    def result(self) -> tuple[str | None, Outcome]:
        try:
            code, is_late = self._process.wait(SECONDS), False
        except subprocess.TimeoutExpired:
            code, is_late = 0, True
        self.close()
        return _clause(code, is_late), _outcome(self.folder)

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class _Forks:
    """The fork server of this process, which lives as long as it does."""

    def __init__(self) -> None:
        from fin_pyfunc.host.fork_client import ForkClient
        from fin_pyfunc.host.fork_server import CONVERTERS, PRELOAD
        from fin_pyfunc.host.lifeline import Lifeline

        self._environ = dict(os.environ)
        # neither MLflow nor what needs it: a job reads an estimator's file
        preload = [name for name in PRELOAD if not name.startswith(("mlflow", "fin_pyfunc"))]
        self.client = ForkClient(Lifeline(), self._environ, (*preload, *CONVERTERS))

    def changes(self) -> dict[str, str | None]:
        """What has changed in this process's environment since its children's was copied from it."""
        changed = dict(self._environ.items() ^ os.environ.items())
        return {name: os.environ.get(name) for name in changed}


_forks: _Forks | None = None
_starting = threading.Lock()


def start() -> None:
    """Start the fork server if there is none, without waiting until it is ready."""
    forks = _known()
    if forks is not None:
        with suppress(OSError):  # then each job gets a process of its own
            forks.client.start()


def _known() -> _Forks | None:
    """The fork server's client; None where processes cannot be forked so."""
    global _forks
    if sys.platform != "linux":
        return None
    with _starting:
        if _forks is None:
            _forks = _Forks()
        return _forks


def _clause(code: int, is_late: bool) -> str | None:
    if is_late:
        return f"making it took longer than {SECONDS:.0f} s"
    if code < 0:
        return f"making it ended its process ({signal.Signals(-code).name})"
    return f"making it ended its process (exit code {code})" if code else None


def _outcome(folder: Path) -> Outcome:
    try:
        return msgspec.json.decode((folder / OUTCOME).read_bytes(), type=Outcome)
    except FileNotFoundError:
        return Outcome(forms=[], dropped={}, native_seconds={})
