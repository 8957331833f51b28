"""Classifiers of two classes that take their class by a threshold of their own, worked out from their probabilities."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fin_pyfunc.model.backends.following import deciding_part
from fin_pyfunc.model.backends.nameless import type_name

_MODULE = "sklearn.model_selection._classification_threshold"
_FIXED, _TUNED = f"{_MODULE}.FixedThresholdClassifier", f"{_MODULE}.TunedThresholdClassifierCV"


class ClassThreshold(NamedTuple):
    """The class is that of `column` where its probability is at least `least`, else the other."""

    column: int
    least: Any

    def positions(self, probabilities: Any) -> np.ndarray[Any, np.dtype[np.intp]]:
        """The class of each row, by its position.

        Parameters
        ----------
        probabilities : array of shape (n_rows, 2)
            As the estimator answered them: a float32 is compared as float32.
        """
        is_it = np.asarray(probabilities)[:, self.column] >= self.least
        return np.where(is_it, self.column, 1 - self.column)


def class_threshold(estimator: Any) -> ClassThreshold | None:
    """The threshold that an estimator takes its class by; None where it does not, or not of its probabilities.

    By `predict` in sklearn/model_selection/_classification_threshold.py, 1.5 to 1.9.

    Parameters
    ----------
    estimator : object with `predict_proba`
        Fitted.
    """
    last = deciding_part(estimator)
    if last is None or (name := type_name(last)) not in (_FIXED, _TUNED):
        return None
    if last.response_method not in ("auto", "predict_proba") or len(last.classes_) != 2:
        return None
    if name == _TUNED:
        label, least = last._curve_scorer._get_pos_label(), last.best_threshold_
    else:
        label, least = last.pos_label, 0.5 if isinstance(last.threshold, str) else last.threshold
    if label is None:
        return ClassThreshold(1, least)
    columns = np.flatnonzero(last.classes_ == label)
    return ClassThreshold(int(columns[0]), least) if len(columns) == 1 else None
