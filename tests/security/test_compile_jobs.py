"""What a compile job wrote may be a model's own word: it is copied, bounded, and printed as plain text."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import cast

import joblib
import msgspec
import pytest

from fin_pyfunc.compiling import job
from fin_pyfunc.compiling.job import OUTCOME, Outcome
from fin_pyfunc.host.messages import Finished
from fin_pyfunc.serving import compiler as module
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.foreign import from_estimator
from fin_pyfunc.serving.hosts.hosts import Hosts
from tests.models import OF_FORESTS, small_forest

ESCAPES = "\x1b[2J\nINFO all is well"


class Confined:
    """Stands where the process is that a model's code runs in: does the job, and then something else."""

    def __init__(self, then: Callable[[Path], None]) -> None:
        self._then = then

    def compile(self, folder: Path, seconds: float) -> Finished:
        job.run(folder)
        self._then(folder)
        return Finished(code=0, is_late=False)


def rewrite(folder: Path, **changed: object) -> None:
    outcome = msgspec.json.decode((folder / OUTCOME).read_bytes(), type=Outcome)
    (folder / OUTCOME).write_bytes(msgspec.json.encode(msgspec.structs.replace(outcome, **changed)))


def backends_after(then: Callable[[Path], None], folder: Path) -> list[str]:
    """What a model that compiles so answers with."""
    joblib.dump(small_forest().estimator, folder / "estimator.joblib")
    model = from_estimator(small_forest().estimator, None, None)
    compiler = Compiler(cast("Hosts", Confined(then)))
    thread = compiler.later(model, folder / "estimator.joblib", "joblib")
    assert thread is not None
    thread.join(60)
    names = [backend.name for backend in model.dispatch.backends]
    compiler.close()
    return names


def a_link(folder: Path) -> None:
    file = next(folder.glob("*.treelite"))
    kept = file.rename(folder.parent.parent / "elsewhere")
    file.symlink_to(kept)


def a_name_outside(folder: Path) -> None:
    outcome = msgspec.json.decode((folder / OUTCOME).read_bytes(), type=Outcome)
    named = [msgspec.structs.replace(form, file="../../../etc/hostname") for form in outcome.forms]
    rewrite(folder, forms=named)


def too_much(folder: Path) -> None:
    with (folder / "more").open("wb") as file:
        file.truncate(2 << 20)


def test_an_honest_job_is_taken(tmp_path: Path) -> None:
    assert backends_after(lambda _: None, tmp_path) == [OF_FORESTS, "native"]


@pytest.mark.parametrize("then", [a_link, a_name_outside, too_much])
def test_what_is_not_the_jobs_own_small_files_is_not_opened(
    then: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 1 << 20)
    assert backends_after(then, tmp_path) == ["native"]
    assert "could not be compiled" in caplog.text


def test_a_reason_from_the_job_cannot_forge_a_line_of_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "fin_pyfunc.server")
    backends_after(lambda folder: rewrite(folder, forms=[], dropped={"onnx": ESCAPES}), tmp_path)
    said = [record.getMessage() for record in caplog.records if "compiled" in record.getMessage()]
    assert len(said) == 1
    assert said[0].isprintable()
