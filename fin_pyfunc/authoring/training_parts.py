"""A fitted estimator without what only training needs: searches, scorers, splitters, caches, samplers.

None of them is asked for a prediction, and most hold functions, which no server reads from a file without a pickle.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import MethodType
from typing import Any

import numpy as np

from fin_pyfunc.model.backends.native import may_hold_parts
from fin_pyfunc.model.parts import qualified_name
from fin_pyfunc.model.splines import spline_arrays

#: Libraries whose estimators are known to read none of `_TRAINING` when they predict.
LIBRARIES = frozenset({"imblearn", "lightgbm", "sklearn", "xgboost"})
#: Parameters and attributes that only `fit` and `score` read. Those that are plain values, such as cv=5, stay.
_TRAINING = frozenset(
    {
        "_scorer",
        "callbacks",
        "cv",
        "eval_metric",
        "memory",
        "oob_score",
        "optimizer",
        "score_func",
        "scorer_",
        "scoring",
    }
)
_PLAIN = (str, bool, int, float, np.generic)
_COLUMNS = "sklearn.compose._column_transformer.ColumnTransformer"
_SPLINES = "sklearn.preprocessing._polynomial.SplineTransformer"
_ELIMINATION = frozenset({"sklearn.feature_selection._rfe.RFE", "sklearn.feature_selection._rfe.RFECV"})


def without_training_parts(estimator: Any) -> Any:
    """Copy a fitted estimator as far as it is needed to predict.

    Parameters
    ----------
    estimator : object
        It is not modified. Arrays and trees are shared with the copy.

    Returns
    -------
    object
        It answers as the estimator does. A search is its `best_estimator_`, a tuned threshold a
        `FixedThresholdClassifier`, and imbalanced-learn's Pipeline one of scikit-learn's without the samplers.
    """
    return _Copy().of(estimator)


def is_search(part: Any) -> bool:
    """Whether an estimator is a search that answers as its `best_estimator_` does, of scikit-learn or derived."""
    from sklearn.model_selection._search import BaseSearchCV

    if not isinstance(part, BaseSearchCV):
        return False
    derived = type(part).__mro__[: type(part).__mro__.index(BaseSearchCV)]
    return not any(name in vars(kind) for kind in derived for name in ("predict", "predict_proba", "classes_"))


class _Copy:
    def __init__(self) -> None:
        #: by address: the original, which must stay at it, and what stands for it
        self._made: dict[int, tuple[Any, Any]] = {}

    def of(self, part: Any) -> Any:
        """What stands for a part in the copy: itself where nothing of it is left out."""
        if part is None or isinstance(part, str | bytes | bool | int | float | type | np.generic):
            return part
        if id(part) in self._made:
            return self._made[id(part)][1]
        if isinstance(part, np.ndarray):
            return self._array(part) if part.dtype == object else part
        if isinstance(part, dict):
            return self._dict(part)
        if isinstance(part, list | tuple):
            return self._sequence(part)
        makes: Any = type(part).__new__
        if makes is not object.__new__ or not hasattr(part, "__dict__") or not may_hold_parts(part):
            return part  # the first is true of compiled classes, such as KDTree
        stand_in = _STAND_INS.get(qualified_name(type(part)), _search if is_search(part) else None)
        made = object.__new__(type(part)) if stand_in is None else stand_in(part, self.of)
        self._made[id(part)] = part, made
        if stand_in is None:
            own = {name: value for name, value in vars(part).items() if not _is_own_method(part, name, value)}
            vars(made).update({name: self._attribute(part, name, value) for name, value in own.items()})
        return made

    def _attribute(self, part: Any, name: str, value: Any) -> Any:
        kind, is_left_out = qualified_name(type(part)), name == "memory" or not isinstance(value, _PLAIN)
        if name in _TRAINING and is_left_out and type(part).__module__.partition(".")[0] in LIBRARIES:
            return None
        if name == "importance_getter" and callable(value) and kind in _ELIMINATION:
            return "auto"  # what it chose is in support_
        if name == "importance_getter" and isinstance(value, str):
            return value.removeprefix("best_estimator_.") if is_search(vars(part).get("estimator_")) else value
        if name == "transformers" and kind == _COLUMNS:
            value = _with_columns(value, vars(part).get("_columns"))
        if name == "bsplines_" and kind == _SPLINES:
            return [spline_arrays(spline) for spline in value]
        return self.of(value)

    def _array(self, part: Any) -> Any:
        old = part.ravel().tolist()
        new = [self.of(value) for value in old]
        if all(a is b for a, b in zip(old, new, strict=True)):
            return part
        made = np.empty(len(new), dtype=object)
        for i, value in enumerate(new):  # NumPy would take a list of lists apart
            made[i] = value
        return made.reshape(part.shape)

    def _dict(self, part: dict[Any, Any]) -> dict[Any, Any]:
        changed = {key: new for key, value in part.items() if (new := self.of(value)) is not value}
        if not changed:
            return part
        made = copy.copy(part)
        made.update(changed)
        return made

    def _sequence(self, part: Any) -> Any:
        new = [self.of(value) for value in part]
        if all(a is b for a, b in zip(part, new, strict=True)):
            return part
        if isinstance(part, list):
            return new
        return type(part)(*new) if hasattr(part, "_fields") else tuple(new)


def _is_own_method(part: Any, name: str, value: Any) -> bool:
    """Whether an attribute is what the class has under its name: HistGradientBoosting leaves one behind."""
    is_bound = isinstance(value, MethodType) and value.__self__ is part
    return is_bound and value.__func__ is getattr(type(part), name, None)


def _search(search: Any, of: Callable[[Any], Any]) -> Any:
    """An unfitted one is a parameter that its owner has copied and fitted: of that the kind is enough."""
    return of(vars(search).get("best_estimator_", search.estimator))


def _tuned_threshold(tuned: Any, of: Callable[[Any], Any]) -> Any:
    from sklearn.model_selection import FixedThresholdClassifier

    if "best_threshold_" not in vars(tuned):
        return of(tuned.estimator)
    fitted = of(tuned.estimator_)
    made = FixedThresholdClassifier(
        fitted,
        threshold=float(tuned.best_threshold_),
        pos_label=tuned._curve_scorer._get_pos_label(),  # as its own predict asks for it
        response_method=tuned.response_method,
    )
    made.estimator_ = fitted
    for name in ("n_features_in_", "feature_names_in_"):
        if name in vars(tuned):
            setattr(made, name, vars(tuned)[name])
    return made


def _resampled(pipeline: Any, of: Callable[[Any], Any]) -> Any:
    from sklearn.pipeline import Pipeline

    # its predict passes by every step that has fit_resample
    steps = [(name, of(step)) for name, step in pipeline.steps if not hasattr(step, "fit_resample")]
    return Pipeline(steps)


#: By class, what makes another estimator that answers the same.
_STAND_INS: dict[str, Callable[[Any, Callable[[Any], Any]], Any]] = {
    "imblearn.pipeline.Pipeline": _resampled,
    "sklearn.model_selection._classification_threshold.TunedThresholdClassifierCV": _tuned_threshold,
}


def _with_columns(transformers: Any, chosen: Any) -> Any:
    """Transformers with the columns that a function chose when they were fitted, in place of the function."""
    if not isinstance(transformers, list):
        return transformers
    chosen = [[]] * len(transformers) if chosen is None else chosen
    return [
        (name, step, known if callable(columns) else columns)
        for (name, step, columns), known in zip(transformers, chosen, strict=True)
    ]
