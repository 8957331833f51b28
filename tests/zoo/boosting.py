"""LightGBM and XGBoost with the options that people set."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.zoo.case import CODES, THREE, TWO, Case, Fit, fitting, linear, piped, sk

LIGHTGBM, XGBOOST = "LightGBM", "XGBoost"
_VALIDATION = slice(160, None)


def lightgbm(**options: Any) -> Any:
    """A small classifier of LightGBM."""
    from lightgbm import LGBMClassifier

    return LGBMClassifier(
        **{"n_estimators": 10, "min_child_samples": 5, "random_state": 0, "n_jobs": 1, "verbose": -1, **options}
    )


def xgboost(**options: Any) -> Any:
    """A small classifier of XGBoost."""
    from xgboost import XGBClassifier

    return XGBClassifier(**{"n_estimators": 10, "max_depth": 3, "random_state": 0, "n_jobs": 1, **options})


def _parted(X: Any, y: Any) -> tuple[Any, Any, Any, Any]:
    return X[: _VALIDATION.start], y[: _VALIDATION.start], X[_VALIDATION], y[_VALIDATION]


def _stopped_lightgbm(X: Any, y: Any) -> Any:
    import lightgbm as lgb

    X, y, X_valid, y_valid = _parted(X, y)
    stop = [lgb.early_stopping(3, verbose=False)]
    return lightgbm(n_estimators=60).fit(X, y, eval_set=[(X_valid, y_valid)], callbacks=stop)


def _stopped_xgboost(X: Any, y: Any) -> Any:
    X, y, X_valid, y_valid = _parted(X, y)
    model = xgboost(n_estimators=60, early_stopping_rounds=3)
    return model.fit(X, y, eval_set=[(X_valid, y_valid)], verbose=False)


def _raw_lightgbm(X: Any, y: Any) -> Any:
    import lightgbm as lgb

    return lgb.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lgb.Dataset(X, y == "up"), 5)


def _raw_xgboost(X: Any, y: Any) -> Any:
    import xgboost as xgb

    return xgb.train({"objective": "binary:logistic", "nthread": 1}, xgb.DMatrix(X, y == "up"), 5)


def _own_loss(y: Any, raw: Any) -> tuple[Any, Any]:
    p = 1 / (1 + np.exp(-raw))
    return p - y, p * (1 - p)


def _continued(X: Any, y: Any) -> Any:
    first = lightgbm(n_estimators=5).fit(X, y)
    return lightgbm(n_estimators=5).fit(X, y, init_model=first)


def _sentinel(X: Any, y: Any) -> Any:
    """-999 for what is missing."""
    return xgboost(missing=-999.0).fit(X, y)


def _balanced(X: Any, y: Any) -> Any:
    from sklearn.utils.class_weight import compute_sample_weight

    return xgboost().fit(X, y, sample_weight=compute_sample_weight("balanced", y))


def cases() -> Iterator[Case]:
    """Both, option by option."""
    yield from _lightgbm_cases()
    yield from _xgboost_cases()


def _lightgbm_cases() -> Iterator[Case]:
    def case(name: str, on: str = "numbers", classes: Any = THREE, **options: Any) -> Case:
        return Case(LIGHTGBM, name, fitting(lambda: lightgbm(**options)), on, classes)

    for on in ("numbers", "float32", "NumPy array", "gaps", "counts", "categories", "nullable dtypes"):
        yield case("LGBMClassifier", on)
    yield case("LGBMClassifier", classes=TWO)
    yield case("LGBMClassifier", "ordered category", TWO)
    for options in (
        {"boosting_type": "dart"},
        {"boosting_type": "rf", "subsample": 0.7, "subsample_freq": 1},
        {"data_sample_strategy": "goss"},
        {"extra_trees": True},
        {"linear_tree": True},
        {"objective": "multiclassova"},
        {"zero_as_missing": True},
        {"use_missing": False},
        {"max_bin": 8},
        {"class_weight": "balanced"},
        {"colsample_bytree": 0.6, "reg_alpha": 0.1, "reg_lambda": 1.0},
        {"use_quantized_grad": True},
        {"path_smooth": 10},
    ):
        yield case(_named("LGBMClassifier", options), "gaps", **options)
    yield case("LGBMClassifier(boosting_type=dart)", classes=TWO, boosting_type="dart")
    yield case("LGBMClassifier(linear_tree=True)", classes=TWO, linear_tree=True)
    yield case("LGBMClassifier(monotone_constraints=…)", classes=TWO, monotone_constraints=[0, 0, 1, 1, 0])
    yield case("LGBMClassifier(is_unbalance=True)", classes=TWO, is_unbalance=True)
    yield case("LGBMClassifier(scale_pos_weight=3)", classes=(0, 1), scale_pos_weight=3.0)
    yield case("LGBMClassifier(objective=cross_entropy)", classes=(0, 1), objective="cross_entropy")
    yield case("LGBMClassifier(sigmoid=2)", classes=(0, 1), sigmoid=2.0)
    yield case("LGBMClassifier(objective=a function)", classes=(0, 1), objective=_own_loss)
    yield Case(LIGHTGBM, "LGBMClassifier, early stopping", _stopped_lightgbm, classes=THREE)
    yield Case(LIGHTGBM, "LGBMClassifier, early stopping", _stopped_lightgbm, classes=TWO)
    yield Case(LIGHTGBM, "LGBMClassifier, continued (init_model)", _continued)
    yield from (Case(LIGHTGBM, name, fit, on, classes) for name, fit, on, classes in _around(lightgbm))
    yield Case(LIGHTGBM, "a raw Booster (lgb.train)", _raw_lightgbm, classes=TWO)
    yield Case(LIGHTGBM, "a raw Booster (lgb.train), classes=[…]", _raw_lightgbm, "numbers", TWO,
               {"classes": ["down", "up"]})  # fmt: skip
    yield Case(LIGHTGBM, "LGBMRanker, LGBMRegressor", _regressor("lightgbm", "LGBMRegressor"), classes=(0, 1))


def _xgboost_cases() -> Iterator[Case]:
    def case(name: str, on: str = "numbers", classes: Any = CODES, **options: Any) -> Case:
        return Case(XGBOOST, name, fitting(lambda: xgboost(**options)), on, classes)

    for on in ("numbers", "float32", "NumPy array", "gaps", "counts", "nullable dtypes"):
        yield case("XGBClassifier", on)
    yield case("XGBClassifier", classes=(0, 1))
    for options in (
        {"booster": "dart", "rate_drop": 0.3},
        {"booster": "gblinear"},
        {"tree_method": "exact"},
        {"tree_method": "approx"},
        {"grow_policy": "lossguide", "max_leaves": 6},
        {"max_bin": 8},
        {"num_parallel_tree": 3},
        {"multi_strategy": "multi_output_tree"},
        {"subsample": 0.7, "colsample_bynode": 0.7},
        {"reg_alpha": 0.5, "gamma": 0.5},
    ):
        yield case(_named("XGBClassifier", options), "numbers" if "gblinear" in options.values() else "gaps", **options)
    yield case("XGBClassifier(booster=dart)", classes=(0, 1), booster="dart", rate_drop=0.3)
    yield case("XGBClassifier(booster=gblinear)", classes=(0, 1), booster="gblinear")
    yield case("XGBClassifier(monotone_constraints=…)", classes=(0, 1), monotone_constraints=(0, 0, 1, 1, 0))
    yield case(
        "XGBClassifier(interaction_constraints=…)",
        interaction_constraints=[["bid", "spread"], ["imbalance", "volatility"]],
    )
    yield case("XGBClassifier(scale_pos_weight=3)", classes=(0, 1), scale_pos_weight=3)
    yield case("XGBClassifier(base_score=0.3)", classes=(0, 1), base_score=0.3)
    yield case("XGBClassifier(enable_categorical=True)", "categories", enable_categorical=True)
    yield case(
        "XGBClassifier(enable_categorical=True)", "categories", (0, 1), enable_categorical=True, max_cat_to_onehot=2
    )
    for objective in ("binary:logitraw", "binary:hinge", "reg:logistic", "count:poisson"):
        yield case(f"XGBClassifier(objective={objective})", classes=(0, 1), objective=objective)
    yield case("XGBClassifier(objective=multi:softmax)", objective="multi:softmax")
    yield case("XGBClassifier(objective=a function)", classes=(0, 1), objective=_own_loss)
    yield Case(XGBOOST, "XGBClassifier(missing=-999)", _sentinel, "gaps as -999", CODES)
    yield Case(XGBOOST, "XGBClassifier, early stopping", _stopped_xgboost, classes=CODES)
    yield Case(XGBOOST, "XGBClassifier, early stopping", _stopped_xgboost, classes=(0, 1))
    yield Case(XGBOOST, "XGBClassifier, balanced sample weights", _balanced, classes=CODES)
    yield Case(XGBOOST, "XGBClassifier, classes=[-1, 0, 1]", fitting(xgboost), "gaps", CODES, {"classes": [-1, 0, 1]})
    yield Case(XGBOOST, "XGBRFClassifier", fitting(_forest_of_xgboost), classes=CODES)
    yield Case(XGBOOST, "XGBRFClassifier", fitting(_forest_of_xgboost), "gaps", (0, 1))
    yield from (Case(XGBOOST, name, fit, on, classes) for name, fit, on, classes in _around(xgboost, CODES))
    yield Case(XGBOOST, "a raw Booster (xgb.train)", _raw_xgboost, classes=TWO)
    yield Case(XGBOOST, "XGBRanker, XGBRegressor", _regressor("xgboost", "XGBRegressor"), classes=(0, 1))


def _around(make: Any, classes: Any = THREE) -> Iterator[tuple[str, Fit, str, Any]]:
    """Within what people put around a booster."""
    name = type(make()).__name__
    yield (
        f"StandardScaler, {name}",
        fitting(lambda: piped(sk("preprocessing.StandardScaler"), make())),
        "numbers",
        classes,
    )
    yield f"SimpleImputer, {name}", fitting(lambda: piped(sk("impute.SimpleImputer"), make())), "gaps", classes
    yield (
        f"ColumnTransformer(one-hot), {name}",
        fitting(lambda: piped(_one_hot(), make())),
        "text and numbers",
        classes,
    )
    yield (
        f"Calibrated({name}, isotonic)",
        fitting(lambda: sk("calibration.CalibratedClassifierCV", make(), method="isotonic", cv=2)),
        "numbers",
        classes,
    )
    yield (f"Voting(soft, {name}, LogisticRegression)",
           fitting(lambda: sk("ensemble.VotingClassifier", [("b", make()), ("l", linear())], voting="soft")),
           "numbers", classes)  # fmt: skip
    yield (
        f"Stacking({name}, LogisticRegression)",
        fitting(lambda: sk("ensemble.StackingClassifier", [("b", make()), ("l", linear())], cv=2)),
        "numbers",
        classes,
    )
    yield (
        f"GridSearchCV({name})",
        fitting(lambda: sk("model_selection.GridSearchCV", make(), {"max_depth": [2, 3]}, cv=2)),
        "numbers",
        classes,
    )
    yield (f"OneVsRest({name})", fitting(lambda: sk("multiclass.OneVsRestClassifier", make())), "numbers", classes)


def _one_hot() -> Any:
    text = sk("preprocessing.OneHotEncoder", handle_unknown="ignore", sparse_output=False)
    return sk("compose.ColumnTransformer", [("text", text, ["venue", "broker"])], remainder="passthrough")


def _forest_of_xgboost() -> Any:
    from xgboost import XGBRFClassifier

    return XGBRFClassifier(n_estimators=8, max_depth=3, random_state=0, n_jobs=1)


def _regressor(module: str, name: str) -> Fit:
    return lambda X, y: getattr(__import__(module), name)(n_estimators=3, n_jobs=1).fit(X, y)


def _named(name: str, options: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{option}={value}' for option, value in options.items())})"
