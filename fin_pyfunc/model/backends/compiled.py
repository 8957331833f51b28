"""What every compiled form has in common: it answers where it may be trusted, and asks the estimator where not."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.following import highest_two
from fin_pyfunc.model.decision import Label, Probabilities, Scores, Thresholds, label_names
from fin_pyfunc.model.errors import DeviceError, ScoringError
from fin_pyfunc.model.features import FeatureSpec, Table
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.soundness.trees import forged

#: Rows scored in one call, so that a large table takes no more memory than its answers.
CHUNK_ROWS = 16_384
_GREATEST = float(np.finfo(np.float32).max)
#: Beyond this the square of a number is none that float32 holds: steps of a Pipeline, and forests behind them, may
#: refuse what they make of it, where a compiled form goes on with infinity.
_FAR = float(np.sqrt(np.finfo(np.float32).max))


class CompiledBackend(ABC):
    """Scores with a compiled form of an estimator.

    A form that is not equal to the estimator to the last bit has a band: a row whose class, or whose word of
    confidence, hangs on less than that is asked of the estimator itself, so that no row ever gets another answer here.
    So is a row with a number beyond ±1.8e19, which the estimator may refuse.

    Parameters
    ----------
    folder : Path
        Where the form's files are.
    form : Form
    classes : sequence of Label, length k
        Labels of the scores' columns.
    thresholds : Thresholds
        Where a word of confidence changes.
    estimator : Backend
        The estimator itself; it need not be loaded before it is asked.
    wary : bool, default False
        Ask the estimator of every row with a null or a number beyond float32's range, too: for a foreign model, of
        which nobody has said whether it takes them.
    features : FeatureSpec, optional
        Codes of text and categories, where the form computes with them.
    """

    name: str
    device: Literal["cpu", "gpu"] = "cpu"
    #: whether scores are NaN where the estimator is to be asked
    withholds = False
    #: rows of one call of `run`
    chunk_rows = CHUNK_ROWS

    def __init__(
        self,
        folder: Path,
        form: Form,
        classes: Sequence[Label],
        thresholds: Thresholds,
        estimator: Backend,
        wary: bool = False,
        features: FeatureSpec | None = None,
    ) -> None:
        self.form, self._classes, self._estimator = form, list(classes), estimator
        self._names = label_names(self._classes)
        self._band, self._wary, self._cut = form.band, wary, form.cut
        self._features = features if features is not None and features.is_coded else None
        self._n_features = None if features is None else len(features.features)
        self._has_proba = form.output == "probabilities"
        self._cuts = (thresholds.medium, thresholds.high) if self._has_proba else ()
        self.open(folder, form)

    def expect_features(self, n_features: int) -> None:
        """Raise ArtifactError where a file takes another number of features than the model has."""
        if self._n_features not in (None, n_features):
            raise forged(f"a form of {n_features} features for a model of {self._n_features}")

    @abstractmethod
    def open(self, folder: Path, form: Form) -> None:
        """Read the form's files; raises ArtifactError where they cannot be read."""

    @abstractmethod
    def run(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        """The form's own scores, of shape (n_rows, k), of a matrix (n_rows, n_features)."""

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        if (matrix := self._matrix(table)) is None:
            return self._estimator.score(table)
        scores, unsure = self._run_and_look(matrix)
        return self._answers(scores) if unsure is None else self._asking(table, unsure, scores)

    def score_alone(self, table: Table) -> Scores | None:
        """As `score`, without ever asking the estimator; None where it would have to be asked."""
        if (matrix := self._matrix(table)) is None:
            return None
        scores, unsure = self._run_and_look(matrix)
        return self._answers(scores) if unsure is None else None

    def _run_and_look(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> tuple[Probabilities, Any]:
        """The form's own scores, and which rows' answers it cannot vouch for (None: it can for all)."""
        try:
            scores = self.run(matrix) if len(matrix) <= self.chunk_rows else self._run_in_chunks(matrix)
        except DeviceError:
            raise
        except Exception as e:
            raise ScoringError(f"the {self.name} form of the estimator raised {type(e).__name__}") from e
        if not scores.size:
            return scores, None
        if self._wary and not (ordinary := np.abs(matrix) <= _GREATEST).all():  # NaN is none
            known = self._unsure(scores)
            return scores, ~ordinary.all(axis=1) | (False if known is None else known)
        if not self._band and not self.withholds:
            return scores, None
        is_one = len(scores) == 1 and self._cut is None
        unsure = self._unsure_row(scores) if is_one else self._unsure(scores)
        if (far := np.abs(matrix) > _FAR).any():
            return scores, far.any(axis=1) | (False if unsure is None or is_one else unsure)
        return scores, unsure

    def _answers(self, scores: Probabilities) -> Scores:
        index = scores.argmax(axis=1) if self._cut is None else self._cut.index(scores)
        if not self._has_proba:
            return Scores(classes=self._classes, index=index, probabilities=None)
        # an estimator's own sums may leave 0 to 1 by a rounding of the last bit, and so may a form with a band
        known = scores.clip(0, 1) if self._band or self.withholds else scores
        return Scores(classes=self._classes, index=index, probabilities=known, names=self._names)

    def _run_in_chunks(self, matrix: np.ndarray[Any, np.dtype[np.float64]]) -> Probabilities:
        n = self.chunk_rows
        return np.concatenate([self.run(matrix[i : i + n]) for i in range(0, len(matrix), n)])

    def _unsure_row(self, scores: Probabilities) -> slice | None:
        """As `_unsure` for one row, without NumPy's overhead."""
        row = scores[0].tolist()
        if not self._band:
            return None if all(value == value for value in row) else slice(0, 1)
        best, rest = max(row), sorted(row)[:-1]
        sure = all(value == value for value in row)  # NaN is no distance from anything
        sure = sure and (not rest or best - rest[-1] > self._band)
        sure = sure and all(abs(best - cut) > self._band for cut in self._cuts)
        return None if sure else slice(0, 1)

    def _unsure(self, scores: Probabilities) -> np.ndarray[Any, np.dtype[np.bool_]] | None:
        """Rows whose answer hangs on less than the band; None where there are none."""
        best, second = highest_two(scores)
        if not self._band:
            return None if (known := best == best).all() else ~known
        sure = np.isfinite(best)  # the maximum is NaN where any score is
        if self._cut is None:
            sure &= best - second > self._band
        else:
            sure &= abs(scores[:, self._cut.column] - self._cut.least) > self._band
            best = scores[np.arange(len(scores)), self._cut.index(scores)]
        for cut in self._cuts:
            sure &= abs(best - cut) > self._band
        return None if sure.all() else ~sure

    def _asking(self, table: Any, unsure: Any, scores: Probabilities) -> Scores:
        """The form's answers, with the estimator's own in place of those that it cannot vouch for."""
        own = self._estimator.score(table[unsure])
        answers = self._answers(np.nan_to_num(scores))
        answers.index[unsure] = own.index
        if answers.probabilities is not None:
            answers.probabilities[unsure] = own.probabilities
        return answers

    def _matrix(self, table: Table) -> np.ndarray[Any, np.dtype[np.float64]] | None:
        """A table as numbers, a text without a code as that; None where it holds something that is no number, of which
        only a foreign model can say what it is.
        """
        if isinstance(table, np.ndarray):
            return table
        try:
            return table.to_numpy(dtype=np.float64) if self._features is None else self._features.encode(table)
        except (ValueError, TypeError):
            return None
