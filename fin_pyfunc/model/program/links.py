"""From scores to probabilities, as scikit-learn's classifiers get there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import ClassVar

import numpy as np

from fin_pyfunc.model.program.node import Array, Node, expect

#: Numbers that are faster one by one than as an array.
_FEW = 8


class Link(Node, tag="link"):
    """A function of all scores of a row.

    Parameters
    ----------
    how : str
        One of `LINKS`.
    """

    rounds: ClassVar[bool] = True

    how: str

    def width(self, *widths: int) -> int:
        expect(len(widths) == 1, "link")
        return linked_width(self.how, widths[0])

    def __call__(self, *inputs: Array) -> Array:
        return LINKS[self.how](inputs[0].copy())


def linked_width(how: str, width: int) -> int:
    """How many columns a link makes of so many; raises ArtifactError where it takes another number."""
    expect(how in LINKS and width > 0, "link")
    takes, makes = _WIDTHS.get(how, (width, width))
    expect(width == takes, "link")
    return 2 if how == "huber" and width == 1 else makes


def _none(scores: Array) -> Array:
    return scores


def _softmax(scores: Array) -> Array:
    # sklearn/utils/extmath.py, softmax
    if scores.shape[0] == 1 and scores.size < _FEW:  # NumPy adds up so few one after the other, too
        scores -= max(scores[0].tolist())
        np.exp(scores, out=scores)
        total = 0.0
        for each in scores[0].tolist():
            total += each
        scores /= total
        return scores
    scores -= np.maximum.reduce(scores, axis=1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=1, keepdims=True)
    return scores


def _sigmoids(scores: Array) -> Array:
    if scores.size <= _FEW:
        return np.array([[_one_sigmoid(x) for x in row] for row in scores.tolist()])
    np.negative(scores, out=scores)
    np.exp(scores, out=scores)
    scores += 1.0
    return np.divide(1.0, scores, out=scores)


def _one_sigmoid(x: float) -> float:
    """As scipy.special.expit, which calls the C library's exp as this does, and NumPy does not."""
    try:
        return 1.0 / (1.0 + math.exp(-x))
    except OverflowError:
        return 0.0


def _sigmoid(scores: Array) -> Array:
    if len(scores) == 1:
        p = _one_sigmoid(scores.item())
        return np.array([[1.0 - p, p]])
    return _complement(_sigmoids(scores))


def _complement(p: Array) -> Array:
    if len(p) == 1:
        one = p.item()
        return np.array([[1.0 - one, one]])
    return np.concatenate((1 - p, p), axis=1)


def _pair(decisions: Array) -> Array:
    if len(decisions) == 1:
        one = decisions.item()
        return np.array([[-one, one]])
    return np.concatenate((-decisions, decisions), axis=1)


def _difference(scores: Array) -> Array:
    made: Array = scores[:, 1:] - scores[:, :1]
    return made


def _rest(scores: Array) -> Array:
    # sklearn/linear_model/_base.py, _predict_proba_lr: where every one of them is 0, the classes share alike
    return _shared(_sigmoids(scores))


def _shared(p: Array) -> Array:
    total = np.add.reduce(p, axis=1, keepdims=True)
    is_none = total == 0
    if not is_none.any():
        p /= total
        return p
    return np.where(is_none, 1 / p.shape[1], p / np.where(is_none, 1, total))


def _huber(scores: Array) -> Array:
    # sklearn/linear_model/_stochastic_gradient.py, predict_proba of loss="modified_huber"
    p = (np.clip(scores, -1, 1) + 1.0) / 2.0
    return _complement(p) if p.shape[1] == 1 else _shared(p)


def _divided(p: Array) -> Array:
    # sklearn/multiclass.py, OneVsRestClassifier.predict_proba: rows of zeros stay
    total = np.add.reduce(p, axis=1, keepdims=True)
    made: Array = np.divide(p, total, out=p, where=total != 0)
    return made


def _log_sum_exp(scores: Array) -> Array:
    # sklearn/utils/_array_api.py, _logsumexp, and sklearn/naive_bayes.py, predict_proba
    highest = scores.max(axis=1, keepdims=True)
    is_highest = scores == highest
    count = is_highest.sum(axis=1, keepdims=True, dtype=np.float64)
    others = np.exp(np.where(is_highest, -np.inf, scores) - np.where(np.isfinite(highest), highest, 0))
    rest = others.sum(axis=1, keepdims=True) / count
    scores -= np.log1p(rest) + np.log(count) + highest
    return np.exp(scores, out=scores)


def _log_softmax(scores: Array) -> Array:
    # sklearn/discriminant_analysis.py, DiscriminantAnalysisPredictionMixin.predict_log_proba
    scores -= scores.max(axis=1, keepdims=True)
    scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
    return np.exp(scores, out=scores)


def _relu(scores: Array) -> Array:
    return np.maximum(scores, 0, out=scores)


def _tanh(scores: Array) -> Array:
    return np.tanh(scores, out=scores)


#: By name; each may change the array that it is given.
LINKS: Mapping[str, Callable[[Array], Array]] = {
    "none": _none,
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "sigmoids": _sigmoids,
    "complement": _complement,
    "pair": _pair,
    "difference": _difference,
    "rest": _rest,
    "shared": _shared,
    "divided": _divided,
    "huber": _huber,
    "log-sum-exp": _log_sum_exp,
    "log-softmax": _log_softmax,
    "relu": _relu,
    "tanh": _tanh,
}
#: How many columns a link takes and makes, where it is not as many as there are.
_WIDTHS = {"sigmoid": (1, 2), "complement": (1, 2), "pair": (1, 2), "difference": (2, 1)}
