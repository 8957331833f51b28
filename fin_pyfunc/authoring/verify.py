"""Proof, before anything is logged, that the artifact answers as the estimator does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd
from msgspec.structs import replace

from fin_pyfunc.model.artifact import Example
from fin_pyfunc.model.backends.native import NativeBackend, single_threaded
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.errors import FinPyfuncError, NotLoggableError, ScoringError
from fin_pyfunc.model.features import FeatureSpec

#: Rows of the sample that are compared as a table, as JSON, and one at a time.
TABLE_ROWS, JSON_ROWS, SINGLE_ROWS = 1000, 100, 10
#: How far a probability may be off: matrix products of different heights may round the last bits differently.
TOLERANCE = 1e-9
#: A number that float64 holds and float32 does not (its greatest is 3.4e38).
BEYOND_FLOAT32 = 1e39


@dataclass(frozen=True)
class Reference:
    """What the estimator itself answers on rows of the sample."""

    rows: pd.DataFrame
    scores: Scores
    spec: FeatureSpec
    estimator: Any
    device: Literal["cpu", "gpu"] = "cpu"

    @classmethod
    def of(
        cls,
        estimator: Any,
        X: pd.DataFrame,
        spec: FeatureSpec,
        classes: Sequence[Label],
        device: Literal["cpu", "gpu"] = "cpu",
    ) -> Reference:
        """Ask the estimator.

        Raises
        ------
        NotLoggableError
            It fails on its own training rows.
        """
        rows = X.iloc[np.unique(np.linspace(0, len(X) - 1, TABLE_ROWS, dtype=int))]
        with single_threaded(estimator):
            scores = _asked(estimator, rows[spec.names], spec, classes, device)
        return cls(rows, scores, spec, estimator, device)

    @property
    def has_proba(self) -> bool:
        """Whether the estimator has probabilities."""
        return self.scores.probabilities is not None

    def example(self, X: pd.DataFrame) -> Example:
        """The middle of the sample as one row, and the estimator's answer to it."""
        middle = pd.DataFrame({name: _middle(X[name]) for name in X.columns}).astype(X.dtypes.to_dict())
        with single_threaded(self.estimator):
            scores = _asked(self.estimator, middle[self.spec.names], self.spec, self.scores.classes, self.device)
        p = scores.probabilities
        return Example(
            # an identifier may hold anything; the example is one that every way of asking can send
            features={k: v for k, v in _json_rows(middle)[0].items() if v is None or isinstance(v, str | int | float)},
            prediction=scores.classes[scores.index[0]],
            probabilities=None if p is None else p[0].tolist(),
        )


def within_float32(spec: FeatureSpec, answers: Reference) -> FeatureSpec:
    """The spec with its numbers held to float32's range, where the estimator refuses what is beyond.

    scikit-learn's trees raise for it; a client is better told which feature it was, and a compiled form would answer.
    """
    numbers = [feature.name for feature in spec.features if feature.kind == "number" and feature.dtype == "float64"]
    if not numbers:
        return spec
    beyond = answers.rows[spec.names].iloc[:1].assign(**dict.fromkeys(numbers, BEYOND_FLOAT32))
    try:
        with single_threaded(answers.estimator), np.errstate(all="ignore"):
            NativeBackend(answers.estimator, spec, answers.scores.classes, answers.device).score(beyond)
    except ScoringError:
        held = [replace(f, single=True) if f.name in numbers else f for f in spec.features]
        return replace(spec, features=held)
    return spec


def verify(folder: Path, answers: Reference, backends: Sequence[str] = ("native",), tolerance: float = 0.0) -> None:
    """Open the artifact as a server would, once a backend, and compare its answers with the estimator's.

    Parameters
    ----------
    folder : Path
    answers : Reference
    backends : sequence of str, default ("native",)
    tolerance : float, default 0.0
        How far a compiled backend's probabilities may be off.

    Raises
    ------
    NotLoggableError
        It cannot be opened, or answers otherwise as a table, as JSON rows, or one row at a time.
    """
    rows = _json_rows(answers.rows.iloc[:JSON_ROWS])
    try:
        for backend in backends:
            within = TOLERANCE if backend == "native" else max(TOLERANCE, tolerance)
            model = Classifier()
            model.open(folder, backend)
            table = model.features.check(answers.rows) if model.features else answers.rows
            _compare(answers.scores, model.dispatch.score(table)[0], within, "after it was written and read back")
            _compare(answers.scores, model.decide(rows).scores, within, "to the same rows sent as JSON")
            for i, row in enumerate(rows[:SINGLE_ROWS]):
                _compare(answers.scores, model.decide([row]).scores, within, "to a row alone and among others", i)
    except NotLoggableError:
        raise
    except FinPyfuncError as e:
        raise NotLoggableError(f"the model does not work once written: {e}") from e


def _asked(
    estimator: Any, X: pd.DataFrame, spec: FeatureSpec, classes: Sequence[Label], device: Literal["cpu", "gpu"]
) -> Scores:
    try:
        return NativeBackend(estimator, spec, classes, device).score(X)
    except ScoringError as e:
        cause = f" ({str(e.__cause__).strip().splitlines()[0]})" if str(e.__cause__ or "").strip() else ""
        raise NotLoggableError(f"the estimator fails on the sample itself: {e}{cause}.") from e


def _compare(expected: Scores, got: Scores, within: float, when: str, start: int = 0) -> None:
    rows = slice(start, start + len(got.index))
    same = np.array_equal(expected.index[rows], got.index)
    if expected.probabilities is not None and got.probabilities is not None:
        same = same and np.allclose(expected.probabilities[rows], got.probabilities, rtol=0, atol=within)
    if not same:
        raise NotLoggableError(
            f"the estimator answers differently {when}: it must depend on nothing but the features of the row "
            "(no randomness when predicting, no state, no look at other rows)."
        )


def _middle(column: pd.Series[Any]) -> list[Any]:
    known = column.dropna()
    if known.empty:
        return [None]
    if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
        return [known.sort_values().iloc[(len(known) - 1) // 2]]
    return [known.mode().iloc[0]]


def _json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as a client would send them: through JSON and back, nulls for missing values."""
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    for row in rows:  # JSON's own encoders would cut off nanoseconds
        row |= {name: value.isoformat() for name, value in row.items() if isinstance(value, pd.Timestamp)}
    encoded = msgspec.json.encode(rows, enc_hook=lambda value: value.item() if hasattr(value, "item") else str(value))
    decoded: list[dict[str, Any]] = msgspec.json.decode(encoded)
    return decoded
