"""Classifiers made of other classifiers, which may be Pipelines of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.delegates import ends_in, is_only_trees
from fin_pyfunc.compiling.program.values import Value
from fin_pyfunc.model.backends.native import has_proba
from fin_pyfunc.model.program.arithmetic import Scale
from fin_pyfunc.model.program.classifiers import Linear
from fin_pyfunc.model.program.links import Link
from fin_pyfunc.model.program.node import Array
from fin_pyfunc.model.program.votes import Average, Choose, Pairs, Spread, Withhold

if TYPE_CHECKING:
    from fin_pyfunc.compiling.program.classifiers import Answers

_EQUAL: Array = np.empty(0)


def voting(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a VotingClassifier (sklearn/ensemble/_voting.py); of hard voting, a 1 for the class that wins."""
    members, weights = estimator.estimators_, estimator._weights_not_none
    by = _EQUAL if weights is None else np.array(weights, dtype=np.float64)
    k = len(estimator.classes_)
    if estimator.voting == "soft":
        if all(answers.is_float32(member) for member in members):
            raise NotCompilable("the VotingClassifier averages probabilities in float32")
        each = [answers.probabilities(member, value) for member in members]
        divisor = float(len(members)) if weights is None else float(by[:, None, None].sum(axis=0).item())
        return answers.builder.add(Average(weights=by, divisor=divisor), *each)
    # its members are fitted on codes of the labels
    each = [answers.chosen(member, value, np.eye(k)[_codes(member)]) for member in members]
    votes = answers.builder.add(Average(weights=by, divisor=1.0), *each)
    return answers.builder.add(Choose(table=np.eye(k), margin=0.0), votes)


