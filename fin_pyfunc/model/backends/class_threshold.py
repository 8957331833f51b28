"""Classifiers of two classes that take their class by a threshold of their own, worked out from their scores."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.model.backends.following import deciding_part
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.form import Cut

_MODULE = "sklearn.model_selection._classification_threshold"
FIXED, TUNED = f"{_MODULE}.FixedThresholdClassifier", f"{_MODULE}.TunedThresholdClassifierCV"


def threshold_of(estimator: Any, is_of_probabilities: bool) -> Cut | None:
    """The threshold of a FixedThresholdClassifier or a TunedThresholdClassifierCV.

    By `predict` in sklearn/model_selection/_classification_threshold.py, 1.5 to 1.9.

    Parameters
    ----------
    estimator : object
        Fitted.
    is_of_probabilities : bool
        Whether it compares probabilities, rather than decision values; a threshold "auto" is 0.5 then, else 0.

    Returns
    -------
    Cut or None
        None where the label that it looks for is none of its two classes.
    """
    if type_name(estimator) == TUNED:
        label, least = estimator._curve_scorer._get_pos_label(), estimator.best_threshold_
    else:
        label, least = estimator.pos_label, estimator.threshold
    if isinstance(least, str):
        least = 0.5 if is_of_probabilities else 0.0
    classes = list(estimator.classes_)
    if label is None:
        return Cut(column=1, least=least)
    return Cut(column=0 if label == classes[0] else 1, least=least) if label in classes else None


def class_threshold(estimator: Any) -> Cut | None:
    """The threshold that an estimator takes its class by; None where it does not, or not of its probabilities.

    Parameters
    ----------
    estimator : object with `predict_proba`
        Fitted.
    """
    last = deciding_part(estimator)
    if last is None or type_name(last) not in (FIXED, TUNED):
        return None
    if last.response_method not in ("auto", "predict_proba") or len(last.classes_) != 2:
        return None
    return threshold_of(last, True)
