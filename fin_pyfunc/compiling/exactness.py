"""Whether a compiled form answers as its estimator does, and how close to call a row must be to ask again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.rows import challenge, valid
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.errors import ScoringError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.form import LEAST_BAND, Cut, band_of

#: Rows scored one at a time, to be compared with the same rows in a batch.
SINGLE_ROWS = 20
#: The part of the sample that a form may leave to the estimator; one that asks more often saves nothing.
MAX_ASKED = 0.01
#: How often the estimator is called to find the rows that it refuses.
MAX_CALLS = 60

Run = Callable[[Array], Array]


@dataclass(frozen=True)
class Reference:
    """The estimator's own answers on the rows that forms are held to.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features), float64
    n_plain : int
        The first so many rows are the sample's own.
    index : ndarray of shape (n_rows,), intp
        The class that the estimator predicts.
    scores : ndarray of shape (n_rows, k), float64
    output : {"probabilities", "decision"}
    native : NativeBackend
    """

    rows: Array
    n_plain: int
    index: Array
    scores: Array
    output: Literal["probabilities", "decision"]
    native: NativeBackend
    spec: FeatureSpec

    @classmethod
    def of(cls, estimator: Any, spec: FeatureSpec, classes: Sequence[Label], sample: Array | None) -> Reference:
        """Ask the estimator, whose `n_jobs` the caller has set to 1.

        Raises
        ------
        NotCompilable
            It cannot be asked, or has neither probabilities nor decision values.
        """
        native = NativeBackend(estimator, spec, classes)
        plain, made = challenge(estimator, spec, sample)
        try:
            answers = [(plain, native.score(plain))]
        except ScoringError as e:
            raise NotCompilable("the estimator refuses rows that it could be compared on") from e
        answers += _accepted(native, made)
        return cls._of(answers, len(plain), native, spec, len(classes))

    @classmethod
    def _of(
        cls, answers: list[tuple[Array, Scores]], n_plain: int, native: NativeBackend, spec: FeatureSpec, k: int
    ) -> Reference:
        rows = np.vstack([asked for asked, _ in answers])
        index = np.concatenate([own.index for _, own in answers])
        if answers[0][1].probabilities is None:
            return cls(rows, n_plain, index, _decisions(native, spec, rows, index, k), "decision", native, spec)
        p = np.vstack([own.probabilities for _, own in answers if own.probabilities is not None])
        return cls(rows, n_plain, index, p, "probabilities", native, spec)

    def with_rows(self, more: Array) -> Reference:
        """The same with rows that a form's own constants were made to.

        Raises
        ------
        NotCompilable
            The estimator refuses one of them, which the form would answer.
        """
        if not len(more):
            return self
        more = valid(more, self.spec)
        answers = _accepted(self.native, more)
        if sum(len(asked) for asked, _ in answers) < len(more):
            raise NotCompilable("the estimator refuses rows that its form would answer, such as an unknown category")
        further = self._of(answers, 0, self.native, self.spec, self.scores.shape[1])
        return replace(
            self, rows=np.vstack([self.rows, further.rows]), index=np.concatenate([self.index, further.index]),
            scores=np.vstack([self.scores, further.scores]),
        )  # fmt: skip

    def judge(
        self, run: Run, batch: Run | None, *, exact: bool, tolerance: float, cut: Cut | None = None,
        withholds: bool = False,
    ) -> tuple[float, float]:  # fmt: skip
        """Compare one form.

        Parameters
        ----------
        run : callable
            Matrix (n, n_features) to scores (n, k).
        batch : callable or None
            The same laid out for many rows.
        exact : bool
            Whether the form is equal to the last bit by how it is made.
        tolerance : float
            How far a score may be off; a decision value relative to its size, where that is more than 1.
        cut : Cut or None, default None
            As in `Form`.
        withholds : bool, default False
            Whether the form answers NaN for a row that is to be asked of the estimator.

        Returns
        -------
        error, band : float
            For `Form`.

        Raises
        ------
        NotCompilable
            It is not good enough; the clause says how.
        """
        try:
            scores = run(self.rows)
            others = [] if batch is None else [batch(self.rows)]
            singles = np.vstack([run(self.rows[i : i + 1]) for i in range(min(SINGLE_ROWS, len(self.rows)))])
        except Exception as e:  # its exceptions share no base of their own
            raise NotCompilable(f"it cannot be run ({type(e).__name__})") from e
        if scores.shape != self.scores.shape or any(other.shape != scores.shape for other in others):
            raise NotCompilable("it answers another number of scores than the estimator")
        known = np.ones(len(scores), dtype=bool)
        if withholds:
            known &= ~np.isnan(scores).any(axis=1)
        errors = [_error(self.scores[known], found[known], self.output) for found in (scores, *others)]
        error = max(errors)
        if not error <= tolerance:  # NaN is no error that could be tolerated
            raise NotCompilable(f"its scores are off by {error:.1g}")
        band = 0.0 if exact and error == 0 else band_of(error)
        if tolerance == 0 and band:
            raise NotCompilable("it need not be equal to the last bit on rows that were not compared")
        # a form's own answers may differ by the last bit with the number of rows: what the band is for
        alone = known[: len(singles)]
        if withholds:
            alone &= ~np.isnan(singles).any(axis=1)
        pairs = [(scores[: len(singles)][alone], singles[alone]), *((scores, other) for other in others)]
        apart = max(_error(one, other, self.output) for one, other in pairs)
        if not apart <= (0.0 if band == 0 else max(LEAST_BAND, band / 10)):
            raise NotCompilable(f"the same row's scores differ by {apart:.1g} alone and among others")
        for found in (scores, *others):
            self._judge_classes(found, band, cut)
        return error, band

    def _judge_classes(self, scores: Array, band: float, cut: Cut | None) -> None:
        sure: Array = np.asarray(~np.isnan(scores).any(axis=1))
        index = scores.argmax(axis=1)
        if cut is not None:
            index = cut.index(scores)
            sure = np.abs(scores[:, cut.column] - cut.least) > band  # NaN is no distance
        elif scores.shape[1] > 1 and band:
            ranked = np.sort(scores, axis=1)
            sure = sure & (ranked[:, -1] - ranked[:, -2] > band)
        flipped = int((index != self.index)[sure].sum())
        if flipped:
            raise NotCompilable(f"it flips the class of {flipped:,} of {len(scores):,} rows")
        asked = int((~sure[: self.n_plain]).sum())
        if asked > MAX_ASKED * self.n_plain:
            raise NotCompilable(f"{asked:,} of {self.n_plain:,} rows of the sample are too close to call for it")


def _error(expected: Array, found: Array, output: str) -> float:
    scale = np.maximum(1.0, np.abs(expected)) if output == "decision" else 1.0
    with np.errstate(invalid="ignore"):
        apart = np.where(expected == found, 0.0, np.abs(found - expected) / scale)
    return float(apart.max()) if apart.size else 0.0


def _decisions(native: NativeBackend, spec: FeatureSpec, rows: Array, index: Array, n_classes: int) -> Array:
    """One decision value a class; a 1 for the predicted class where the estimator has none."""
    estimator = native.estimator
    if not callable(getattr(estimator, "decision_function", None)):
        return np.eye(n_classes)[index]
    frame = spec.restore(rows)
    named = hasattr(estimator, "feature_names_in_") or not hasattr(estimator, "n_features_in_")
    try:
        d = np.asarray(estimator.decision_function(frame if named else frame.to_numpy()), dtype=np.float64)
    except Exception as e:
        raise NotCompilable(f"its decision_function raised {type(e).__name__}") from e
    d = np.column_stack([-d, d]) if d.ndim == 1 else d
    if d.shape != (len(rows), n_classes):
        raise NotCompilable("its decision values are not one a class")
    return d


def _accepted(native: NativeBackend, made: Array) -> list[tuple[Array, Scores]]:
    """The made rows that the estimator answers, and its answers: what it refuses (overflow) is for it alone to say."""
    answers, pending, calls = [], [made], 0
    while pending and calls < MAX_CALLS:
        block, calls = pending.pop(0), calls + 1
        try:
            answers.append((block, native.score(block)))
        except ScoringError:
            pending += np.array_split(block, 2) if len(block) > 1 else []
    return answers
