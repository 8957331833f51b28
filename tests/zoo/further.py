"""CatBoost, imbalanced-learn and InterpretML, from an environment of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.zoo.case import THREE, TWO, Case, Fit, fitting, forest, linear, sk

CATBOOST, IMBALANCED, INTERPRET = "CatBoost", "imbalanced-learn", "InterpretML"
_ENSEMBLES = (
    "BalancedBaggingClassifier", "BalancedRandomForestClassifier", "EasyEnsembleClassifier", "RUSBoostClassifier",
)  # fmt: skip
#: By heading, the package that its models need.
PACKAGES = {CATBOOST: "catboost", IMBALANCED: "imblearn", INTERPRET: "interpret"}


def catboost(**options: Any) -> Any:
    """A small classifier of CatBoost."""
    from catboost import CatBoostClassifier

    small = {"iterations": 12, "depth": 3, "random_seed": 0, "verbose": False, "thread_count": 1}
    return CatBoostClassifier(**{**small, "allow_writing_files": False, **options})


def _categories(X: Any, y: Any) -> Any:
    return catboost(cat_features=["venue", "hour"]).fit(X, y)


def _sampled(sampler: str, last: Any) -> Fit:
    """A Pipeline of imbalanced-learn's own, whose sampler works only when it is fitted."""

    def fit(X: Any, y: Any) -> Any:
        from imblearn import over_sampling, pipeline, under_sampling

        kind = getattr(over_sampling, sampler, None) or getattr(under_sampling, sampler)
        return pipeline.make_pipeline(sk("preprocessing.StandardScaler"), kind(random_state=0), last()).fit(X, y)

    return fit


def _imbalanced(name: str, **options: Any) -> Fit:
    def fit(X: Any, y: Any) -> Any:
        from imblearn import ensemble

        return getattr(ensemble, name)(n_estimators=6, random_state=0, **options).fit(X, y)

    return fit


def _boosting_machine(**options: Any) -> Fit:
    def fit(X: Any, y: Any) -> Any:
        from interpret.glassbox import ExplainableBoostingClassifier

        small = {"max_rounds": 20, "outer_bags": 2, "interactions": 2, "random_state": 0, "n_jobs": 1}
        return ExplainableBoostingClassifier(**{**small, **options}).fit(X, y)

    return fit


def _glass_box(name: str) -> Fit:
    def fit(X: Any, y: Any) -> Any:
        from interpret import glassbox

        return getattr(glassbox, name)().fit(X, y)

    return fit


def cases() -> Iterator[Case]:
    """What is installed here is up to who asks: `PACKAGES` says what each heading needs."""
    for on in ("numbers", "float32", "NumPy array", "gaps"):
        yield Case(CATBOOST, "CatBoostClassifier", fitting(catboost), on)
    yield Case(CATBOOST, "CatBoostClassifier", fitting(catboost), classes=TWO)
    yield Case(CATBOOST, "CatBoostClassifier(cat_features=…)", _categories, "categories")
    for options in (
        {"boosting_type": "Ordered"}, {"grow_policy": "Lossguide"}, {"loss_function": "MultiClassOneVsAll"},
        {"auto_class_weights": "Balanced"},
    ):  # fmt: skip
        name = ", ".join(f"{option}={value}" for option, value in options.items())
        yield Case(CATBOOST, f"CatBoostClassifier({name})", fitting(lambda o=options: catboost(**o)))
    yield Case(
        CATBOOST,
        "Calibrated(CatBoost, isotonic)",
        fitting(lambda: sk("calibration.CalibratedClassifierCV", catboost(), method="isotonic", cv=2)),
    )
    for sampler, last in (("SMOTE", forest), ("SMOTE", linear), ("RandomUnderSampler", forest)):
        name = f"imblearn Pipeline(StandardScaler, {sampler}, {type(last()).__name__})"
        yield Case(IMBALANCED, name, _sampled(sampler, last), classes=THREE)
    for name in _ENSEMBLES:
        yield Case(IMBALANCED, name, _imbalanced(name))
        yield Case(IMBALANCED, name, _imbalanced(name), classes=TWO)
    for on in ("numbers", "gaps", "text and numbers"):
        yield Case(INTERPRET, "ExplainableBoostingClassifier", _boosting_machine(interactions=0), on)
    yield Case(INTERPRET, "ExplainableBoostingClassifier", _boosting_machine(), classes=TWO)
    for name in ("LogisticRegression", "ClassificationTree"):
        yield Case(INTERPRET, f"interpret.glassbox.{name}", _glass_box(name), classes=TWO)
