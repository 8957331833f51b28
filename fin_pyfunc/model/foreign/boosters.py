"""Models of LightGBM, XGBoost and CatBoost as these libraries keep them: classes, and types of features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec, rewritten
from fin_pyfunc.model.foreign.features import features_by_position

_CATEGORIES_UNKNOWN = (
    "The model was trained on columns of pandas' dtype category, and its file does not say which categories they had "
    "({}): log it with fin_pyfunc.log_model."
)
#: XGBoost's objectives whose prediction is a probability, or one a class.
_XGBOOST_OBJECTIVES = ("binary:logistic", "multi:softprob", "multi:softmax")


class BoosterClassifier:
    """A raw booster as a classifier; its classes are 0, 1, …, as the booster counts them.

    Parameters
    ----------
    booster : object
    probabilities : callable
        DataFrame of shape (n_rows, n_features) -> ndarray of shape (n_rows,) or (n_rows, n_classes).
    n_classes : int
    """

    def __init__(self, booster: Any, probabilities: Callable[[Any, pd.DataFrame], Any], n_classes: int) -> None:
        self.booster, self._probabilities = booster, probabilities
        self.classes_ = np.arange(n_classes)

    def predict_proba(self, X: pd.DataFrame) -> np.ndarray[Any, Any]:
        """Probabilities, of shape (n_rows, n_classes)."""
        p = np.asarray(self._probabilities(self.booster, X), dtype=np.float64)
        return np.column_stack([1 - p, p]) if p.ndim == 1 else p

    def predict(self, X: pd.DataFrame) -> np.ndarray[Any, Any]:
        """The class of the greatest probability."""
        return np.asarray(self.predict_proba(X).argmax(axis=1))


class CatBoostLabels:
    """A CatBoostClassifier whose answers are labels as it was trained on them, and which takes 3.0 for a category 3.

    Parameters
    ----------
    model : catboost.CatBoostClassifier
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.classes_ = np.asarray(model.classes_)
        self._categories = [int(i) for i in model.get_cat_feature_indices()]
        self._by_text = {str(label): label for label in self.classes_.tolist()}

    def predict_proba(self, X: Any) -> np.ndarray[Any, Any]:
        """Probabilities, of shape (n_rows, n_classes)."""
        return np.asarray(self.model.predict_proba(self._prepared(X)))

    def predict(self, X: Any) -> list[Any]:
        """One label a row; CatBoost answers text where it was trained on booleans."""
        found = np.asarray(self.model.predict(self._prepared(X))).reshape(-1).tolist()
        return [self._by_text.get(str(label), label) for label in found]

    def _prepared(self, X: Any) -> Any:
        frame = pd.DataFrame(X)
        whole = {}
        for i in self._categories:
            name, column = frame.columns[i], frame.iloc[:, i]
            if column.dtype.kind == "f" and (column == np.floor(column)).all():
                whole[name] = column.astype("int64")
            elif column.dtype.kind not in "iu":
                whole[name] = column.astype(object)
        return frame.assign(**whole) if whole else frame


def adapted(raw: Any) -> Any:
    """A raw model as a classifier with scikit-learn's interface; the model itself where it needs no adapting.

    Raises
    ------
    ArtifactError
        It is known to be no classifier.
    """
    kind = f"{type(raw).__module__.partition('.')[0]}.{type(raw).__name__}"
    if kind == "lightgbm.Booster":
        return _adapted_lightgbm(raw)
    if kind == "xgboost.Booster":
        return _adapted_xgboost(raw)
    if kind.startswith("catboost."):
        return _adapted_catboost(raw)
    return raw


def no_classifier(kind: str) -> ArtifactError:
    """The refusal of a model that is no classifier."""
    return ArtifactError(
        f"{kind} is not a classifier, and this server answers for classifiers: serve regressors and transformers with "
        "'mlflow models serve'."
    )


def features_of_booster(estimator: Any, signed: FeatureSpec | None) -> FeatureSpec | None:
    """What a model of these libraries knows of its features: names, numbers and categories; None for any other model.

    Raises
    ------
    ArtifactError
        It has categories, and which ones cannot be told.
    """
    if isinstance(estimator, CatBoostLabels):
        return _features_of_catboost(estimator.model)
    is_raw = isinstance(estimator, BoosterClassifier)
    held = estimator.booster if isinstance(estimator, BoosterClassifier) else estimator
    library = type(held).__module__.partition(".")[0]
    if library == "lightgbm":
        return _features_of_lightgbm(held if is_raw else held.booster_, signed)
    if library == "xgboost":
        return _features_of_xgboost(held if is_raw else held.get_booster())
    return None


def _features(names: Sequence[str] | None, width: int, categories: dict[int, list[Any]]) -> FeatureSpec:
    """Features that are numbers, which may be null, but for those with categories."""
    if names is None and not categories:
        return features_by_position(width, "number")
    features = [
        Feature(name=name, kind="category", dtype="category", nullable=True, categories=categories[i])
        if i in categories
        else Feature(name=name, kind="number", dtype="float64", nullable=True)
        for i, name in enumerate(names or [str(i) for i in range(width)])
    ]
    return FeatureSpec(features=features, naming="exact" if names is not None else "positions")


def _checked_categories(found: dict[int, list[Any]]) -> dict[int, list[Any]]:
    for values in found.values():
        if not all(isinstance(value, str | int | float | bool) for value in values):
            raise ArtifactError(_CATEGORIES_UNKNOWN.format("they are neither text nor numbers"))
    return found


