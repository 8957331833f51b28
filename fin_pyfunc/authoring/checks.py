"""What makes an estimator, a sample or an option unfit to be logged, each with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.backends.native import labels_of
from fin_pyfunc.model.decision import Label, Thresholds, label_names
from fin_pyfunc.model.errors import NotLoggableError
from fin_pyfunc.model.feature import NUMERIC
from fin_pyfunc.model.features import FeatureSpec


def checked_estimator(estimator: Any) -> None:
    """Refuse what is not a fitted classifier with one output."""
    kind = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
    if isinstance(estimator, type):
        raise NotLoggableError(f"{kind} is a class: pass a fitted instance, {kind}(…).fit(X, y).")
    if not callable(getattr(estimator, "predict", None)):
        raise NotLoggableError(f"{kind} has no method predict(X): pass a fitted classifier.")
    from sklearn.base import BaseEstimator, is_classifier
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    if not isinstance(estimator, BaseEstimator):
        return  # an object of the user's own is held to what it answers on the sample
    if not is_classifier(estimator):
        raise NotLoggableError(f"{kind} is not a classifier: log regressors and transformers with mlflow.sklearn.")
    try:
        check_is_fitted(estimator)
    except NotFittedError:
        raise NotLoggableError(f"{kind} is not fitted: call fit(X, y) before logging it.") from None


def checked_classes(estimator: Any, given: Sequence[Label] | None) -> list[Label]:
    """The labels of the estimator's columns: those given, else its own."""
    own: list[Any] = labels_of(estimator)
    if own and isinstance(own[0], list):
        raise NotLoggableError("the estimator has several outputs: log one classifier an output.")
    classes = own if given is None else [label.item() if isinstance(label, np.generic) else label for label in given]
    if not classes:
        raise NotLoggableError("the estimator has no classes_: say what it predicts with classes=[…], in column order.")
    if own and len(own) != len(classes):
        raise NotLoggableError(
            f"classes has {len(classes)} labels, but the estimator was trained on {len(own)} classes."
        )
    for label in classes:
        if not isinstance(label, str | int | float | bool) or (isinstance(label, float) and not math.isfinite(label)):
            raise NotLoggableError(
                f"class label {label!r} is not a finite number, text or boolean: train on labels that JSON can carry."
            )
    if len(set(label_names(classes))) != len(classes):
        raise NotLoggableError(
            "two class labels read the same as text, and answers are keyed by that text: rename one."
        )
    return classes


def checked_tolerance(given: float) -> float:
    """How far a compiled form may be from the estimator."""
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= 0.01:
        raise NotLoggableError("tolerance must be a number from 0 (equal to the last bit) to 0.01, in probability.")
    return float(given)


def ranges(X: pd.DataFrame, spec: FeatureSpec) -> dict[str, tuple[float, float]]:
    """The least and the greatest value of each numeric feature of the sample; none for one that is always null."""
    numeric = [feature.name for feature in spec.features if feature.kind in NUMERIC]
    found = {name: (X[name].min(), X[name].max()) for name in numeric}
    return {name: (float(low), float(high)) for name, (low, high) in found.items() if not pd.isna(low)}


def checked_sample(estimator: Any, X: Any, identifiers: Sequence[str]) -> pd.DataFrame:
    """The sample with its columns in training order: the features, then the identifiers it holds."""
    if not isinstance(X, pd.DataFrame):
        raise NotLoggableError(
            f"X is {type(X).__name__}: pass a DataFrame of training rows, whose columns name the features."
        )
    if isinstance(identifiers, str):
        raise NotLoggableError(f"identifiers is text: pass a list, identifiers=[{identifiers!r}].")
    if not all(isinstance(name, str) for name in identifiers):
        raise NotLoggableError("identifiers holds something that is not text: pass names of columns.")
    odd = [name for name in X.columns if not isinstance(name, str)]
    if odd:
        raise NotLoggableError(f"column name {odd[0]!r} is not text: rename the columns, X.columns = [...].")
    if not X.columns.is_unique:
        raise NotLoggableError(f"column {X.columns[X.columns.duplicated()][0]!r} occurs twice in X: drop one of them.")
    if not len(X):
        raise NotLoggableError("X has no rows: pass at least one training row, better a thousand.")
    features = [name for name in X.columns if name not in identifiers]
    trained = [str(name) for name in getattr(estimator, "feature_names_in_", [])]
    expected = len(trained) or getattr(estimator, "n_features_in_", len(features))
    if trained:
        if both := [name for name in trained if name in identifiers]:
            raise NotLoggableError(
                f"{_list(both)} is an identifier here, but the estimator was trained on it: take it out."
            )
        if missing := [name for name in trained if name not in features]:
            raise NotLoggableError(
                f"the estimator was trained on {_list(missing)}, which X lacks: pass its training columns."
            )
        if more := [name for name in features if name not in trained]:
            raise NotLoggableError(
                f"the estimator was not trained on {_list(more)}: drop it from X, or declare it under identifiers."
            )
        features = trained
    elif len(features) != expected:
        raise NotLoggableError(
            f"the estimator was trained on {expected} features, but X has {len(features)} ({_list(features)}): pass "
            "those it was trained on, and declare others under identifiers."
        )
    if not features:
        raise NotLoggableError("X has no features besides its identifiers.")
    return X[[*features, *(name for name in X.columns if name in identifiers)]]


def checked_thresholds(given: Mapping[str, float] | None) -> Thresholds:
    """Thresholds as given, the others as by default."""
    given = {} if given is None else given
    if not isinstance(given, Mapping):
        raise NotLoggableError("confidence is not a mapping: pass {'high': 0.8, 'medium': 0.6}, say.")
    if unknown := sorted(given.keys() - {"high", "medium"}):
        raise NotLoggableError(f"confidence has no level {unknown[0]!r}: it takes 'high' and 'medium'.")
    try:
        return Thresholds(**{level: float(value) for level, value in given.items()})
    except (TypeError, ValueError) as e:
        raise NotLoggableError(f"confidence cannot be used ({e}): pass {{'high': 0.8, 'medium': 0.6}}, say.") from e


def _list(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more
