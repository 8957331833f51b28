"""Rows to compare a compiled form on: where it would differ from its estimator, if it did anywhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from fin_pyfunc.compiling.conversion import parts
from fin_pyfunc.compiling.grown import constants, is_ensemble
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec

#: Rows of the sample that are compared, and of all rows.
SAMPLE_ROWS, MAX_ROWS = 1000, 4000
#: Rows that begin from each of the sample's, for each way of changing them.
_ROUNDED_ROWS, _THRESHOLD_ROWS, _EXTREME_ROWS = 100, 200, 150
#: Far out, but finite as a float32 too, as scikit-learn's trees want it.
_EXTREMES = (0.0, 1e-300, -1e-300, 1e30, -1e30, float(np.finfo(np.float32).max), float(np.finfo(np.float32).min))


def challenge(estimator: Any, spec: FeatureSpec, sample: Array | None) -> tuple[Array, Array]:
    """Rows of the sample, and rows made of them.

    Parameters
    ----------
    estimator : object
    spec : FeatureSpec
        Every feature a number, an integer or a boolean.
    sample : ndarray of shape (n_rows, n_features), float64, or None
        NaN for null; None where none is at hand, and rows are drawn from the estimator's own numbers.

    Returns
    -------
    plain : ndarray of shape (n_plain, n_features), float64
        At most `SAMPLE_ROWS` rows of the sample.
    made : ndarray of shape (n_made, n_features), float64
        Those rows rounded, with features on thresholds and a float64's and a float32's step and 1e-9 beside them, with
        extremes, and with missing values where the feature may have them.
    """
    rng = np.random.default_rng(0)
    thresholds = _thresholds(estimator, len(spec.features))
    if sample is None or not len(sample):
        sample = _drawn(estimator, thresholds, spec, rng)
    plain = valid(thinned(sample), spec)
    made = list(_made(plain, thresholds, spec, rng))
    rows = valid(np.vstack(made), spec)
    return plain, rows[: MAX_ROWS - len(plain)]


def thinned(sample: Array) -> Array:
    """The rows of a sample that are compared: at most `SAMPLE_ROWS`, from all over it."""
    if len(sample) <= SAMPLE_ROWS:
        return sample
    rows: Array = sample[np.unique(np.linspace(0, len(sample) - 1, SAMPLE_ROWS, dtype=int))]
    return rows


def _made(plain: Array, thresholds: list[Array], spec: FeatureSpec, rng: np.random.Generator) -> Iterator[Array]:
    some = plain[rng.integers(len(plain), size=_ROUNDED_ROWS)]
    for decimals in range(7):
        yield np.round(some, decimals)
    on = _on_thresholds(plain[rng.integers(len(plain), size=_THRESHOLD_ROWS)], thresholds, rng)
    single = on.astype(np.float32)
    yield from (on, np.nextafter(on, np.inf), np.nextafter(on, -np.inf), on + 1e-9, on - 1e-9)
    for towards in (np.inf, -np.inf):
        yield np.nextafter(single, np.float32(towards)).astype(np.float64)
    extreme = plain[rng.integers(len(plain), size=_EXTREME_ROWS)]
    at = rng.random(extreme.shape) < 1.5 / max(1, extreme.shape[1])
    yield np.where(at, rng.choice(_EXTREMES, size=extreme.shape), extreme)
    yield np.repeat(np.array(_EXTREMES)[:, None], plain.shape[1], axis=1)
    for i, feature in enumerate(spec.features):
        if feature.nullable:
            missing = plain[rng.integers(len(plain), size=max(2, 300 // len(spec.features)))].copy()
            missing[:, i] = np.nan
            yield missing
    if any(feature.nullable for feature in spec.features):
        yield np.full((1, plain.shape[1]), np.nan)


def _on_thresholds(rows: Array, thresholds: list[Array], rng: np.random.Generator) -> Array:
    rows = rows.copy()
    for i, known in enumerate(thresholds):
        if len(known):
            at = rng.random(len(rows)) < 0.7  # the others stay, so that not every row is an odd one throughout
            rows[at, i] = rng.choice(known, size=int(at.sum()))
    return rows


def valid(rows: Array, spec: FeatureSpec) -> Array:
    """Rows as a client could send them: whole numbers for integers, within the limits of each dtype."""
    rows = np.array(rows, dtype=np.float64)
    for i, feature in enumerate(spec.features):
        least, greatest = _limits(feature)
        column = np.round(rows[:, i]) if feature.kind != "number" else rows[:, i]
        column = np.clip(column, least, greatest)  # NaN stays
        if feature.dtype == "float32":
            column = column.astype(np.float32).astype(np.float64)
        lacking = np.isnan(column)
        if lacking.any() and not feature.nullable:
            known = column[~lacking]
            column[lacking] = known[0] if len(known) else 0.0
        rows[:, i] = column
    return rows


def _limits(feature: Feature) -> tuple[float, float]:
    least, greatest = feature.limits
    most = float(np.finfo(np.float32).max)  # beyond it scikit-learn's trees raise
    return max(least, -most), min(greatest, most)


def _thresholds(estimator: Any, n_features: int) -> list[Array]:
    """What each feature is compared with: split thresholds, edges of bins, quantiles, categories.

    They are those of every part of the estimator that sees as many features; where it sees others, they do no harm.
    """
    found: list[list[Array]] = [[] for _ in range(n_features)]
    for part in parts(estimator):
        try:
            known = constants(part, n_features) if is_ensemble(part) else _of_features(part, n_features)
        except Exception:  # noqa: S112 - what cannot be read has no compiled form to compare either
            continue
        for each, more in zip(found, known, strict=False):
            each.append(more)
    return [np.concatenate([np.empty(0), *known])[:100_000] for known in found]


def _of_features(part: Any, n_features: int) -> list[Array]:
    if getattr(part, "n_features_in_", 0) != n_features:
        return []
    threshold = getattr(part, "threshold", None)
    one = [float(threshold)] if isinstance(threshold, float | int) else []
    quantiles = np.asarray(getattr(part, "quantiles_", np.empty((0, n_features))))
    of_feature = [getattr(part, name, [()] * n_features) for name in ("bin_edges_", "categories_")]
    each = [np.concatenate([np.asarray(values, dtype=np.float64).ravel() for values in known])
            for known in zip(quantiles.T, *of_feature, [one] * n_features, strict=True)]  # fmt: skip
    return [values[np.isfinite(values)] for values in each]


def _drawn(estimator: Any, thresholds: list[Array], spec: FeatureSpec, rng: np.random.Generator) -> Array:
    """Rows from what the estimator knows of its training data: thresholds, means and scales."""
    n = len(spec.features)
    rows = np.empty((SAMPLE_ROWS, n))
    centre, scale = np.zeros(n), np.ones(n)
    for part in parts(estimator):
        for names, into in ((("mean_", "center_", "data_min_"), centre), (("scale_", "data_range_"), scale)):
            for name in names:
                value = getattr(part, name, None)
                if isinstance(value, np.ndarray) and value.shape == (n,) and np.isfinite(value).all():
                    into[:] = value
    for i, known in enumerate(thresholds):
        known = known[np.isfinite(known)]
        if len(known):
            spread = float(known.max() - known.min()) or abs(float(known[0])) or 1.0
            rows[:, i] = rng.choice(known, size=SAMPLE_ROWS) + rng.normal(0, 0.1 * spread, SAMPLE_ROWS)
        else:
            # a scaler's own scale, and a few magnitudes beside it
            away = rng.normal(size=SAMPLE_ROWS) * rng.choice([0.1, 1, 1, 1, 3], SAMPLE_ROWS)
            rows[:, i] = centre[i] + scale[i] * away
    return rows
