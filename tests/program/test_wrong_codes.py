"""A program that takes any code for another one is refused: every code of every feature is tried."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.exactness import Reference
from fin_pyfunc.compiling.program.build import program_of
from fin_pyfunc.compiling.program.comparisons import program_rows
from fin_pyfunc.model.encoders import with_codes
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.program.categories import Categorise, Lookup, OneHot

pytestmark = pytest.mark.filterwarnings("ignore")
_UNKNOWN = {"handle_unknown": "use_encoded_value", "unknown_value": 7, "encoded_missing_value": -5}


def _reference() -> Reference:
    rng = np.random.default_rng(0)
    words, n = np.array(["a", "b", "c", "d", None], dtype=object), 300
    X = pd.DataFrame({name: rng.choice(words, n, p=[0.4, 0.3, 0.1, 0.1, 0.1]) for name in ("one", "two")})
    X["weekday"] = rng.choice([0.0, 1.0, 2.0, 3.5, np.nan], n)
    steps = ColumnTransformer(
        [("one", OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=61), ["one"]),
         ("weekday", OneHotEncoder(handle_unknown="ignore"), ["weekday"]), ("two", OrdinalEncoder(**_UNKNOWN), ["two"])]
    )  # fmt: skip
    y = (X["one"] == "a").to_numpy() ^ (X["two"] == "b").to_numpy() ^ (X["weekday"] == 1).to_numpy()
    fitted = make_pipeline(steps, LogisticRegression(C=100)).fit(X, y)
    spec = with_codes(infer(X), fitted)
    sample = spec.check(X)
    sample = sample if isinstance(sample, np.ndarray) else spec.encode(sample)
    # few rows of the sample: those that are made have to find it
    reference = Reference.of(fitted, spec, [False, True], sample[:20])
    return reference.with_rows(program_rows(program_of(fitted, spec), spec, sample[:20]).rows)


def test_each_wrong_place_of_a_table_is_found() -> None:
    reference = _reference()
    estimator, spec = reference.native.estimator, reference.spec
    reference.judge(program_of(estimator, spec), None, exact=False, tolerance=1e-9)
    own, n_tried = program_of(estimator, spec), 0
    for at, step in enumerate(own.steps):
        if not isinstance(step.node, Lookup | OneHot | Categorise):
            continue
        field = "known" if isinstance(step.node, Categorise) else "table"
        for place in range(len(getattr(step.node, field))):
            program = program_of(estimator, spec)
            node = program.steps[at].node
            changed = getattr(node, field).copy()
            if field == "known":
                changed[place] = np.nextafter(changed[place], np.inf)
            elif isinstance(node, OneHot):
                changed[place] = (changed[place] + 1) % node.n_columns
            else:
                changed[place] = np.nan_to_num(changed[place]) + 0.5
            setattr(node, field, changed)
            with pytest.raises(NotCompilable, match="off by"):
                reference.judge(program, None, exact=False, tolerance=1e-9)
            n_tried += 1
    assert n_tried > 20
