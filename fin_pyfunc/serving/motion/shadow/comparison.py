"""Two models' answers to the same rows, side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from fin_pyfunc.model.decision import Scores, label_names


class Comparison(NamedTuple):
    """What came of comparing.

    Parameters
    ----------
    agreed : int
        Rows of the same class.
    pairs : Counter of (str, str)
        Rows of another class, by the class answered and the shadow's.
    distances : ndarray of shape (n_rows,) or None
        The greatest difference of a row's probabilities over the classes; None where one of the models has none, or
        knows other classes.
    differing : ndarray of shape (n_rows,), bool
        Rows worth a record.
    """

    agreed: int
    pairs: Counter[tuple[str, str]]
    distances: np.ndarray[Any, np.dtype[np.float64]] | None
    differing: np.ndarray[Any, np.dtype[np.bool_]]


def compare(answered: Scores, shadow: Scores, tolerance: float | None) -> Comparison:
    """Compare row by row.

    Parameters
    ----------
    answered, shadow : Scores
        Of the same rows.
    tolerance : float or None
        A row whose probabilities are further apart is worth a record whatever its class; None for a row of another
        class alone.
    """
    ours, theirs = label_names(answered.classes), label_names(shadow.classes)
    theirs_in_ours = [ours.index(name) if name in ours else -1 for name in theirs]
    differing = np.asarray(theirs_in_ours)[shadow.index] != answered.index
    pairs = Counter(
        (ours[i], theirs[j])
        for i, j in zip(answered.index[differing].tolist(), shadow.index[differing].tolist(), strict=True)
    )
    agreed = int(len(differing) - np.count_nonzero(differing))
    distances = None
    p, q = answered.probabilities, shadow.probabilities
    if p is not None and q is not None and sorted(ours) == sorted(theirs):
        distances = np.abs(q - p[:, theirs_in_ours]).max(axis=1)
        if tolerance is not None:
            differing = differing | (distances > tolerance)
    return Comparison(agreed, pairs, distances, differing)


def rows(scores: Scores, which: np.ndarray[Any, np.dtype[np.intp]]) -> Iterator[tuple[Any, dict[str, float] | None]]:
    """Some rows' classes, each with probabilities by class where the model has them."""
    names: Sequence[str] = label_names(scores.classes)
    predicted = [scores.classes[k] for k in scores.index[which].tolist()]
    if scores.probabilities is None:
        return zip(predicted, repeat(None))
    return zip(predicted, (dict(zip(names, p, strict=True)) for p in scores.probabilities[which].tolist()), strict=True)
