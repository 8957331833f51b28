"""What an estimator's encoders and imputers know of its features: values that they take, texts that they compare with.

Found by a walk through the fitted estimator, step by step, with the names of the columns that each step gets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd

from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.codes import can_code
from fin_pyfunc.model.feature import NUMERIC, Feature
from fin_pyfunc.model.features import FeatureSpec

_ONE_HOT = "sklearn.preprocessing._encoders.OneHotEncoder"
_ORDINAL = "sklearn.preprocessing._encoders.OrdinalEncoder"
_TARGET = "sklearn.preprocessing._target_encoder.TargetEncoder"
_IMPUTER = "sklearn.impute._base.SimpleImputer"
_INDICATOR = "sklearn.impute._base.MissingIndicator"
_FUNCTION = "sklearn.preprocessing._function_transformer.FunctionTransformer"
_COLUMN_TRANSFORMER = "sklearn.compose._column_transformer.ColumnTransformer"
_PIPELINE = "sklearn.pipeline.Pipeline"
_UNION = "sklearn.pipeline.FeatureUnion"
#: Attributes that hold the fitted estimators of one that hands each of them its own rows.
_INNER = ("best_estimator_", "estimator_", "estimators_", "calibrated_classifiers_", "estimator")
#: Those of them that hand on all columns of their rows, as they are.
_WRAPPERS = frozenset(
    {
        "sklearn.calibration.CalibratedClassifierCV",
        "sklearn.calibration._CalibratedClassifier",
        "sklearn.ensemble._stacking.StackingClassifier",
        "sklearn.ensemble._voting.VotingClassifier",
        "sklearn.frozen._frozen.FrozenEstimator",
        "sklearn.model_selection._classification_threshold.FixedThresholdClassifier",
        "sklearn.model_selection._classification_threshold.TunedThresholdClassifierCV",
        "sklearn.model_selection._search.GridSearchCV",
        "sklearn.model_selection._search.RandomizedSearchCV",
        "sklearn.model_selection._search_successive_halving.HalvingGridSearchCV",
        "sklearn.model_selection._search_successive_halving.HalvingRandomSearchCV",
        "sklearn.multiclass.OneVsRestClassifier",
    }
)
#: Most bytes of text that get codes: a manifest holds them.
MAX_TEXT = 1 << 20


class Column(NamedTuple):
    """A column that a step gets: a feature, or what an imputer made of it.

    Parameters
    ----------
    name : str
        Of the feature.
    is_plain : bool, default True
        Whether a value that is no null is still the feature's own.
    """

    name: str
    is_plain: bool = True


#: What a step gets or gives, None for a column of numbers that were computed; or None where it is not known how many
#: columns there are, all of them numbers.
Columns = Sequence[Column | None] | None


class _Found:
    """What a walk has found, by the feature's name."""

    def __init__(self) -> None:
        #: values outside of which an encoder raises
        self.known: dict[str, set[Any]] = {}
        #: texts that some step compares with
        self.texts: dict[str, dict[str, None]] = defaultdict(dict)
        #: features whose text a step may look at in another way
        self.opaque: set[str] = set()
        self._given_up: Columns = None

    def limit(self, column: Column, values: Iterable[Any]) -> None:
        found = {value for value in values if value is not None and value == value}
        self.known[column.name] = self.known[column.name] & found if column.name in self.known else found

    def compare(self, column: Column, values: Iterable[Any]) -> None:
        self.texts[column.name] |= dict.fromkeys(value for value in values if isinstance(value, str))

    def give_up(self, columns: Columns) -> None:
        if columns is self._given_up:  # each tree of a forest gets the same ones
            return
        self._given_up = columns
        self.opaque |= {column.name for column in columns or () if column is not None}