def _adapted_lightgbm(booster: Any) -> BoosterClassifier:
    name = str(booster.params.get("objective", "")).partition(" ")[0]
    if name in ("binary", "cross_entropy") or name in ("multiclass", "multiclassova"):
        width = 2 if name in ("binary", "cross_entropy") else int(booster.params.get("num_class", 0))
        if name != "cross_entropy" and width > 1:
            return BoosterClassifier(booster, _lightgbm_probabilities, width)
    raise no_classifier(f"A LightGBM Booster of the objective {name or 'custom'!r}")


def _lightgbm_probabilities(booster: Any, X: pd.DataFrame) -> Any:
    return booster.predict(X)


def _features_of_lightgbm(booster: Any, signed: FeatureSpec | None) -> FeatureSpec:
    names, width = list(booster.feature_name()), int(booster.num_feature())
    known = booster.pandas_categorical or []
    declared = _lightgbm_declared(booster)
    if known and len(declared) != len(known) and signed is not None:
        texts = {rewritten(feature.name) for feature in signed.features if feature.kind == "string"}
        declared = [i for i, name in enumerate(names) if name in texts]
    if len(declared) != len(known) and known:
        raise ArtifactError(_CATEGORIES_UNKNOWN.format("nor which columns are such"))
    categories = _checked_categories(dict(zip(declared, known, strict=True)) if known else {})
    if names == [f"Column_{i}" for i in range(width)] and not known:  # as LightGBM names the columns of an array
        return features_by_position(width, "number")
    spec = _features(names, width, categories)
    return FeatureSpec(features=spec.features, naming="blanks")


def _lightgbm_declared(booster: Any) -> list[int]:
    """Positions of the features that LightGBM takes for categories."""
    declared = booster.params.get("categorical_feature", booster.params.get("categorical_column", []))
    if not isinstance(declared, list) or not all(isinstance(i, int) for i in declared):  # of a Booster just trained
        text = booster.model_to_string(num_iteration=1)
        line = next((line for line in text.splitlines() if line.startswith("[categorical_feature: ")), "")
        numbers = line.removeprefix("[categorical_feature: ").removesuffix("]")
        declared = [int(number) for number in numbers.split(",") if number.strip().isdigit()]
    return sorted(declared)


def _adapted_xgboost(booster: Any) -> BoosterClassifier:
    import json

    learner = json.loads(booster.save_config())["learner"]
    name = learner["objective"]["name"]
    if name not in _XGBOOST_OBJECTIVES:
        raise no_classifier(f"An XGBoost Booster of the objective {name!r}")
    width = max(2, int(learner["learner_model_param"]["num_class"]))
    return BoosterClassifier(booster, _xgboost_probabilities, width)


def _xgboost_probabilities(booster: Any, X: pd.DataFrame) -> Any:
    from xgboost import DMatrix

    named = booster.feature_names is not None
    has_categories = "c" in (booster.feature_types or ())
    matrix = DMatrix(X if named or has_categories else X.to_numpy(), enable_categorical=has_categories)
    p = booster.predict(matrix)
    if p.ndim == 1 and len(X) and _is_softmax(booster):
        # the class alone, where "multi:softmax" is asked; the same trees have the margins
        margins = booster.predict(matrix, output_margin=True)
        p = np.exp(margins - margins.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
    return p


def _is_softmax(booster: Any) -> bool:
    return '"multi:softmax"' in booster.save_config()


def _features_of_xgboost(booster: Any) -> FeatureSpec:
    names, types, width = booster.feature_names, booster.feature_types or [], int(booster.num_features())
    positions = [i for i, kind in enumerate(types) if kind == "c"]
    categories: dict[int, list[Any]] = {}
    if positions:
        categories = _xgboost_categories(booster, positions, list(names or range(width)))
    return _features(None if names is None else list(names), width, _checked_categories(categories))


def _xgboost_categories(booster: Any, positions: Sequence[int], names: Sequence[Any]) -> dict[int, list[Any]]:
    """The categories that XGBoost 3.1 and later keeps; older ones kept codes alone."""
    try:
        arrow = dict(booster.get_categories(export_to_arrow=True).to_arrow())
    except (AttributeError, TypeError, ValueError, ImportError):
        arrow = {}
    found = {}
    for i in positions:
        values = arrow.get(names[i], arrow.get(str(names[i])))
        if values is None:
            raise ArtifactError(_CATEGORIES_UNKNOWN.format("XGBoost keeps them from 3.1 on"))
        found[i] = values.to_pylist()
    return found


def _adapted_catboost(model: Any) -> Any:
    classes = getattr(model, "classes_", None)
    if classes is None or len(classes) < 2 or not callable(getattr(model, "predict_proba", None)):
        raise no_classifier(type(model).__name__)
    return CatBoostLabels(model)


def _features_of_catboost(model: Any) -> FeatureSpec:
    names, categories = list(model.feature_names_), set(model.get_cat_feature_indices())
    texts = set(model.get_text_feature_indices())
    is_named = names != [str(i) for i in range(len(names))]  # as CatBoost names the columns of an array
    features = [
        Feature(name=name, kind="any", dtype="object")
        if i in categories or i in texts
        else Feature(name=name, kind="number", dtype="float64", nullable=True)
        for i, name in enumerate(names)
    ]
    return FeatureSpec(features=features, naming="exact" if is_named else "positions")