def bagging(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a BaggingClassifier (sklearn/ensemble/_bagging.py, _parallel_predict_proba)."""
    k, builder = len(estimator.classes_), answers.builder
    each = []
    for member, features in zip(estimator.estimators_, estimator.estimators_features_, strict=True):
        chosen = builder.select(value, np.asarray(features).tolist())
        codes = _codes(member)
        if not has_proba(member):
            each.append(answers.chosen(member, chosen, np.eye(k)[codes]))
            continue
        p = answers.probabilities(member, chosen)
        each.append(p if len(codes) == k else builder.add(Spread(columns=codes, n_columns=k), p))
    return builder.add(Average(weights=_EQUAL, divisor=float(estimator.n_estimators)), *each)


def bagging_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a BaggingClassifier's decision values."""
    each = [
        answers.decisions(member, answers.builder.select(value, np.asarray(features).tolist()))
        for member, features in zip(estimator.estimators_, estimator.estimators_features_, strict=True)
    ]
    return answers.builder.add(Average(weights=_EQUAL, divisor=float(estimator.n_estimators)), *each)


def ada_boost_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add an AdaBoostClassifier's decision values (sklearn/ensemble/_weight_boosting.py)."""
    if getattr(estimator, "algorithm", "SAMME") == "SAMME.R":
        raise NotCompilable("the AdaBoostClassifier adds up logarithms of probabilities (SAMME.R)")
    classes, k = estimator.classes_, len(estimator.classes_)
    each = []
    for member, w in zip(estimator.estimators_, estimator.estimator_weights_, strict=False):
        table = np.where(member.classes_[:, None] == classes, w, -1 / (k - 1) * w)
        each.append(answers.chosen(member, value, table))
    divisor = float(estimator.estimator_weights_.sum())
    total = answers.builder.add(Average(weights=_EQUAL, divisor=divisor), *each)
    if k > 2:
        return total
    return answers.builder.add(Linear(coef=np.array([[-1.0, 1.0]]), intercept=np.zeros(1), link="none"), total)


def ada_boost(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add an AdaBoostClassifier's probabilities."""
    decisions, k = ada_boost_decisions(answers, estimator, value), len(estimator.classes_)
    if k == 2:
        decisions = answers.builder.add(Link(how="pair"), decisions)
    scaled = answers.builder.add(Scale(how="divide", by=np.full(k, 2.0 if k == 2 else k - 1.0)), decisions)
    return answers.builder.add(Link(how="softmax"), scaled)


def one_vs_rest(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a OneVsRestClassifier (sklearn/multiclass.py)."""
    _one_label(estimator)
    builder, members = answers.builder, estimator.estimators_
    if (node := answers.side_by_side(members, "sigmoid")) is not None:
        p = builder.add(Linear(coef=node.coef, intercept=node.intercept, link="sigmoids"), value)
    else:
        p = builder.concat([builder.select(answers.probabilities(member, value), [1]) for member in members])
    if len(members) == 1:
        p = builder.add(Link(how="complement"), p)
    return builder.add(Link(how="divided"), p)


def one_vs_rest_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a OneVsRestClassifier's decision values."""
    _one_label(estimator)
    if (node := answers.side_by_side(estimator.estimators_, "none")) is not None:
        return answers.builder.add(node, value)
    each = [answers.decisions(member, value) for member in estimator.estimators_]
    if any(one.width != 1 for one in each):
        raise NotCompilable("a part of the OneVsRestClassifier answers scores that are not one a row")
    return answers.builder.concat(each)


def one_vs_one_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a OneVsOneClassifier's decision values (sklearn/multiclass.py)."""
    if estimator.pairwise_indices_ is not None:
        raise NotCompilable("the OneVsOneClassifier takes distances between rows")
    builder, sure, predicted = answers.builder, [], []
    for member in estimator.estimators_:
        if _codes(member).tolist() != [0, 1]:
            raise NotCompilable("a part of the OneVsOneClassifier has seen fewer classes")
        # sklearn/multiclass.py, _predict_binary
        is_proba = not hasattr(member, "decision_function")
        sure.append(
            builder.select(answers.probabilities(member, value), [1]) if is_proba else answers.decisions(member, value)
        )
        predicted.append(answers.chosen(member, value, np.array([[0.0], [1.0]])))
    k = len(estimator.classes_)
    made = builder.add(Pairs(n_classes=k), builder.concat(sure), builder.concat(predicted))
    return builder.select(made, [1]) if k == 2 else made


def stacking(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a StackingClassifier's probabilities (sklearn/ensemble/_stacking.py)."""
    return _stacked(answers, estimator, value, answers.probabilities)


def stacking_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add a StackingClassifier's decision values."""
    return _stacked(answers, estimator, value, answers.decisions)


def _stacked(answers: Answers, estimator: Any, value: Value, last: Any) -> Value:
    builder, members = answers.builder, [e for e in estimator.estimators_ if not isinstance(e, str)]
    each: list[Value] = []
    for member, method in zip(members, estimator.stack_method_, strict=True):
        if method == "predict":
            each.append(answers.chosen(member, value, _codes(member).astype(np.float64)[:, None]))
        elif method == "decision_function":
            each.append(answers.decisions(member, value))
        else:
            p = answers.probabilities(member, value)
            each.append(builder.select(p, range(1, p.width)) if len(estimator.classes_) == 2 else p)
    if not estimator.passthrough and all(answers.is_float32(member) for member in members):
        raise NotCompilable("the StackingClassifier stacks probabilities in float32")
    stacked = [*each, value] if estimator.passthrough else each
    answer = last(estimator.final_estimator_, builder.concat(stacked)._replace(is_sparse=value.is_sparse))
    # every other classifier hands a NaN on by itself
    return builder.add(Withhold(), answer, *each) if is_only_trees(ends_in(estimator.final_estimator_)) else answer


def _one_label(estimator: Any) -> None:
    if estimator.multilabel_:
        raise NotCompilable("the OneVsRestClassifier answers several labels a row")


def _codes(member: Any) -> Array:
    """Labels of a member that is fitted on codes of the labels."""
    codes = np.asarray(member.classes_)
    if codes.dtype.kind not in "iu":
        raise NotCompilable(f"a part ({type(member).__name__}) was fitted on labels of its own")
    return codes.astype(np.int64)
