"""Classifiers, at the end of a program or within another."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.linear import is_linear
from fin_pyfunc.compiling.program import ensembles
from fin_pyfunc.compiling.program.calibrated import calibrated
from fin_pyfunc.compiling.program.delegates import ADA_BOOST, ends_in, innermost, is_only_trees
from fin_pyfunc.compiling.program.requirements import require_input
from fin_pyfunc.compiling.program.support_vectors import support_vector_decisions
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.compiling.tree_form import trees_of
from fin_pyfunc.model.backends.following import gap
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.backends.native import has_proba
from fin_pyfunc.model.form import LEAST_BAND
from fin_pyfunc.model.program.classifiers import Constant, Linear, TreeEnsemble
from fin_pyfunc.model.program.densities import Counts, Gaussian, Quadratic
from fin_pyfunc.model.program.links import Link
from fin_pyfunc.model.program.node import Array
from fin_pyfunc.model.program.votes import Choose
from fin_pyfunc.model.tree_file import written

#: How near a threshold a feature that is rounded on the way may be for a tree to be sure, relative to its size.
_MARGIN = 1e-12


class Answers:
    """Adds classifiers to a program.

    Parameters
    ----------
    builder : Builder
    """

    def __init__(self, builder: Builder) -> None:
        self.builder = builder

    def probabilities(self, estimator: Any, value: Value) -> Value:
        """Add what `predict_proba` answers, one column a class.

        Raises
        ------
        NotCompilable
        """
        last, given = innermost(self.builder, estimator, value)
        made = self._added(_PROBABILITIES, last, given)
        if made.width != len(getattr(last, "classes_", (0, 1))):  # a class alone has no labels of its own
            raise NotCompilable(f"{type(last).__name__} answers scores that are not one a class")
        return made

    def decisions(self, estimator: Any, value: Value) -> Value:
        """Add what `decision_function` answers: one column for two classes."""
        return self._added(_DECISIONS, *innermost(self.builder, estimator, value))

    def chosen(self, estimator: Any, value: Value, table: Array) -> Value:
        """Add what stands for the class that `predict` answers.

        Parameters
        ----------
        estimator : object
        value : Value
        table : ndarray of shape (k, n), float64
            A row for each of the estimator's classes.
        """
        if has_proba(estimator):
            scores, margin = self.probabilities(estimator, value), gap(estimator, is_given_frames=False)
            if margin is None:
                raise NotCompilable(
                    f"the class of {type(ends_in(estimator)).__name__} is not that of its probabilities"
                )
        else:
            scores, margin = self.decisions(estimator, value), LEAST_BAND
            if scores.width == 1:
                scores = self.builder.add(Link(how="pair"), scores)
        if scores.is_rounded:
            margin = max(margin, LEAST_BAND)
        made = self.builder.add(Choose(table=np.ascontiguousarray(table, dtype=np.float64), margin=margin), scores)
        return made._replace(is_rounded=False)  # what may be on either side is withheld

    def side_by_side(self, members: Any, link: str) -> Linear | None:
        """One matrix product for several linear classifiers of two classes; None where they are not all of them.

        Parameters
        ----------
        members : sequence of object
        link : {"none", "sigmoid"}
            What makes their decision values, or probabilities, of the product.
        """
        if not all(is_linear(member) and (link == "none" or has_proba(member)) for member in members):
            return None
        nodes = [_linear(member, raw=link == "none") for member in members]
        if any(node.link != link or len(node.coef) != 1 for node in nodes):
            return None
        coef, intercept = (np.concatenate([getattr(node, name) for node in nodes]) for name in ("coef", "intercept"))
        return Linear(coef=coef, intercept=intercept, link="none")

    def is_float32(self, estimator: Any) -> bool:
        """Whether the probabilities of an estimator come as float32."""
        return str(type_name(ends_in(estimator))).startswith("xgboost.")

    def _added(self, table: Mapping[str, _Adds], estimator: Any, value: Value) -> Value:
        if value.has_codes:
            raise NotCompilable(f"{type(estimator).__name__} is given text or categories")
        if np.ndim(getattr(estimator, "classes_", [0])) != 1 or isinstance(getattr(estimator, "classes_", 0), list):
            raise NotCompilable(f"{type(estimator).__name__} answers several labels a row")
        require_input(self.builder, estimator, value)
        add = table.get(type_name(estimator))
        if is_only_trees(estimator) and (add is None or table is _PROBABILITIES):
            return self._trees(estimator, value, raw=table is _DECISIONS)
        if add is not None:
            return add(self, estimator, value)
        if is_linear(estimator) and (table is _DECISIONS or has_proba(estimator)):
            return self.builder.add(_linear(estimator, raw=table is _DECISIONS), value)
        raise NotCompilable(f"the classifier ({type(estimator).__name__}) is not compiled")

    def _trees(self, estimator: Any, value: Value, *, raw: bool) -> Value:
        trees, n_scores = trees_of(estimator, value.width, single=False), len(estimator.classes_)
        if raw:
            how = msgspec.structs.replace(trees.arithmetic, link="identity", slope=1.0)
            trees, n_scores = trees._replace(arithmetic=how), len(trees.base)
        margin = _MARGIN if value.is_rounded else 0.0
        return self.builder.add(TreeEnsemble(content=written(trees), n_classes=n_scores, margin=margin), value)


_Adds = Callable[[Answers, Any, Value], Value]


def classifier(builder: Builder, estimator: Any, value: Value) -> Value:
    """Add the classifier at the end, one column a class.

    Returns
    -------
    Value
        Its probabilities; where it has none, its decision values; where it has none of these either, a 1 for the class
        that it predicts.

    Raises
    ------
    NotCompilable
    """
    answers = Answers(builder)
    if has_proba(estimator):
        return answers.probabilities(estimator, value)
    if not hasattr(estimator, "decision_function"):
        return answers.probabilities(estimator, value)
    made = answers.decisions(estimator, value)
    return builder.add(Link(how="pair"), made) if made.width == 1 else made


def is_classifier(estimator: Any) -> bool:
    """Whether an estimator is tried as a program: one that leads to a known classifier, but for some that are alone."""
    last = ends_in(estimator)
    if last is estimator and type_name(last) in _FASTER_AS_GRAPHS:
        return False
    if is_only_trees(last):
        return last is not estimator
    return type_name(last) in _PROBABILITIES or type_name(last) in _DECISIONS or is_linear(last)


def _linear(estimator: Any, *, raw: bool) -> Linear:
    # sklearn/linear_model/_base.py, LinearClassifierMixin; the rest as `linear_scores` has it for a graph
    coef = np.atleast_2d(_numbers(estimator.coef_))
    intercept = np.broadcast_to(_numbers(estimator.intercept_).reshape(-1), len(coef)).copy()
    is_binary = len(estimator.classes_) == 2
    if raw:
        return Linear(coef=coef, intercept=intercept, link="none")
    rest = getattr(estimator, "multi_class", None) == "ovr" or getattr(estimator, "solver", None) == "liblinear"
    if is_binary and getattr(estimator, "multi_class", None) != "multinomial":
        return Linear(coef=coef, intercept=intercept, link="sigmoid")
    if is_binary:
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    link = "rest" if rest or type_name(estimator).endswith("SGDClassifier") else "softmax"
    return Linear(coef=coef, intercept=intercept, link=link)


def _descent(answers: Answers, estimator: Any, value: Value) -> Value:
    if estimator.loss == "modified_huber":
        node = _linear(estimator, raw=True)
        return answers.builder.add(Linear(coef=node.coef, intercept=node.intercept, link="huber"), value)
    return answers.builder.add(_linear(estimator, raw=False), value)


def _raw_linear(answers: Answers, estimator: Any, value: Value) -> Value:
    return answers.builder.add(_linear(estimator, raw=True), value)


def _gaussian(answers: Answers, estimator: Any, value: Value) -> Value:
    variance = _numbers(estimator.var_)
    node = Gaussian(
        mean=_numbers(estimator.theta_),
        variance=variance,
        log_prior=np.log(_numbers(estimator.class_prior_)),
        constant=np.array([-0.5 * np.sum(np.log(2.0 * np.pi * of)) for of in variance]),
    )
    return _normed(answers, node, value)


def _multinomial(answers: Answers, estimator: Any, value: Value) -> Value:
    node = Linear(
        coef=_numbers(estimator.feature_log_prob_), intercept=_numbers(estimator.class_log_prior_), link="none"
    )
    return _normed(answers, node, value)


def _complement_bayes(answers: Answers, estimator: Any, value: Value) -> Value:
    coef = _numbers(estimator.feature_log_prob_)
    one = len(estimator.classes_) == 1
    prior = _numbers(estimator.class_log_prior_) if one else np.zeros(len(coef))
    return _normed(answers, Linear(coef=coef, intercept=prior, link="none"), value)


def _bernoulli(answers: Answers, estimator: Any, value: Value) -> Value:
    if estimator.binarize is not None:
        from sklearn.preprocessing import Binarizer

        # what stands for it: `binarize` and its transform are the same (sklearn/preprocessing/_data.py)
        value = answers.builder.transform(Binarizer(threshold=estimator.binarize), value)
    log_prob = _numbers(estimator.feature_log_prob_)
    none = np.log(1 - np.exp(log_prob))
    intercept = _numbers(estimator.class_log_prior_) + none.sum(axis=1)
    return _normed(answers, Linear(coef=log_prob - none, intercept=intercept, link="none"), value)


def _categorical(answers: Answers, estimator: Any, value: Value) -> Value:
    tables = [_numbers(of).T for of in estimator.feature_log_prob_]
    node = Counts(
        sizes=np.array([len(of) for of in tables], dtype=np.int64),
        table=np.concatenate(tables),
        log_prior=_numbers(estimator.class_log_prior_),
    )
    return _normed(answers, node, value)


def _normed(answers: Answers, node: Any, value: Value) -> Value:
    return answers.builder.add(Link(how="log-sum-exp"), answers.builder.add(node, value))


def _quadratic(estimator: Any) -> Quadratic:
    most = max(of.shape[1] for of in estimator.rotations_)
    rotation = [of * scale ** (-0.5) for of, scale in zip(estimator.rotations_, estimator.scalings_, strict=True)]
    return Quadratic(
        mean=_numbers(estimator.means_),
        rotation=np.concatenate([np.pad(_numbers(of), ((0, 0), (0, most - of.shape[1]))) for of in rotation]),
        constant=np.array([np.sum(np.log(of)) for of in estimator.scalings_]),
        log_prior=np.log(_numbers(estimator.priors_)),
    )


def _quadratic_probabilities(answers: Answers, estimator: Any, value: Value) -> Value:
    return answers.builder.add(Link(how="log-softmax"), answers.builder.add(_quadratic(estimator), value))


def _quadratic_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    scores = answers.builder.add(_quadratic(estimator), value)
    return answers.builder.add(Link(how="difference"), scores) if scores.width == 2 else scores


def _network(answers: Answers, estimator: Any, value: Value) -> Value:
    # sklearn/neural_network/_multilayer_perceptron.py, _forward_pass_fast
    k = len(estimator.classes_)
    if estimator.n_outputs_ != (1 if k == 2 else k):
        raise NotCompilable("the MLPClassifier answers several labels a row")
    names = {"identity": "none", "logistic": "sigmoids", "tanh": "tanh", "relu": "relu"}
    last = "sigmoid" if k == 2 else "softmax"
    links = [names[estimator.activation]] * (len(estimator.coefs_) - 1) + [last]
    for coef, intercept, link in zip(estimator.coefs_, estimator.intercepts_, links, strict=True):
        node = Linear(coef=_numbers(coef.T), intercept=_numbers(intercept), link=link)
        value = answers.builder.add(node, value)
    return value


def _dummy(answers: Answers, estimator: Any, value: Value) -> Value:
    k, strategy = len(estimator.classes_), estimator._strategy
    if strategy == "prior":
        p = _numbers(estimator.class_prior_)
    elif strategy == "most_frequent":
        p = np.eye(k)[estimator.class_prior_.argmax()]
    elif strategy == "constant":
        p = (estimator.classes_ == np.ravel(estimator.constant)[0]).astype(np.float64)
    else:
        raise NotCompilable(f"the DummyClassifier answers at random ({strategy})")
    return answers.builder.add(Constant(values=p), value)


def _only_class(answers: Answers, estimator: Any, value: Value) -> Value:
    y = float(np.ravel(estimator.y_)[0])
    return answers.builder.add(Constant(values=np.array([1 - y, y])), value)


def _only_class_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    return answers.builder.add(Constant(values=np.array([float(np.ravel(estimator.y_)[0])])), value)


def _numbers(of: Any) -> Array:
    return np.ascontiguousarray(of, dtype=np.float64)


_BAGGING = "sklearn.ensemble._bagging.BaggingClassifier"
_DESCENT = "sklearn.linear_model._stochastic_gradient.SGDClassifier"
_ONLY = "sklearn.multiclass._ConstantPredictor"
_QUADRATIC = "sklearn.discriminant_analysis.QuadraticDiscriminantAnalysis"
_STACKING = "sklearn.ensemble._stacking.StackingClassifier"
_VS_ONE, _VS_REST = "sklearn.multiclass.OneVsOneClassifier", "sklearn.multiclass.OneVsRestClassifier"
#: Classifiers that ONNX Runtime scores a row with in half the time (benchmarks/classifier_programs.py).
_FASTER_AS_GRAPHS = frozenset(
    {
        "sklearn.naive_bayes.BernoulliNB",
        "sklearn.naive_bayes.ComplementNB",
        "sklearn.naive_bayes.GaussianNB",
        "sklearn.naive_bayes.MultinomialNB",
        "sklearn.neural_network._multilayer_perceptron.MLPClassifier",
        _QUADRATIC,
    }
)
#: By class, besides trees and linear ones: what adds `predict_proba`.
_PROBABILITIES: Mapping[str, _Adds] = {
    "sklearn.calibration.CalibratedClassifierCV": calibrated,
    "sklearn.dummy.DummyClassifier": _dummy,
    "sklearn.ensemble._voting.VotingClassifier": ensembles.voting,
    "sklearn.naive_bayes.BernoulliNB": _bernoulli,
    "sklearn.naive_bayes.CategoricalNB": _categorical,
    "sklearn.naive_bayes.ComplementNB": _complement_bayes,
    "sklearn.naive_bayes.GaussianNB": _gaussian,
    "sklearn.naive_bayes.MultinomialNB": _multinomial,
    "sklearn.neural_network._multilayer_perceptron.MLPClassifier": _network,
    ADA_BOOST: ensembles.ada_boost,
    _BAGGING: ensembles.bagging,
    _DESCENT: _descent,
    _ONLY: _only_class,
    _QUADRATIC: _quadratic_probabilities,
    _STACKING: ensembles.stacking,
    _VS_REST: ensembles.one_vs_rest,
}
#: The same for `decision_function`.
_DECISIONS: Mapping[str, _Adds] = {
    "sklearn.svm._classes.NuSVC": support_vector_decisions,
    "sklearn.svm._classes.SVC": support_vector_decisions,
    ADA_BOOST: ensembles.ada_boost_decisions,
    _BAGGING: ensembles.bagging_decisions,
    _DESCENT: _raw_linear,
    _ONLY: _only_class_decisions,
    _QUADRATIC: _quadratic_decisions,
    _STACKING: ensembles.stacking_decisions,
    _VS_ONE: ensembles.one_vs_one_decisions,
    _VS_REST: ensembles.one_vs_rest_decisions,
}
