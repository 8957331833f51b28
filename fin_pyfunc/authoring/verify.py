"""Proof, before anything is logged, that the artifact answers as the estimator does."""

from __future__ import annotations

import statistics
import time
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
#: How far a probability may be off: matrix products of different heights may round the last bits differently. The
#: second one is for an estimator that computes in float32, and is some 80 times its rounding unit.
TOLERANCE, SINGLE_TOLERANCE = 1e-9, 1e-5
#: How far it may be off where an estimator is that sensitive to rounding; most answers show four digits.
MOST = 1e-4
#: Rows, and draws for each of them, that an estimator's sensitivity is measured with.
_CHANGED_ROWS, _DRAWS = 100, 4
#: Calls of which the median counts as the time of one.
_TIMED_CALLS = 5
#: Rounding units of float64 and float32 (IEEE 754).
_UNIT, _SINGLE_UNIT = 2.0**-53, 2.0**-24
#: A number that float64 holds and float32 does not (its greatest is 3.4e38).
BEYOND_FLOAT32 = 1e39


_SINGLE = frozenset({"float16", "float32", "Float32"})


@dataclass(frozen=True)
class Reference:
    """What the estimator itself answers on rows of the sample."""

    rows: pd.DataFrame
    scores: Scores
    spec: FeatureSpec
    estimator: Any
    #: where in the sample the rows are
    positions: Sequence[int]
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
        positions = np.unique(np.linspace(0, len(X) - 1, TABLE_ROWS, dtype=int)).tolist()
        rows = X.iloc[positions]
        with single_threaded(estimator):
            scores = _asked(estimator, rows[spec.names], spec, classes, device)
        return cls(rows, scores, spec, estimator, positions, device)

    @property
    def has_proba(self) -> bool:
        """Whether the estimator has probabilities."""
        return self.scores.probabilities is not None

    @property
    def is_single(self) -> bool:
        """Whether the estimator computes in float32: it is given float32, or answers nothing else."""
        if any(feature.dtype in _SINGLE for feature in self.spec.features):
            return True
        p = self.scores.probabilities
        return p is not None and bool((p == p.astype(np.float32)).all())

    def seconds_alone(self) -> dict[int, float]:
        """Median seconds that the estimator takes for one row, under the key 1."""
        native = NativeBackend(self.estimator, self.spec, self.scores.classes, self.device)
        rows, taken = self.rows[self.spec.names], []
        with single_threaded(self.estimator):
            for i in range(_TIMED_CALLS):
                row = rows.iloc[[i % len(rows)]]
                start = time.perf_counter()
                native.score(row)
                taken.append(time.perf_counter() - start)
        return {1: statistics.median(taken)}

    def rounding(self) -> float:
        """How far rounding may move a probability between one way of adding up and another.

        A sum of n products is the exact one of numbers that are off by n rounding units (N. Higham, Accuracy and
        Stability of Numerical Algorithms, 2nd ed., section 3.1), so it is measured how far the answers move when the
        numbers do. 0 for an estimator that answers the same rows differently when it is asked again.
        """
        rows = self.rows[self.spec.names].iloc[:_CHANGED_ROWS]
        numbers = [feature.name for feature in self.spec.features if feature.kind == "number"]
        unit = _SINGLE_UNIT if self.is_single else _UNIT
        random, moved, change = np.random.default_rng(0), 0.0, float(np.sqrt(unit))

        def asked(changed: pd.DataFrame) -> Any:
            return _asked(self.estimator, changed, self.spec, self.scores.classes, self.device).probabilities

        with single_threaded(self.estimator):
            own = asked(rows)
            if own is None or not numbers or not np.array_equal(own, asked(rows)):
                return 0.0
            for _ in range(_DRAWS):
                by = 1 + change * random.choice([-1.0, 1.0], size=(len(rows), len(numbers)))
                changed = (rows[numbers] * by).astype(rows[numbers].dtypes.to_dict())
                moved = max(moved, float(abs(asked(rows.assign(**changed)) - own).max()))
        return 2 * len(numbers) * unit * moved / change

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
    double = ("float64", "Float64")
    numbers = [feature.name for feature in spec.features if feature.kind == "number" and feature.dtype in double]
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
    least = SINGLE_TOLERANCE if answers.is_single else TOLERANCE
    try:
        for backend in backends:
            within = least if backend == "native" else max(least, tolerance)
            model = Classifier()
            model.open(folder, backend)
            table = model.features.check(answers.rows) if model.features else answers.rows
            _compare(answers, model.dispatch.score(table)[0], within, "after it was written and read back")
            _compare(answers, model.decide(rows).scores, within, "to the same rows sent as JSON")
            for i, row in enumerate(rows[:SINGLE_ROWS]):
                _compare(answers, model.decide([row]).scores, within, "to a row alone and among others", i)
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


def _compare(answers: Reference, got: Scores, within: float, when: str, start: int = 0) -> None:
    rows = slice(start, start + len(got.index))
    apart = _apart(answers.scores, got, rows)
    if apart <= within:
        return
    rounding = answers.rounding() if apart < 1 else 0.0
    if apart <= min(rounding, MOST):
        return
    if apart <= rounding:
        single = "fit it on float64 (X.astype('float64')), or " if answers.is_single else ""
        raise NotLoggableError(
            f"rounding alone moves the estimator's probabilities by {apart:.1g} {when}: {single}put a StandardScaler "
            "before it, or let it be less sure of itself (more regularization)."
        )
    by = f", by {apart:.1g} where rounding is {within:.0e}" if apart < 1 else ""
    raise NotLoggableError(
        f"the estimator answers differently {when}{by}: it must depend on nothing but the features of the row "
        "(no randomness when predicting, no state, no look at other rows)."
    )


def _apart(expected: Scores, got: Scores, rows: slice) -> float:
    """How far two answers are apart: in a probability, or how sure the class is that the other answer lacks."""
    p, other = expected.probabilities, got.probabilities
    flipped = expected.index[rows] != got.index
    if p is None or other is None:
        return 1.0 if flipped.any() else 0.0
    p = p[rows]
    apart = float(abs(p - other).max()) if p.size else 0.0
    if flipped.any():
        at = np.flatnonzero(flipped)
        if (p[at] == other[at]).all(axis=1).any():
            return 1.0  # nothing was rounded otherwise
        apart = max(apart, float(abs(p[at, expected.index[rows][at]] - p[at, got.index[at]]).max()) / 2)
    return apart


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
