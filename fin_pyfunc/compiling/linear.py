"""Linear classifiers as two or three nodes of an ONNX graph, in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.tree_nodes import Nodes
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.backends.native import has_proba

_LINEAR = frozenset(
    {
        "sklearn.discriminant_analysis.LinearDiscriminantAnalysis",
        "sklearn.linear_model._logistic.LogisticRegression",
        "sklearn.linear_model._logistic.LogisticRegressionCV",
        "sklearn.linear_model._passive_aggressive.PassiveAggressiveClassifier",
        "sklearn.linear_model._perceptron.Perceptron",
        "sklearn.linear_model._ridge.RidgeClassifier",
        "sklearn.linear_model._ridge.RidgeClassifierCV",
        "sklearn.linear_model._stochastic_gradient.SGDClassifier",
        "sklearn.svm._classes.LinearSVC",
    }
)


def is_linear(estimator: Any) -> bool:
    """Whether its scores are a matrix product, as `linear_scores` has them."""
    return type_name(estimator) in _LINEAR and getattr(estimator, "loss", None) != "modified_huber"


def linear_scores(nodes: Nodes, estimator: Any, features: str, output: str) -> None:
    """Add the nodes that compute a linear classifier's scores.

    Parameters
    ----------
    nodes : Nodes
        Added to.
    estimator : object
        Fitted, with `coef_` and `intercept_`; see sklearn/linear_model/_base.py, `LinearClassifierMixin`.
    features : str
        A float64 matrix (n_rows, n_features).
    output : str
        Becomes float64 probabilities, or decision values where it has no `predict_proba`, (n_rows, n_classes).
    """
    coef = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64).reshape(-1), len(coef))
    if binary := len(estimator.classes_) == 2:
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    product = [features, nodes.constant(coef.T.copy()), nodes.constant(intercept.copy())]
    if not has_proba(estimator):
        nodes.add("Gemm", product, output)
        return
    scores = nodes.add("Gemm", product)
    # scikit-learn before 1.8: one against the rest where asked for, or where liblinear fitted it
    rest = getattr(estimator, "multi_class", None) == "ovr" or getattr(estimator, "solver", None) == "liblinear"
    rest = rest or type_name(estimator).endswith("SGDClassifier")
    if binary and getattr(estimator, "multi_class", None) != "multinomial":
        nodes.link("Sigmoid", scores, len(coef), output)
    elif rest:
        each = nodes.link("Sigmoid", scores, len(coef))
        total = nodes.add("ReduceSum", [each, nodes.constant(np.array([1]))])
        # where every one of them is 0, the classes share alike (`_predict_proba_lr`)
        none = nodes.add("Equal", [total, nodes.constant(0.0)])
        alike = nodes.constant(np.full((1, len(coef)), 1 / len(coef)))
        nodes.add("Where", [none, alike, nodes.add("Div", [each, total])], output)
    else:
        nodes.link("Softmax", scores, len(coef), output)