def with_known_values(spec: FeatureSpec, estimator: Any) -> FeatureSpec:
    """The features, with the values that the estimator's encoders know where they raise for any other.

    Parameters
    ----------
    spec : FeatureSpec
        In training order.
    estimator : object
        Fitted. Only encoders of scikit-learn are found, at the start of it or after an imputer.
    """
    found = _walked(spec, estimator)
    if found is None or not found.known:
        return spec
    features = [_limited(feature, found.known.get(feature.name)) for feature in spec.features]
    return msgspec.structs.replace(spec, features=features)


def with_codes(spec: FeatureSpec, estimator: Any) -> FeatureSpec:
    """The features, with codes of texts and categories, so that a matrix holds their values.

    A text feature's dictionary has every text that a step of the estimator compares with, so that any two texts
    without a code are the same to it; it is empty where the feature is dropped.

    Parameters
    ----------
    spec : FeatureSpec
        In training order.
    estimator : object
        Fitted.

    Returns
    -------
    FeatureSpec
        The same where a step looks at text in a way that is not known, such as CountVectorizer; where a feature has
        no type; or where the texts are too many for a manifest.
    """
    found = None if spec.is_numeric else _walked(spec, estimator)
    if found is None:
        return spec
    features = [_coded(feature, found) for feature in spec.features]
    if not all(feature.kind in NUMERIC or feature.codes is not None for feature in features):
        return spec
    coded = [feature.codes for feature in features if feature.codes]
    return spec if len(msgspec.json.encode(coded)) > MAX_TEXT else msgspec.structs.replace(spec, features=features)


def without_codes(spec: FeatureSpec) -> FeatureSpec:
    """The same features, of which a DataFrame holds text and categories."""
    plain = [msgspec.structs.replace(feature, codes=None) for feature in spec.features]
    return msgspec.structs.replace(spec, features=plain)


def _walked(spec: FeatureSpec, estimator: Any) -> _Found | None:
    found = _Found()
    try:
        found.give_up(_look(estimator, [Column(name) for name in spec.names], found))
    except Exception:  # a stranger's estimator may hold anything, itself too
        return None
    return found


def _limited(feature: Feature, values: set[Any] | None) -> Feature:
    if values is None or (feature.kind == "number" and feature.dtype != "float64"):  # compared after it is rounded
        return feature
    if feature.kind == "datetime" or not all(isinstance(value, str | int | float | bool) for value in values):
        return feature
    return msgspec.structs.replace(feature, known=sorted(values, key=lambda value: (type(value).__name__, value)))


def _coded(feature: Feature, found: _Found) -> Feature:
    if feature.kind == "category" and can_code(feature.categories or []):
        return msgspec.structs.replace(feature, codes=feature.categories)
    if feature.kind not in ("string", "datetime") or feature.name in found.opaque:
        return feature
    if feature.kind == "datetime":
        if feature.name in found.texts:
            return feature  # only one that is dropped
        return msgspec.structs.replace(feature, codes=[])
    texts = found.texts[feature.name] | dict.fromkeys(value for value in feature.known or () if isinstance(value, str))
    return msgspec.structs.replace(feature, codes=[*texts])


def _look(step: Any, columns: Columns, found: _Found) -> Columns:
    """Add what is known of a step's columns.

    Returns
    -------
    Columns
        Its own columns, as far as they may still be compared with something.
    """
    if columns is None or step is None or (isinstance(step, str) and step == "passthrough"):
        return columns
    if isinstance(step, str) and step == "drop":
        return []
    look = _STEPS.get(type_name(step))
    if look is None and isinstance(vars(step).get("steps"), list):  # another library's Pipeline
        found.give_up(columns)
        look = _look_at_pipeline
    if look is not None:
        given: Columns = look(step, columns, found)
        return given
    inner = next((held for name in _INNER if (held := vars(step).get(name)) is not None), None)
    for part in inner if isinstance(inner, list | tuple) else [inner]:
        if hasattr(part, "__dict__"):
            found.give_up(_look(part, columns, found))
    if inner is None or type_name(step) not in _WRAPPERS:
        found.give_up(columns)
    return None


