"""A tree ensemble in treelite's form, through its own reference implementation (GTIL)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fin_pyfunc.model.backends.compiled import CompiledBackend
from fin_pyfunc.model.decision import Probabilities
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.soundness.treelite import check_treelite


class TreeliteBackend(CompiledBackend):
    """Scores with a treelite model; made as any `CompiledBackend`."""

    name = "treelite"

    def open(self, folder: Path, form: Form) -> None:
        """Read the form's files; see `CompiledBackend.open`."""
        import treelite

        self._gtil = treelite.gtil
        content = (folder / form.file).read_bytes()
        self._n_features = check_treelite(content, len(self._classes)).n_features
        try:
            self._model = treelite.Model.deserialize_bytes(content)
        except (treelite.TreeliteError, UnicodeDecodeError) as e:
            raise ArtifactError("The model's treelite file could not be read: log the model again.") from e

    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The trees' scores; see `CompiledBackend.run`."""
        if matrix.shape[1] != self._n_features:
            raise ValueError("rows of another width than the trees were made for")
        X = matrix.astype(np.float32) if self.form.casts else matrix
        scores = np.asarray(self._gtil.predict(self._model, X, nthread=1), dtype=np.float64).reshape(len(X), -1)
        # a binary ensemble answers the probability of its second class alone
        return np.column_stack([1 - scores, scores]) if scores.shape[1] == 1 else scores
