"""Estimators that hand a row on to another: searches, frozen ones, thresholds, and Pipelines at their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import is_ensemble
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.compiling.sklearn_trees import TREES
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.backends.native import has_proba
from fin_pyfunc.model.form import Cut

ADA_BOOST = "sklearn.ensemble._weight_boosting.AdaBoostClassifier"
_FIXED = "sklearn.model_selection._classification_threshold.FixedThresholdClassifier"
_TUNED = "sklearn.model_selection._classification_threshold.TunedThresholdClassifierCV"
_ONE_VS_ONE = "sklearn.multiclass.OneVsOneClassifier"
_PIPELINES = ("sklearn.pipeline.Pipeline", "imblearn.pipeline.Pipeline")


def _trained(estimator: Any) -> Any:
    return estimator.estimator_ if hasattr(estimator, "estimator_") else estimator.base_estimator_  # before 1.6


def _best(estimator: Any) -> Any:
    return estimator.best_estimator_


#: By class: the estimator whose answers are its own.
_DELEGATES: Mapping[str, Callable[[Any], Any]] = {
    "sklearn.frozen._frozen.FrozenEstimator": lambda e: e.estimator,
    _FIXED: lambda e: getattr(e, "estimator_", e.estimator),
    _TUNED: lambda e: e.estimator_,
    "sklearn.model_selection._search.GridSearchCV": _best,
    "sklearn.model_selection._search.RandomizedSearchCV": _best,
    "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV": _best,
    "sklearn.model_selection._search_successive_halving.HalvingRandomSearchCV": _best,
    "sklearn.semi_supervised._self_training.SelfTrainingClassifier": _trained,
}


def innermost(builder: Builder, estimator: Any, value: Value) -> tuple[Any, Value]:
    """Follow an estimator to the classifier that answers for it, and add the steps before that.

    Returns
    -------
    estimator : object
    value : Value
        What that classifier is given.

    Raises
    ------
    NotCompilable
        A step is not compiled.
    """
    while True:
        if type_name(estimator) in _PIPELINES:
            for _, step in estimator.steps[:-1]:
                if step is not None and not hasattr(step, "fit_resample"):  # imbalanced-learn's only change training
                    value = builder.transform(step, value)
            estimator = estimator.steps[-1][1]
        elif (inner := _DELEGATES.get(type_name(estimator))) is not None:
            estimator = inner(estimator)
        else:
            return estimator, value


def ends_in(estimator: Any) -> Any:
    """The classifier that `innermost` leads to."""
    while True:
        if type_name(estimator) in _PIPELINES:
            estimator = estimator.steps[-1][1]
        elif (inner := _DELEGATES.get(type_name(estimator))) is not None:
            estimator = inner(estimator)
        else:
            return estimator


def is_only_trees(estimator: Any) -> bool:
    """Whether a classifier is nothing but trees."""
    is_of_others = type_name(estimator) == ADA_BOOST and any(
        type_name(member) not in TREES for member in estimator.estimators_
    )
    return is_ensemble(estimator) and not is_of_others


def cut_of(estimator: Any) -> Cut | None:
    """Where an estimator takes its class by a threshold rather than by the highest score, that threshold.

    Raises
    ------
    NotCompilable
        It compares another score than those that it answers.
    """
    while (name := type_name(estimator)) not in (_FIXED, _TUNED):
        if name in _PIPELINES:
            estimator = estimator.steps[-1][1]
        elif name in _DELEGATES:
            estimator = _DELEGATES[name](estimator)
        elif name == _ONE_VS_ONE and len(estimator.classes_) == 2:
            # sklearn/multiclass.py, _threshold_for_binary_predict
            has_decisions = hasattr(estimator.estimators_[0], "decision_function")
            return Cut(column=1, least=0.0 if has_decisions else 0.5)
        else:
            return None
    inner, method = _DELEGATES[name](estimator), estimator.response_method
    uses_proba = has_proba(inner) if method == "auto" else method == "predict_proba"
    if uses_proba != has_proba(inner):
        raise NotCompilable(f"{type(estimator).__name__} compares decision values, and answers probabilities")
    if name == _TUNED:
        label, least = estimator._curve_scorer._get_pos_label(), estimator.best_threshold_
    else:
        label, least = estimator.pos_label, estimator.threshold
    if isinstance(least, str):  # "auto"
        least = 0.5 if uses_proba else 0.0
    is_first = label is not None and label == estimator.classes_[0]
    return Cut(column=0 if is_first else 1, least=float(least))