def _look_at_encoder(step: Any, columns: Sequence[Column | None], found: _Found) -> Columns:
    if len(step.categories_) != len(columns):
        found.give_up(columns)
        return None
    is_strict = type_name(step) != _TARGET and step.handle_unknown == "error"
    for column, categories in zip(columns, step.categories_, strict=True):
        if column is None:
            continue
        array = np.asarray(categories)
        values = array.tolist()
        if is_strict and column.is_plain:
            found.limit(column, values)
        if array.dtype.kind in "US":  # NumPy takes a text for equal to the same one with NULs at its end
            found.give_up([column])
        found.compare(column, values)
    return [None] * len(columns) if type_name(step) == _ORDINAL else None


def _look_at_imputer(step: Any, columns: Sequence[Column | None], found: _Found) -> Columns:
    """Find the texts that are replaced, and put in their place; columns without a statistic are left out."""
    missing, statistics = step.missing_values, list(step.statistics_)
    is_null = missing is None or missing is pd.NA or missing != missing
    given: list[Column | None] = []
    for column, statistic in zip(columns, statistics, strict=True):
        if column is not None:
            found.compare(column, [missing, statistic])
            column = Column(column.name, column.is_plain and is_null)
        if step.keep_empty_features or (statistic is not None and statistic == statistic):
            given.append(column)
    # the indicator's columns come last, and are numbers
    return [*given, *[None] * (len(step.indicator_.features_) if step.add_indicator else 0)]


def _look_at_indicator(step: Any, columns: Sequence[Column | None], found: _Found) -> Columns:
    for column in columns:
        if column is not None:
            found.compare(column, [step.missing_values])
    return None


def _look_at_function(step: Any, columns: Sequence[Column | None], found: _Found) -> Columns:
    if step.func is None and not step.validate:  # which makes numbers of texts that look like some
        return columns
    found.give_up(columns)
    return None


def _look_at_columns(step: Any, columns: Sequence[Column | None], found: _Found) -> Columns:
    """Look at each of a ColumnTransformer's own steps; its columns are beside each other in their order."""
    indices, places = step._transformer_to_input_indices, getattr(step, "output_indices_", {})
    columns = _by_name(step, columns)
    given: list[Column | None] = [None] * max((place.stop for place in places.values()), default=0)
    for name, inner, _ in step.transformers_:
        chosen, place = [columns[i] for i in indices[name]], places.get(name, slice(0, 0))
        of_inner = _look(inner, chosen, found) if chosen else []  # a step without columns is not fitted
        if of_inner is not None and (len(of_inner) != place.stop - place.start or step.sparse_output_):
            found.give_up(of_inner)  # a sparse matrix makes numbers of texts that look like some
        elif of_inner is not None:
            given[place] = of_inner
    return given


def _by_name(step: Any, columns: Sequence[Column | None]) -> Sequence[Column | None]:
    """The columns in the order in which a step was fitted on them: a ColumnTransformer takes them by their names."""
    known = {column.name: column for column in columns if column is not None}
    names = getattr(step, "feature_names_in_", ())
    if len(known) == len(columns) and known.keys() <= set(names):
        return [known.get(name) for name in names]
    return columns


def _look_at_pipeline(step: Any, columns: Columns, found: _Found) -> Columns:
    for _, inner in step.steps:
        columns = _look(inner, columns, found)
    return columns


def _look_at_union(step: Any, columns: Sequence[Column | None], found: _Found) -> Columns:
    parts = [_look(inner, columns, found) for _, inner in step.transformer_list]
    given: list[Column | None] = []
    for part in parts:
        if part is None or None in parts:
            found.give_up(part)
        else:
            given += part
    return None if None in parts else given


_STEPS: dict[str, Any] = {
    _ONE_HOT: _look_at_encoder, _ORDINAL: _look_at_encoder, _TARGET: _look_at_encoder, _IMPUTER: _look_at_imputer,
    _INDICATOR: _look_at_indicator, _FUNCTION: _look_at_function, _COLUMN_TRANSFORMER: _look_at_columns,
    _PIPELINE: _look_at_pipeline, _UNION: _look_at_union,
}  # fmt: skip
