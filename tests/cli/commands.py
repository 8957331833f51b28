"""The command line in this process, and what its tests share: what a command answers, and rows with an identifier."""

from __future__ import annotations

import contextlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import pandas as pd

from fin_pyfunc_cli.main import main


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Somebody else's pyfunc: labels, no word of ours."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[str]:
        return ["up" if value > 0 else "down" for value in model_input["return_1"]]


def run(*args: object, err: io.StringIO | None = None) -> Answer:
    """Call main() as the console script does, and keep what it prints."""
    out, err, code = io.StringIO(), err or io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(arg) for arg in args])
        except SystemExit as e:
            code = int(e.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())


def refused(*args: object, code: int = 1) -> str:
    """The one line of a command that fails."""
    answer = run(*args)
    assert (answer.code, answer.out) == (code, ""), answer
    assert re.fullmatch(r"Error: [^\n]+\n", answer.err), answer.err
    return answer.err


def in_a_process(code: str, cwd: Path, *python: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *python, "-c", code], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def with_ids(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(bar_id=[f"{i:06}" for i in range(len(frame))])
