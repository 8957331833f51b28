"""Check cases side by side, each in a process forked from this one: a crash or a hang is a result like others."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tests.zoo.case import Case, Outcome

#: Time limit of a case, longer than that of compiling when logging.
SECONDS = 240.0
_FORK = multiprocessing.get_context("fork")


@dataclass
class _Running:
    """A case under way."""

    case: Case
    process: Any
    words: Connection
    until: float
    doing: str = "it was begun"
    outcome: Outcome | None = None

    def listen(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self.words.poll():
                word = self.words.recv()
                if isinstance(word, Outcome):
                    self.outcome = word
                else:
                    self.doing = word


def outcomes(cases: Sequence[Case], n_processes: int) -> Iterator[Outcome]:
    """Check cases, `n_processes` at a time; their outcomes in the order in which they end."""
    pending, running = list(reversed(cases)), list[_Running]()
    try:
        while pending or running:
            while pending and len(running) < n_processes:
                running.append(_begun(pending.pop()))
            wait([each.process.sentinel for each in running] + [each.words for each in running], timeout=1)
            for each in list(running):
                each.listen()
                if each.process.is_alive() and each.outcome is None and time.monotonic() < each.until:
                    continue
                running.remove(each)
                yield _ended(each)
    finally:
        for each in running:
            each.process.kill()


def _begun(case: Case) -> _Running:
    words, theirs = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_check, args=(case, theirs), daemon=True)
    process.start()
    theirs.close()
    return _Running(case, process, words, time.monotonic() + SECONDS)


def _ended(run: _Running) -> Outcome:
    is_late = run.process.is_alive() and run.outcome is None
    if run.outcome is None and not is_late:
        run.process.join()
        run.listen()
    if is_late:
        run.process.kill()
    run.process.join()
    run.words.close()
    if run.outcome is not None:
        return run.outcome
    code = run.process.exitcode or 0
    why = f"took longer than {SECONDS:.0f} s" if is_late else f"exit code {code}"
    if not is_late and code < 0:
        why = signal.Signals(-code).name
    case = run.case
    return Outcome(group=case.group, name=case.name, data=case.data, verdict="crashed", says=f"{why}, when {run.doing}")


def _check(case: Case, words: Connection) -> None:
    from tests.zoo.check import check

    faulthandler.disable()  # pytest's would tell of a crash that is meant
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(silence, stream)
    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        os.chdir(folder)  # some libraries leave files where they run
        try:
            outcome = check(case, Path(folder), words.send)
        except BaseException as e:
            at = traceback.extract_tb(e.__traceback__)[-1]
            says = f"{type(e).__name__}: {str(e).strip().partition(chr(10))[0]} ({Path(at.filename).name}:{at.lineno})"
            outcome = Outcome(group=case.group, name=case.name, data=case.data, verdict="crashed", says=says)
    words.send(outcome)
    words.close()
    os._exit(0)
