"""Splines out of a file are made again only where their knots and coefficients fit together."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import SplineTransformer

from fin_pyfunc.authoring.training_parts import without_training_parts
from fin_pyfunc.model import estimators
from fin_pyfunc.model.errors import ArtifactError
from tests.models import bars, labels


def changed(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda splines: splines[1].update(values)


FORGED: dict[str, tuple[Callable[[list[Any]], None], str]] = {
    "few coefficients": (changed(c=np.eye(2)), "uneven length"),
    "few knots": (changed(t=np.linspace(0, 1, 5)), "uneven length"),
    "no knots": (changed(t=np.empty(0)), "uneven length"),
    "knots out of order": (changed(t=np.linspace(1, 0, 10)), "not in order"),
    "knots that are no numbers": (changed(t=np.full(10, np.nan)), "not in order"),
    "knots of another type": (changed(t=np.arange(10)), "no numbers"),
    "knots in a list": (changed(t=[0.0] * 10), "no numbers"),
    "coefficients of one dimension": (changed(c=np.ones(6)), "no numbers"),
    "another degree": (changed(k=9), "uneven length"),
    "a degree below 0": (changed(k=-1), "without a degree"),
    "a degree that is true": (changed(k=True), "without a degree"),
    "a word for extrapolation": (changed(extrapolate="periodic"), "without a degree"),
    "no degree": (lambda splines: splines[1].pop("k"), "no table"),
    "a list": (lambda splines: splines.__setitem__(1, [1, 2]), "no table"),
}


@pytest.mark.parametrize("case", FORGED)
def test_a_forged_spline_is_refused(case: str, tmp_path: Path) -> None:
    forge, says = FORGED[case]
    fitted = make_pipeline(SplineTransformer(n_knots=4), LogisticRegression()).fit(bars(), labels(0, 1))
    written = without_training_parts(fitted)
    forge(written[0].bsplines_)
    skops.io.dump(written, tmp_path / "m.skops")
    with pytest.raises(ArtifactError, match=says):
        estimators.load_file(tmp_path / "m.skops", "skops")
    assert fitted.predict(bars()).shape == (len(bars()),)


def test_a_column_that_was_constant_in_training_is_read(tmp_path: Path) -> None:
    frame = bars().assign(spread=1.0)
    fitted = make_pipeline(SplineTransformer(n_knots=4), LogisticRegression()).fit(frame, labels(0, 1))
    estimators.dump(without_training_parts(fitted), tmp_path / "m.skops", "skops")
    read = estimators.load(tmp_path / "m.skops", "skops")
    assert np.array_equal(read.predict_proba(frame), fitted.predict_proba(frame))
