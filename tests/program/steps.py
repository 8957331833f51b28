"""A fitted transformer as a program, held to what scikit-learn makes of the same rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse

from fin_pyfunc.compiling.program.build import _transform
from fin_pyfunc.compiling.program.requirements import vouched
from fin_pyfunc.compiling.program.values import Builder, Column, Value
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.model.program.program import Program, read, written

Array = np.ndarray[Any, Any]


def program_of_step(transformer: Any, train: pd.DataFrame) -> tuple[Program, FeatureSpec]:
    """The program of one transformer, written and read; NaN in a row that scikit-learn would refuse."""
    spec = infer(train)
    builder = Builder(_transform)
    rows = Value(0, tuple(Column(name=feature.name, dtype=feature.dtype) for feature in spec.features))
    value = vouched(builder, builder.transform(transformer, rows), np.array([f.nullable for f in spec.features]))
    return read(written(Program(n_features=train.shape[1], steps=builder.steps)), value.width), spec


def assert_same_as(
    transformer: Any, train: pd.DataFrame, rows: Array, *, within: float = 0.0, program: Program | None = None
) -> None:
    """Hold a program to its transformer, each row alone and all at once; what one refuses the other does, too."""
    if program is None:
        program, _ = program_of_step(transformer, train)
    spec = infer(train)
    alone = [_own(transformer, spec.restore(rows[i : i + 1])) for i in range(len(rows))]
    taken = np.array([own is not None for own in alone])
    made = np.vstack([program(rows[i : i + 1]) for i in range(len(rows))])
    for own, ours in zip(alone, made, strict=True):
        if own is None:
            assert np.isnan(ours).all()
        else:
            _assert_equal(ours[None], own, within)
    if taken.any():
        whole = _own(transformer, spec.restore(rows[taken]))
        assert whole is not None
        _assert_equal(program(rows[taken]), whole, within)
        # of many rows, some steps compute in another way
        _assert_equal(program(np.repeat(rows[taken], 30, axis=0))[::30], whole, within)


def _own(transformer: Any, frame: pd.DataFrame) -> Array | None:
    try:
        with np.errstate(all="ignore"):
            made = transformer.transform(frame)
    except ValueError:
        return None
    made = made.toarray() if scipy.sparse.issparse(made) else made
    return np.asarray(made, dtype=np.float64)


def _assert_equal(ours: Array, own: Array, within: float) -> None:
    if within:
        np.testing.assert_allclose(ours, own, rtol=within, atol=within)
    else:
        np.testing.assert_array_equal(ours, own)
