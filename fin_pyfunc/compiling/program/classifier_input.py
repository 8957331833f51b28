"""What a classifier makes of its rows before it computes with them: codes of categories, and what is missing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import is_ensemble
from fin_pyfunc.compiling.program.values import Builder, Column, Value
from fin_pyfunc.compiling.sklearn_trees import are_numbers
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.program.arithmetic import Fill
from fin_pyfunc.model.program.categories import Lookup

#: For each code of a column, and at last for a missing value, what a classifier computes with.
Numbers = Sequence[float]


def classifier_input(builder: Builder, estimator: Any, value: Value) -> Value:
    """Add what turns a value into the numbers that a classifier computes with.

    A feature of categories comes to its trees as the position of each among those that the classifier knows, or, to
    HistGradientBoosting, as the number itself where categories are numbers.

    Raises
    ------
    NotCompilable
        It takes no text or categories.
    """
    name = type_name(estimator)
    if value.is_narrow and not is_ensemble(estimator):
        raise NotCompilable(f"{type(estimator).__name__} computes in float32, as what it is given is")
    if name.startswith("xgboost.") and value.is_sparse:
        # src/data/adapter.h: of a sparse matrix, what is not stored is missing
        value = builder.add(Fill(values=np.full(value.width, np.nan), missing=0.0), value, is_sparse=False)
    if not value.has_codes:
        return value
    numbers_of = _NUMBERS.get(name)
    if numbers_of is None:
        raise NotCompilable(f"{type(estimator).__name__} is given text or categories")
    coded = [i for i, column in enumerate(value.columns) if column.values is not None]
    found = numbers_of(estimator, value, coded)
    at = [i for i, numbers in zip(coded, found, strict=True) if not _are_codes(value.columns[i], numbers)]
    if not at:
        return value._replace(columns=tuple(_as_numbers(column) for column in value.columns))
    sizes = np.array([len(value.columns[i].values or ()) for i in at], dtype=np.int64)
    # a value without a code is missing to all of them
    tables = [[*numbers[:-1], math.nan, numbers[-1]] for i, numbers in zip(coded, found, strict=True) if i in at]
    node = Lookup(sizes=sizes, table=np.concatenate(tables))
    made = builder.replace(value, at, builder.add(node, builder.select(value, at)))
    return made._replace(columns=tuple(_as_numbers(column) for column in value.columns))


def _lightgbm(estimator: Any, value: Value, coded: Sequence[int]) -> list[Numbers]:
    # lightgbm/basic.py, _data_from_pandas: the codes of pandas, of the categories in training
    known = estimator.booster_.pandas_categorical or []
    if len(known) != len(coded):
        raise NotCompilable("LGBMClassifier was fitted on other columns of categories than it is given")
    return [_positions(value.columns[i], categories) for i, categories in zip(coded, known, strict=True)]


def _xgboost(_: Any, value: Value, coded: Sequence[int]) -> list[Numbers]:
    # xgboost/data.py: the codes of pandas
    if any(value.columns[i].can_be_other for i in coded):
        raise NotCompilable("an XGBoost classifier is given text")
    return [[*range(len(value.columns[i].values or ())), math.nan] for i in coded]


def _hist(estimator: Any, value: Value, coded: Sequence[int]) -> list[Numbers]:
    # sklearn/ensemble/_hist_gradient_boosting/gradient_boosting.py, _preprocess_X: an OrdinalEncoder
    is_category = estimator.is_categorical_
    if is_category is None or not np.asarray(is_category)[list(coded)].all():
        raise NotCompilable("HistGradientBoostingClassifier is given text or categories that it takes for numbers")
    known = estimator._preprocessor.named_transformers_["encoder"].categories_
    found: list[Numbers] = []
    for i in coded:
        categories = np.asarray(known[int(np.sum(is_category[:i]))])
        numbers = _positions(value.columns[i], categories.tolist())
        if are_numbers(categories):
            numbers = [float(categories[int(at)]) if at == at else at for at in numbers]
        found.append(numbers)
    return found


def _positions(column: Column, categories: Sequence[Any]) -> Numbers:
    at = {category: float(i) for i, category in enumerate(categories)}
    null = column.null if column.null == column.null else None  # a NaN is a category of no encoder here
    return [at.get(value, math.nan) for value in (*(column.values or ()), null)]


def _are_codes(column: Column, numbers: Numbers) -> bool:
    own = [*range(len(numbers) - 1), math.nan]
    return not column.can_be_other and np.array_equal(numbers, own, equal_nan=True)


def _as_numbers(column: Column) -> Column:
    return Column(nullable=True) if column.values is not None else column


_NUMBERS: Mapping[str, Callable[[Any, Value, Sequence[int]], list[Numbers]]] = {
    "lightgbm.sklearn.LGBMClassifier": _lightgbm,
    "sklearn.ensemble._hist_gradient_boosting.gradient_boosting.HistGradientBoostingClassifier": _hist,
    "xgboost.sklearn.XGBClassifier": _xgboost,
    "xgboost.sklearn.XGBRFClassifier": _xgboost,
}
