"""What several classifiers answer, put together."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from fin_pyfunc.model.backends.following import highest_two
from fin_pyfunc.model.program.node import MAX_WIDTH, Array, Node, expect


class Average(Node, tag="average"):
    """A weighted sum of the inputs, divided by a number (numpy.average, as VotingClassifier calls it).

    Parameters
    ----------
    weights : ndarray of shape (n_inputs,) or (0,), float64
        Empty where all weigh the same.
    divisor : float
    """

    weights: np.ndarray
    divisor: float

    def width(self, *widths: int) -> int:
        expect(len(set(widths)) == 1 and self.weights.dtype == np.float64 and self.weights.ndim == 1, "average")
        expect(len(self.weights) in (0, len(widths)) and self.divisor != 0, "average")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        if not len(self.weights):
            total = inputs[0].copy()
            for more in inputs[1:]:
                total += more
        else:
            total = inputs[0] * self.weights[0]
            for more, weight in zip(inputs[1:], self.weights[1:], strict=True):
                total += more * weight
        total /= self.divisor
        return total


class Spread(Node, tag="spread"):
    """Columns at places among others that are 0 (the probabilities of a member that saw fewer classes).

    Parameters
    ----------
    columns : ndarray of shape (n,), int64
        Where each column of the input goes, no two to one place.
    n_columns : int
    """

    columns: np.ndarray
    n_columns: int

    def width(self, *widths: int) -> int:
        expect(self.columns.dtype == np.int64 and widths == self.columns.shape, "spread")
        expect(0 < self.n_columns <= MAX_WIDTH and len(np.unique(self.columns)) == len(self.columns), "spread")
        expect(bool(((self.columns >= 0) & (self.columns < self.n_columns)).all()), "spread")
        return self.n_columns

    def __call__(self, *inputs: Array) -> Array:
        made = np.zeros((len(inputs[0]), self.n_columns))
        made[:, self.columns] = inputs[0]
        return made


class Choose(Node, tag="choose"):
    """Numbers that stand for the class of the highest score.

    Parameters
    ----------
    table : ndarray of shape (k, n), float64
        A row for each class: its votes, or its label.
    margin : float
        A row is one that cannot be vouched for where the two highest scores are no further apart than this, relative
        to the highest; 0 for scores that are equal to the last bit.
    """

    table: np.ndarray
    margin: float

    def width(self, *widths: int) -> int:
        expect(self.table.dtype == np.float64 and self.table.ndim == 2 and self.table.shape[:1] == widths, "choose")
        expect(self.table.size > 0 and 0 <= self.margin < 1, "choose")
        return int(self.table.shape[1])

    def __call__(self, *inputs: Array) -> Array:
        scores = inputs[0]
        made: Array = self.table[scores.argmax(axis=1)]
        best, second = highest_two(scores)
        apart = best - second
        is_sure = apart > self.margin * np.maximum(1.0, np.abs(best)) if self.margin else apart >= 0  # NaN is neither
        if not is_sure.all():
            made[~is_sure] = np.nan
        return made


class Pairs(Node, tag="pairs"):
    """Votes of classifiers of every two classes, ties broken by how sure these are (OneVsOneClassifier).

    The inputs are how sure each of the k (k - 1) / 2 classifiers is of the second of its classes, and which it
    predicts: 0 for the first, 1 for the second; by default the second one where the first input is above 0.

    Parameters
    ----------
    n_classes : int
        k.
    margin : float, default 0.0
        A row is one that cannot be vouched for where the first input is this near 0, if there is no second.
    refuses_ties : bool, default False
        Whether it is such a one, too, where two classes have the most votes.
    """

    rounds: ClassVar[bool] = True

    n_classes: int
    margin: float = 0.0
    refuses_ties: bool = False

    def width(self, *widths: int) -> int:
        expect(1 < self.n_classes <= 1000 and 0 <= self.margin < 1, "pairs")
        n_pairs = self.n_classes * (self.n_classes - 1) // 2
        expect(widths in ((n_pairs,), (n_pairs, n_pairs)), "pairs")
        return self.n_classes

    def __call__(self, *inputs: Array) -> Array:
        # sklearn/utils/multiclass.py, _ovr_decision_function
        sure = inputs[0]
        predicted = inputs[1] if len(inputs) > 1 else self._predicted(sure)
        votes = np.zeros((len(sure), self.n_classes))
        total, at = votes.copy(), 0
        for i in range(self.n_classes):
            for j in range(i + 1, self.n_classes):
                total[:, i] -= sure[:, at]
                total[:, j] += sure[:, at]
                votes[:, i] += 1 - predicted[:, at]
                votes[:, j] += predicted[:, at]
                at += 1
        made: Array = votes + total / (3 * (np.abs(total) + 1))
        if self.refuses_ties:
            best, second = highest_two(votes)
            made[best == second] = np.nan
        return made

    def _predicted(self, sure: Array) -> Array:
        return np.where(np.abs(sure) > self.margin, sure > 0, np.nan)


class Withhold(Node, tag="withhold"):
    """The first input, but for rows in which another input has a NaN: trees would take that as missing."""

    def width(self, *widths: int) -> int:
        expect(len(widths) > 1, "withhold")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        answer = inputs[0]
        for other in inputs[1:]:
            unknown = np.isnan(other).any(axis=1, keepdims=True)
            if np.any(unknown):
                answer = np.where(unknown, np.nan, answer)
        return answer
