"""Rows on which a model that only looks right would give itself away."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.feature import MISSING, NUMERIC, Refused
from fin_pyfunc.model.features import FeatureSpec
from tests.compiling.checks import odd_rows
from tests.zoo.constants import constants
from tests.zoo.edges import edges

Array = np.ndarray[Any, Any]
#: Rows of each kind, and edges that are sought by asking.
TRAINING, EACH, ODD, EDGES = 80, 700, 400, 40
_EXTREMES = (0.0, -0.0, 1.0, -1.0, 5e-324, 1e-300, -1e-300, 1e-35, 1e16, 1e30, -1e30, 3.4e38, -3.4e38, 1e39, -1e300)
_TEXTS = ("", " ", "never seen", "ZÜRICH", "nan", "0")


def hard_rows(estimator: Any, train: pd.DataFrame, spec: FeatureSpec, ask: Any) -> pd.DataFrame:
    """Make them.

    Parameters
    ----------
    estimator : object
        Fitted; its arrays say what it compares features with.
    train : DataFrame
    spec : FeatureSpec
        What a client may send.
    ask : callable
        DataFrame to scores of shape (n, k).

    Returns
    -------
    DataFrame
        Of the training dtypes: rows of the training data; single features on, and a float64's step, a float32's step
        and 1e-9 beside each constant that the estimator holds and each edge where its answer jumps; several such
        features at once; rounded and extreme numbers; missing values; text that it knows, and text that it does not.
    """
    rng = np.random.default_rng(5)
    columns = {feature.name: train[feature.name].tolist() for feature in spec.features}
    known = {name: list(values) for name, values in constants(estimator, spec.names).items()}
    for name, value in _edges(train, spec, ask):
        known.setdefault(name, []).append(value)
    singles = [(name, value) for name, values in known.items() for around in values for value in _around(around)]
    rng.shuffle(singles)
    changes: list[dict[str, Any]] = [{}] * TRAINING
    changes += [{name: value} for name, value in singles[:EACH]]
    changes += [
        dict(singles[i] for i in rng.integers(len(singles), size=3)) for _ in range(EACH // 4 if singles else 0)
    ]
    changes += list(_odd(spec, rng, columns))
    rows = []
    for change in changes:
        row = rng.integers(len(train))
        taken = {}
        for feature in spec.features:
            value = change.get(feature.name, MISSING)
            taken[feature.name] = (
                columns[feature.name][row] if value is MISSING else _allowed(feature, value, row, columns)
            )
        rows.append(taken)
    frame = pd.DataFrame({name: [row[name] for row in rows] for name in spec.names}, dtype=object)
    frame = pd.DataFrame({name: _typed(frame[name], train[name]) for name in spec.names})
    if spec.is_numeric:
        frame = pd.concat([frame, _typed_all(_projects_own(spec, train), train)], ignore_index=True)
    return frame


def _projects_own(spec: FeatureSpec, train: pd.DataFrame) -> pd.DataFrame:
    """Those of the tests of compiling: mixed, rounded, far out, and with gaps."""
    made: Any = SimpleNamespace(spec=spec)
    matrix = odd_rows(made, train)
    some = matrix[np.random.default_rng(6).choice(len(matrix), min(ODD, len(matrix)), replace=False)]
    least, greatest = np.array([feature.limits for feature in spec.features]).T
    return pd.DataFrame(np.clip(some, least, greatest), columns=spec.names)


def _odd(spec: FeatureSpec, rng: np.random.Generator, columns: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    numeric = [feature.name for feature in spec.features if feature.kind in NUMERIC]
    for feature in spec.features:
        if feature.nullable:
            yield from [{feature.name: None}] * 8
        if feature.kind in NUMERIC:
            yield from ({feature.name: value} for value in _EXTREMES)
            some = [value for value in columns[feature.name][:40] if not pd.isna(value)]
            yield from ({feature.name: round(float(v), int(rng.integers(0, 7)))} for v in some)
        elif feature.kind == "string":
            yield from ({feature.name: value} for value in (*_TEXTS, *list(dict.fromkeys(columns[feature.name]))[:20]))
    yield from (dict.fromkeys(numeric, value) for value in _EXTREMES)
    if any(feature.nullable for feature in spec.features):
        yield {feature.name: None for feature in spec.features if feature.nullable}


def _around(value: Any) -> Iterator[Any]:
    """A number and its neighbours: a float64's step, a float32's step, and 1e-9 either side."""
    yield value
    if isinstance(value, str | bool):
        return
    number = float(value)
    yield from (np.nextafter(number, np.inf), np.nextafter(number, -np.inf), number + 1e-9, number - 1e-9)
    with np.errstate(over="ignore"):
        single = np.float32(number)
    yield from map(float, (single, np.nextafter(single, np.float32(np.inf)), np.nextafter(single, np.float32(-np.inf))))


def _allowed(feature: Any, value: Any, row: int, columns: dict[str, list[Any]]) -> Any:
    """The value as a client may send it; the row's own where it may not."""
    own = columns[feature.name][row]
    if isinstance(value, float) and feature.kind == "number" and feature.dtype.lower() == "float32":
        with np.errstate(over="ignore"):
            value = float(np.float32(value))
    if isinstance(value, float) and feature.kind in ("integer", "boolean"):
        if not np.isfinite(value):
            return own
        value = round(value) if feature.kind == "integer" else bool(value)
    try:
        feature.read(value)
    except Refused:
        return own
    return value


def _typed(values: pd.Series[Any], like: pd.Series[Any]) -> pd.Series[Any]:
    if values.isna().any() and like.dtype == object:
        gap = next((value for value in like[like.isna()].tolist()), np.nan)
        values = values.astype(object).where(values.notna(), gap)
    if like.dtype.kind == "f" and not isinstance(like.dtype, pd.api.extensions.ExtensionDtype):
        values = values.astype("float64")
    return values.astype(like.dtype)


def _typed_all(frame: pd.DataFrame, like: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({name: _typed(frame[name], like[name]) for name in frame.columns})


def _edges(train: pd.DataFrame, spec: FeatureSpec, ask: Any) -> Iterator[tuple[str, float]]:
    floats = [feature.name for feature in spec.features if feature.kind == "number"]
    rows = train.dropna()
    if not floats or not len(rows):
        return
    own = rows.reset_index(drop=True)
    matrix = own[floats].to_numpy(dtype=np.float64)
    picked = np.random.default_rng(7).integers(len(own), size=EDGES)

    def asked(values: Array) -> Array:
        frame = own.iloc[np.resize(picked, len(values))].reset_index(drop=True)
        changed = {name: _typed(pd.Series(values[:, i]), own[name]) for i, name in enumerate(floats)}
        return ask(frame.assign(**changed))

    yield from ((floats[i], value) for i, value in edges(asked, matrix, list(range(len(floats))), EDGES))
