"""The classifier at the end."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.boosted_form import boosted_trees, is_boosted
from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import type_name
from fin_pyfunc.compiling.linear import is_linear
from fin_pyfunc.compiling.program.classifier_input import classifier_input
from fin_pyfunc.compiling.program.requirements import require_input
from fin_pyfunc.compiling.program.values import Builder, Value
from fin_pyfunc.model.backends.native import has_proba
from fin_pyfunc.model.boosted_file import written
from fin_pyfunc.model.program.classifiers import Linear, TreeEnsemble


def classifier(builder: Builder, estimator: Any, value: Value) -> Value:
    """Add a classifier; what it makes are its probabilities, or its decision values where it has none.

    Raises
    ------
    NotCompilable
    """
    value = classifier_input(builder, estimator, value)
    require_input(builder, estimator, value)
    if is_boosted(estimator):
        trees = boosted_trees(estimator, value.width, single=False)
        return builder.add(TreeEnsemble(content=written(trees), n_classes=len(estimator.classes_)), value)
    if is_linear(estimator):
        return builder.add(_linear(estimator), value)
    raise NotCompilable(f"the classifier ({type(estimator).__name__}) is not compiled behind such steps")


def _linear(estimator: Any) -> Linear:
    # sklearn/linear_model/_base.py, LinearClassifierMixin; the rest as `linear_scores` has it for a graph
    coef = np.atleast_2d(np.asarray(estimator.coef_, dtype=np.float64))
    intercept = np.broadcast_to(np.asarray(estimator.intercept_, dtype=np.float64).reshape(-1), len(coef)).copy()
    is_binary = len(estimator.classes_) == 2
    if not has_proba(estimator):
        if is_binary:
            coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
        return Linear(coef=coef, intercept=intercept, link="none")
    rest = getattr(estimator, "multi_class", None) == "ovr" or getattr(estimator, "solver", None) == "liblinear"
    if is_binary and getattr(estimator, "multi_class", None) != "multinomial":
        return Linear(coef=coef, intercept=intercept, link="sigmoid")
    if is_binary:
        coef, intercept = np.vstack([-coef, coef]), np.concatenate([-intercept, intercept])
    link = "rest" if rest or type_name(estimator).endswith("SGDClassifier") else "softmax"
    return Linear(coef=coef, intercept=intercept, link=link)
