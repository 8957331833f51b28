"""Every classifier of scikit-learn, alone."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from tests.zoo.case import CODES, THREE, TWO, Case, Fit, fitting, sk

GROUP = "Classifiers of scikit-learn"
#: Parameters that make an estimator small and the same each time, where it has them.
SMALL: dict[str, Any] = {"n_estimators": 12, "random_state": 0}
#: By class, what its constructor is given besides.
GIVEN: dict[str, dict[str, Any]] = {
    "GradientBoostingClassifier": {"max_depth": 2},
    "HistGradientBoostingClassifier": {"max_iter": 10, "min_samples_leaf": 5},
    "LogisticRegression": {"max_iter": 300},
    "LogisticRegressionCV": {"max_iter": 300, "Cs": 2, "cv": 2},
    "MLPClassifier": {"hidden_layer_sizes": (6,), "max_iter": 60},
    "NuSVC": {"nu": 0.1},
    "OutputCodeClassifier": {"random_state": 0},  # which has constant codes, as most have
    "QuadraticDiscriminantAnalysis": {"reg_param": 0.1},
    "RadiusNeighborsClassifier": {"radius": 3.0},
    "TunedThresholdClassifierCV": {"cv": 2},
}
#: Tables that each classifier is trained on with three classes, but for those below.
TABLES = ("numbers", "float32")
#: Classifiers that take no numbers below zero, or whole numbers alone.
ON: dict[str, str] = {"CategoricalNB": "counts", "ComplementNB": "positive", "MultinomialNB": "positive"}
#: What must be given another estimator.
AROUND = {
    "FixedThresholdClassifier", "OneVsOneClassifier", "OneVsRestClassifier", "OutputCodeClassifier",
    "SelfTrainingClassifier", "TunedThresholdClassifierCV",
}  # fmt: skip
TWO_ONLY = {"FixedThresholdClassifier", "TunedThresholdClassifierCV"}
#: -1 stands for "no label" to them.
CODES_ONLY = {"LabelPropagation", "LabelSpreading", "SelfTrainingClassifier"}


def every(type_filter: str) -> dict[str, type]:
    """scikit-learn's own list, those that it calls experimental included."""
    from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - IterativeImputer is not there without
    from sklearn.utils import all_estimators

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return dict(all_estimators(type_filter=type_filter))


def made(kind: type, **more: Any) -> Any:
    """A small estimator of a class."""
    if kind.__name__ in AROUND:
        return kind(sk("linear_model.LogisticRegression", max_iter=300), **GIVEN.get(kind.__name__, {}), **more)
    if kind.__name__ in ("StackingClassifier", "VotingClassifier"):
        members = [("linear", sk("linear_model.LogisticRegression", max_iter=300)),
                   ("tree", sk("tree.DecisionTreeClassifier", max_depth=3, random_state=0))]  # fmt: skip
        return kind(members, **more)
    plain = kind()
    small = {name: value for name, value in SMALL.items() if name in plain.get_params()}
    return plain.set_params(**{**small, **GIVEN.get(kind.__name__, {}), **more})


def _outputs(kind: type) -> Fit:
    """Several outputs at once: two questions with a yes or no each."""
    return lambda X, y: kind(sk("linear_model.LogisticRegression")).fit(X, np.column_stack([y > 0, y < 0]).astype(int))


def cases() -> Iterator[Case]:
    """Each on three classes, on float32, on a NumPy array of two classes, and with gaps where it takes them."""
    from sklearn.utils import get_tags

    for name, kind in every("classifier").items():
        if name in ("ClassifierChain", "MultiOutputClassifier"):
            yield Case(GROUP, name, _outputs(kind))
            continue
        fit, many = fitting(partial(made, kind)), CODES if name in CODES_ONLY else THREE
        tables = (ON[name],) if name in ON else TABLES
        if name not in TWO_ONLY:
            yield from (Case(GROUP, name, fit, table, many) for table in tables)
        two = (0, 1) if name in CODES_ONLY else TWO
        yield Case(GROUP, name, fit, ON.get(name, "NumPy array"), two)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if name not in TWO_ONLY and get_tags(made(kind)).input_tags.allow_nan and name not in AROUND:
                yield Case(GROUP, name, fit, "gaps", many)
