"""A tree ensemble in treelite's form, through its own reference implementation (GTIL)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.decision import Label, Probabilities, Thresholds
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.form import Form


class TreeliteBackend(CompiledBackend):
    """Scores with a treelite model.

    Parameters
    ----------
    folder : Path
        Where the form's file is.
    form, classes, thresholds, estimator, wary
        As in `CompiledBackend`.

    Raises
    ------
    ArtifactError
        treelite cannot read the file.
    """

    name = "treelite"

    def __init__(
        self,
        folder: Path,
        form: Form,
        classes: Sequence[Label],
        thresholds: Thresholds,
        estimator: Backend,
        wary: bool = False,
    ) -> None:
        super().__init__(form, classes, thresholds, estimator, wary)
        import treelite

        self._gtil = treelite.gtil
        try:
            self._model = treelite.Model.deserialize_bytes((folder / form.file).read_bytes())
        except treelite.TreeliteError as e:
            raise ArtifactError("The model's treelite file could not be read: log the model again.") from e

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The trees' scores; see `CompiledBackend.run`."""
        X = matrix.astype(np.float32) if self.form.casts else matrix
        scores = np.asarray(self._gtil.predict(self._model, X, nthread=1), dtype=np.float64).reshape(len(X), -1)
        # a binary ensemble answers the probability of its second class alone
        return np.column_stack([1 - scores, scores]) if scores.shape[1] == 1 else scores
