"""What logging must keep to: the same answers as the estimator itself, or a refusal that leaves nothing behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import fin_pyfunc
from fin_pyfunc.model.errors import NotLoggableError
from tests.models import Fitted


def saved(fitted: Fitted, tmp_path: Path, **options: Any) -> fin_pyfunc.FinPyfuncModel:
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", input_example=None, **options)
    return fin_pyfunc.load_model(str(tmp_path / "model"))


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as a client has them after decoding JSON."""
    return [
        {str(k): None if pd.isna(v) else v for k, v in row.items()} for row in frame.astype(object).to_dict("records")
    ]


def assert_same_answers(model: fin_pyfunc.FinPyfuncModel, fitted: Fitted, classes: list[Any] | None = None) -> None:
    """A table, rows, and single rows are answered as the estimator itself answers the held-out rows."""
    estimator, frame = fitted.estimator, fitted.held_out
    X = frame if hasattr(estimator, "feature_names_in_") else frame.to_numpy()
    own = np.asarray(getattr(estimator, "classes_", ["down", "up"])).tolist()
    expected = np.asarray(estimator.predict(X)).tolist()
    if classes is not None:
        expected, own = [classes[own.index(label)] for label in expected], classes
    proba = estimator.predict_proba(X) if hasattr(estimator, "predict_proba") else None
    assert model.manifest is not None
    # a compiled form may be off by what was allowed; the estimator itself, and a form that is equal to it, by nothing
    off = model.manifest.tolerance if any(form.error > 1e-9 for form in model.manifest.forms) else 1e-9
    table, rows = model.predict(frame), as_rows(frame)
    batch = model.decide(rows)
    assert table["prediction"].tolist() == batch.predictions == expected
    assert table.index.equals(frame.index)
    assert {type(label) for label in batch.predictions} == {type(label) for label in expected}
    if proba is None:
        assert set(table["confidence"]) == {"unknown"}
        assert list(table.columns) == ["prediction", "confidence"]
        assert batch.distributions is None
    else:
        names = [c for c in table.columns if c.startswith("probability_")]
        assert len(names) == len(own)
        np.testing.assert_allclose(table[names].to_numpy(), proba, rtol=0, atol=off)
        assert batch.distributions is not None
        np.testing.assert_allclose([list(d.values()) for d in batch.distributions], proba, rtol=0, atol=off)
    for i, row in enumerate(rows[:8]):
        shuffled = dict(reversed(row.items())) | {"bar_id": 7}
        one = model.predict_one(shuffled)
        assert one["prediction"] == expected[i]
        if proba is None:
            assert one["confidence"] == "unknown"
        else:
            np.testing.assert_allclose(list(one["probabilities"].values()), proba[i], rtol=0, atol=off)
            assert one["probability"] == list(one["probabilities"].values())[own.index(expected[i])]


def refused(estimator: Any, X: Any, says: str, tmp_path: Path, **options: Any) -> str:
    with pytest.raises(NotLoggableError, match=says) as e:
        fin_pyfunc.save_model(estimator, X, tmp_path / "model", **options)
    assert not (tmp_path / "model").exists()
    assert "\n" not in str(e.value)
    return str(e.value)
