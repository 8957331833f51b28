"""A foreign model with scikit-learn's interface: the classifier that is asked, and its features."""

from __future__ import annotations

from typing import Any, NamedTuple

from fin_pyfunc.model.backends.native import labels_of
from fin_pyfunc.model.encoders import with_known_values
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.foreign.boosters import adapted, features_of_booster, no_classifier
from fin_pyfunc.model.foreign.features import combined, features_of_estimator

#: MLflow's flavors whose raw model has scikit-learn's interface, or that of its library.
FLAVORS = ("sklearn", "lightgbm", "xgboost", "catboost")


class ForeignClassifier(NamedTuple):
    """What is asked, and what it takes.

    Parameters
    ----------
    estimator : object
        With `predict` and `classes_`.
    features : FeatureSpec or None
        None where nothing at all is known of them.
    """

    estimator: Any
    features: FeatureSpec | None


def is_classifier(estimator: Any) -> bool:
    """Whether an estimator is a fitted classifier."""
    return bool(labels_of(estimator)) and callable(getattr(estimator, "predict", None))


def classifier_of(raw: Any, signed: FeatureSpec | None) -> ForeignClassifier | None:
    """A foreign model as a classifier; None where only its own `predict` can be asked.

    Parameters
    ----------
    raw : object
        A fitted estimator, or a booster.
    signed : FeatureSpec or None
        What its signature says of its features.

    Raises
    ------
    ArtifactError
        It is a regressor or a transformer, or which categories its features have cannot be told.
    """
    estimator = adapted(raw)
    if not is_classifier(estimator):
        if _is_no_classifier(estimator):
            raise no_classifier(type(raw).__name__)
        return None
    own = features_of_booster(estimator, signed) or features_of_estimator(estimator)
    spec = combined(own, signed)
    return ForeignClassifier(estimator, None if spec is None else with_known_values(spec, estimator))


def require_classifier(raw: Any, signed: FeatureSpec | None) -> ForeignClassifier:
    """As `classifier_of`, for a bare estimator, which nothing but its own methods can ask."""
    if not is_classifier(adapted(raw)) or (found := classifier_of(raw, signed)) is None:
        raise ArtifactError("The model is not a fitted classifier: it needs predict(X) and classes_.")
    return found


def _is_no_classifier(estimator: Any) -> bool:
    """Whether an estimator is known to be a regressor, or has nothing to predict with."""
    if not callable(getattr(estimator, "predict", None)):
        return True
    try:
        from sklearn.base import is_regressor

        return bool(is_regressor(estimator))
    except Exception:  # an object of the user's own need not have scikit-learn's tags, nor its environment scikit-learn
        return False
