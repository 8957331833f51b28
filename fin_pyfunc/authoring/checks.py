"""What makes an estimator, a sample or an option unfit to be logged, each with what to do about it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.authoring.training_parts import LIBRARIES
from fin_pyfunc.model.backends.native import labels_of, parts_of
from fin_pyfunc.model.decision import Label, Scores, Thresholds, label_names
from fin_pyfunc.model.errors import NotLoggableError
from fin_pyfunc.model.feature import NUMERIC
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.frames import as_frame


def checked_estimator(estimator: Any, classes: Sequence[Label] | None = None) -> None:
    """Refuse what is not a fitted classifier with one output, or does not answer as its class does.

    Parameters
    ----------
    estimator : object
    classes : sequence of label or None, default None
        What it predicts, where the caller says so; then an object of the caller's own need not be a ClassifierMixin.
    """
    kind = estimator.__name__ if isinstance(estimator, type) else type(estimator).__name__
    if isinstance(estimator, type):
        raise NotLoggableError(f"{kind} is a class: pass a fitted instance, {kind}(…).fit(X, y).")
    parts = list(parts_of(estimator))
    if not callable(getattr(estimator, "predict", None)):
        if any("cv_results_" in vars(part) and not hasattr(part, "best_estimator_") for part in parts):
            raise NotLoggableError(
                f"{kind} was fitted with refit=False, so no estimator in it predicts: fit it with refit=True, or fit "
                "its estimator with the best_params_ and log that."
            )
        raise NotLoggableError(f"{kind} has no method predict(X): pass a fitted classifier.")
    from sklearn.base import BaseEstimator, is_classifier, is_outlier_detector, is_regressor
    from sklearn.exceptions import NotFittedError
    from sklearn.utils.validation import check_is_fitted

    for part in parts:
        if isinstance(part, BaseEstimator) and (name := _own_method(part)):
            raise NotLoggableError(
                f"{type(part).__name__} has a {name} that was set on the instance, which neither a compiled form nor a "
                f"file without a pickle follows: derive a class with this {name}, and log an instance of it with "
                "serialization='cloudpickle'."
            )
    if not isinstance(estimator, BaseEstimator):
        return  # an object of the user's own is held to what it answers on the sample
    is_own = classes is not None and any(type(part).__module__.partition(".")[0] not in LIBRARIES for part in parts)
    if not is_classifier(estimator) and (not is_own or is_regressor(estimator) or is_outlier_detector(estimator)):
        raise NotLoggableError(
            f"{kind} is not a classifier: log regressors and transformers with mlflow.sklearn, and say of a classifier "
            "of your own that is no ClassifierMixin what it predicts, with classes=[…]."
        )
    try:
        check_is_fitted(estimator)
    except (NotFittedError, TypeError):  # TypeError: it has no method fit
        if not is_own:
            raise NotLoggableError(f"{kind} is not fitted: call fit(X, y) before logging it.") from None


def _own_method(part: Any) -> str | None:
    """The name of a method that an instance has in place of its class's."""
    name: str
    for name, value in vars(part).items():
        of_class = getattr(type(part), name, None)
        if callable(value) and callable(of_class) and getattr(value, "__func__", value) is not of_class:
            return name
    return None


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


def refuse_positions(estimator: Any, scores: Scores) -> None:
    """Refuse an object without `classes_` whose predictions read as labels, and are positions of columns."""
    p, k = scores.probabilities, len(scores.classes)
    if p is None or labels_of(estimator) or list(scores.classes) == list(range(k)):
        return
    predicted = [scores.classes[i] for i in scores.index.tolist()]
    first = p.argmax(axis=1)
    are_positions = all(label in range(k) for label in predicted) and (first == predicted).all()
    if are_positions and (first != scores.index).any():
        raise NotLoggableError(
            f"the estimator predicts positions of columns, and {_list(scores.classes)} read as other labels: give it "
            f"classes_ = {list(range(k))}, which classes=[…] then renames."
        )


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
    frame = as_frame(X)
    if frame is None:
        raise NotLoggableError(
            f"X is {type(X).__name__}: pass a DataFrame of training rows, whose columns name the features."
        )
    if isinstance(identifiers, str):
        raise NotLoggableError(f"identifiers is text: pass a list, identifiers=[{identifiers!r}].")
    if not all(isinstance(name, str) for name in identifiers):
        raise NotLoggableError("identifiers holds something that is not text: pass names of columns.")
    odd = [name for name in frame.columns if not isinstance(name, str)]
    if odd:
        raise NotLoggableError(f"column name {odd[0]!r} is not text: rename the columns, X.columns = [...].")
    if not frame.columns.is_unique:
        raise NotLoggableError(
            f"column {frame.columns[frame.columns.duplicated()][0]!r} occurs twice in X: drop one of them."
        )
    if not len(frame):
        raise NotLoggableError("X has no rows: pass at least one training row, better a thousand.")
    features = [name for name in frame.columns if name not in identifiers]
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
    return frame[[*features, *(name for name in frame.columns if name in identifiers)]]


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


def _list(names: Sequence[Label]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(map(repr, names[:5])) + more


def checked_code_paths(given: Sequence[str] | None) -> list[str]:
    """The files and folders to log with the model; raises NotLoggableError for text in place of a list."""
    if isinstance(given, str):
        raise NotLoggableError("code_paths is text: pass a list of files and folders, code_paths=[…].")
    return [str(path) for path in given or ()]
