"""Rows such as clients may send, drawn from what a manifest knows of the training sample."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from fin_pyfunc.model.features import FeatureSpec, Table

if TYPE_CHECKING:
    from fin_pyfunc.model.artifact import Example

#: Rows that no matrix holds are copies of the example: that many tell as much as more would.
MOST_COPIES = 100


def sample(spec: FeatureSpec, ranges: Mapping[str, tuple[float, float]], example: Example, n_rows: int) -> Table:
    """Draw rows.

    Parameters
    ----------
    spec : FeatureSpec
    ranges : mapping of str to (float, float)
        Least and greatest value by feature; a feature without one has its example's value in every row.
    example : Example
    n_rows : int

    Returns
    -------
    ndarray of shape (n_rows, n_features) or DataFrame
        Uniform within the ranges and among the codes, the same at every call; copies of the example, at most 100, where
        no matrix holds it.
    """
    one = spec.table([example.features])
    if not isinstance(one, np.ndarray):
        return spec.table([example.features] * min(n_rows, MOST_COPIES))
    table, random = np.repeat(one, n_rows, axis=0), np.random.default_rng(0)
    for i, feature in enumerate(spec.features):
        if feature.dictionary is not None and (codes := [*feature.dictionary.taken.values()]):
            table[:, i] = random.choice(codes, n_rows)
        elif feature.name in ranges:
            low, high = ranges[feature.name]
            drawn = random.uniform(low, high, n_rows)
            table[:, i] = drawn if feature.kind == "number" else drawn.round()
    return table
