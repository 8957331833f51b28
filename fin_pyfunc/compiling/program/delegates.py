"""Estimators that hand a row on to another: searches, frozen ones, thresholds, and Pipelines at their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import is_ensemble
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.compiling.sklearn_trees import TREES
from fin_pyfunc.model.backends.class_threshold import FIXED, TUNED, threshold_of
from fin_pyfunc.model.backends.following import HANDS_ON
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.backends.native import has_proba
from fin_pyfunc.model.form import Cut

ADA_BOOST = "sklearn.ensemble._weight_boosting.AdaBoostClassifier"
_ONE_VS_ONE = "sklearn.multiclass.OneVsOneClassifier"
_PIPELINES = ("sklearn.pipeline.Pipeline", "imblearn.pipeline.Pipeline")


#: By class: the estimator whose answers are its own.
_DELEGATES: Mapping[str, Callable[[Any], Any]] = {
    **HANDS_ON,
    FIXED: lambda e: getattr(e, "estimator_", e.estimator),
    TUNED: lambda e: e.estimator_,
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
            for name, step in estimator.steps[:-1]:
                if step is not None and not hasattr(step, "fit_resample"):  # imbalanced-learn's only change training
                    value = builder.transform(step, value, name)
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
    while (name := type_name(estimator)) not in (FIXED, TUNED):
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
    cut = threshold_of(estimator, uses_proba)
    if cut is None:
        raise NotCompilable(f"the {type(estimator).__name__} looks for a label that is none of its classes")
    return Cut(column=cut.column, least=float(cut.least))
