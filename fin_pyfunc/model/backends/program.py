"""A whole pipeline as a program of our own: see `fin_pyfunc.model.program`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.backends.compiled import CHUNK_ROWS, CompiledBackend
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.program.program import read

#: Most numbers that the steps of a program hold at once: 256 MiB.
MAX_VALUES = 1 << 25


class ProgramBackend(CompiledBackend):
    """Scores with the steps of a form "program"; made as any `CompiledBackend`.

    Raises
    ------
    ArtifactError
        The file cannot be read, or its numbers do not fit together.
    """

    name = "program"
    withholds = True

    def open(self, folder: Path, form: Form) -> None:
        """Read the form's file; see `CompiledBackend.open`."""
        self._program = read((folder / form.file).read_bytes(), len(self._classes))
        self.expect_features(self._program.n_features)
        self.chunk_rows = max(1, min(CHUNK_ROWS, MAX_VALUES // sum(self._program.check())))

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The program's answer; see `CompiledBackend.run`."""
        return self._program(matrix)
