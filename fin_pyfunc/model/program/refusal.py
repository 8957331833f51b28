"""Rows that the estimator refuses."""

from __future__ import annotations

import numpy as np

from fin_pyfunc.model.program.node import Array, Node, expect


class Withhold(Node, tag="withhold"):
    """The first input, but NaN in each row where another input is not 0: the estimator itself is asked about those.

    An encoder that was to raise for unknown values does so for a value that no check of the features keeps from it.
    """

    def width(self, *widths: int) -> int:
        expect(len(widths) > 1, "withhold")
        return widths[0]

    def __call__(self, *inputs: Array) -> Array:
        answer = inputs[0]
        for refused in inputs[1:]:
            if refused.any():
                answer = np.where(refused.any(axis=1, keepdims=True), np.nan, answer)
        return answer
