"""SVC and NuSVC without probabilities (sklearn/svm/_base.py)."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Value
from fin_pyfunc.model.form import LEAST_BAND
from fin_pyfunc.model.program.kernels import KernelMachine
from fin_pyfunc.model.program.votes import Pairs

if TYPE_CHECKING:
    from fin_pyfunc.compiling.program.classifiers import Answers


def support_vector_decisions(answers: Answers, estimator: Any, value: Value) -> Value:
    """Add decision values: of each pair of classes how sure it is of the second, and votes of these for each class."""
    k = len(estimator.classes_)
    if not isinstance(estimator.kernel, str) or estimator.kernel == "precomputed":
        raise NotCompilable(f"the {type(estimator).__name__} has a kernel of your own")
    if k > 2 and estimator.decision_function_shape != "ovr":
        raise NotCompilable(f"the {type(estimator).__name__} answers decision values that are not one a class")
    vectors, dual = estimator.support_vectors_, estimator._dual_coef_
    vectors, dual = (np.asarray(of.toarray() if hasattr(of, "toarray") else of, dtype=float) for of in (vectors, dual))
    # libsvm lays the vectors out by class, and each has a coefficient for every other class
    owner = np.repeat(np.arange(k), estimator._n_support)
    coef = np.zeros((len(vectors), k * (k - 1) // 2))
    for at, (i, j) in enumerate(combinations(range(k), 2)):
        for of, row in ((i, j - 1), (j, i)):
            coef[owner == of, at] = dual[row, owner == of]
    node = KernelMachine(
        kernel=estimator.kernel,
        vectors=np.ascontiguousarray(vectors),
        coef=-coef,
        intercept=-np.asarray(estimator._intercept_, dtype=np.float64),
        gamma=float(estimator._gamma),
        coef0=float(estimator.coef0),
        degree=int(estimator.degree),
    )
    made = answers.builder.add(node, value)
    if k == 2:
        return made
    # predict is the first class with the most votes, unless told to break ties as decision values do
    return answers.builder.add(Pairs(n_classes=k, margin=LEAST_BAND, refuses_ties=not estimator.break_ties), made)
