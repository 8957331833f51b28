"""Log a model, ask every backend that it gets for hard rows, and compare each answer with the estimator's own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import fin_pyfunc
from fin_pyfunc.model.backends.forest import can_run
from fin_pyfunc.model.errors import FeatureError, FinPyfuncError, NotLoggableError
from fin_pyfunc.model.features import FeatureSpec, infer
from tests.authoring.checks import as_rows
from tests.zoo.case import Case, Outcome, as_array
from tests.zoo.hard_rows import hard_rows

Array = np.ndarray[Any, Any]
#: Rows that are asked one at a time, of the estimator itself and of its compiled forms.
ALONE = {"native": 40}
ALONE_COMPILED = 120
#: Sizes of batches, and how many rows of each size are asked.
BATCHES = ((64, 256), (7, 105))
#: How far the estimator itself may be off when it was written and read back, unless it is off by itself.
NATIVE_TOLERANCE = 1e-9
#: How far beyond 0 or 1 a probability may be by rounding.
_ROUNDING = 1e-6
#: Rows that the estimator refuses, of which every backend is asked.
_REFUSED = 6


@dataclass
class Own:
    """What the estimator itself answers, all rows at once and some of them alone.

    Parameters
    ----------
    frame : DataFrame
        The rows that it answers.
    labels : ndarray of shape (n_rows,)
    proba : ndarray of shape (n_rows, k) or None
    refused : DataFrame
        The rows that it does not answer.
    alone : dict of int to (label, ndarray of shape (k,) or None)
    """

    frame: pd.DataFrame
    labels: Array
    proba: Array | None
    refused: pd.DataFrame
    alone: dict[int, tuple[Any, Array | None]] = field(default_factory=dict)

    @property
    def spread(self) -> float:
        """How far its own probabilities of the same row differ, alone and among others."""
        if self.proba is None:
            return 0.0
        apart = [np.abs(p - self.proba[i]).max() for i, (_, p) in self.alone.items() if p is not None]
        return float(max(apart, default=0.0))


def check(case: Case, folder: Path, say: Callable[[str], None]) -> Outcome:
    """Check one model.

    Parameters
    ----------
    case : Case
    folder : Path
        An empty folder, for the model.
    say : callable
        Called with what is being done, which is the last word on it where this process ends.
    """
    warnings.simplefilter("ignore")
    started, outcome = time.perf_counter(), Outcome(group=case.group, name=case.name, data=case.data)
    say("it was fitted")
    train, estimator = case.train(), case.fitted()
    say("it was logged")
    try:
        is_there = _save(case, estimator, train, folder, outcome)
        if is_there:
            _serve(case, estimator, train, folder, outcome, say)
    except FinPyfuncError as e:
        outcome.verdict, outcome.says = "wrong", f"{type(e).__name__} when it was served: {e}"
    outcome.seconds = round(time.perf_counter() - started, 2)
    return outcome


def _save(case: Case, estimator: Any, train: pd.DataFrame, folder: Path, outcome: Outcome) -> bool:
    """Save it as skops, or else pickled; whether it could be."""
    for serialization in ("skops", "cloudpickle"):
        try:
            fin_pyfunc.save_model(
                estimator, train, folder / serialization, input_example=None, serialization=serialization, **case.options
            )  # fmt: skip
        except NotLoggableError as e:
            if "serialization='cloudpickle'" in str(e) and serialization == "skops":
                outcome.says, outcome.is_pickled = str(e), True
                continue
            outcome.verdict, outcome.says, outcome.is_pickled = "refused", str(e), False
            return False
        (folder / serialization).rename(folder / "model")
        return True
    return False


def _serve(
    case: Case, estimator: Any, train: pd.DataFrame, folder: Path, outcome: Outcome, say: Callable[[str], None]
) -> None:
    models = {"native": fin_pyfunc.load_model(str(folder / "model"), backend="native")}
    manifest = models["native"].manifest
    assert manifest is not None
    compiled = [form.backend for form in manifest.forms] + ["forest" for form in manifest.forms if can_run(form)]
    models |= {name: fin_pyfunc.load_model(str(folder / "model"), backend=name) for name in compiled}
    models["auto"] = fin_pyfunc.load_model(str(folder / "model"))
    renamed = dict(zip(_classes(estimator, manifest.classes), manifest.classes, strict=True))
    say("the estimator itself was asked")
    own = _own(case, estimator, train, manifest.features, renamed)
    for name, model in models.items():
        say(f"{name} was asked")
        tolerance = NATIVE_TOLERANCE if name == "native" else manifest.tolerance
        compared = _compare(model, own, max(tolerance, 4 * own.spread), ALONE.get(name, ALONE_COMPILED))
        outcome.flips += len(compared.flips)
        outcome.answers += compared.answers
        if name != "auto":
            outcome.differences[name] = compared.difference
        if compared.problem and outcome.verdict == "served":
            outcome.verdict, outcome.says = "wrong", f"{name}: {compared.problem}"
    if outcome.verdict == "served" and not outcome.is_pickled and not compiled:
        reasons = manifest.dropped
        outcome.says = reasons.get("onnx") or next(iter(reasons.values()), "")


def _classes(estimator: Any, classes: Any) -> list[Any]:
    own = getattr(estimator, "classes_", None)
    return list(classes) if own is None else np.asarray(own).tolist()


def _own(case: Case, estimator: Any, train: pd.DataFrame, spec: FeatureSpec, renamed: dict[Any, Any]) -> Own:
    has_proba = callable(getattr(estimator, "predict_proba", None))

    def taken(frame: pd.DataFrame) -> Any:
        return frame.to_numpy() if case.on == "NumPy array" else frame

    def asked(frame: pd.DataFrame) -> tuple[Array, Array | None] | None:
        """Labels and probabilities; None where it raises, or answers no probabilities."""
        try:
            with np.errstate(all="ignore"):
                labels = np.asarray(estimator.predict(taken(frame))).reshape(-1)
                p = as_array(estimator.predict_proba(taken(frame))) if has_proba else None
        except Exception:  # whatever it raises, it does not answer
            return None
        if p is not None and not ((p >= -_ROUNDING) & (p <= 1 + _ROUNDING)).all():
            return None
        return np.array([renamed[label] for label in labels.tolist()], dtype=object), p

    def scores(frame: pd.DataFrame) -> Array:
        method = "predict_proba" if has_proba else "decision_function"
        if not hasattr(estimator, method):
            return np.zeros((len(frame), 1))
        try:
            found = as_array(getattr(estimator, method)(taken(frame)))
        except Exception:
            return np.zeros((len(frame), 1))
        return found.reshape(len(frame), -1)

    with np.errstate(all="ignore"):
        rows = hard_rows(estimator, train, spec, scores)
    answered, refused = _parted(rows, asked)
    frame = pd.concat([f for f, _ in answered], ignore_index=True)
    labels = np.concatenate([a[0] for _, a in answered])
    p = np.vstack([a[1] for _, a in answered]) if has_proba else None
    own = Own(frame, labels, p, refused)
    for i in _some(len(frame), ALONE_COMPILED if len(frame) else 0)[: ALONE["native"]]:
        if (alone := asked(frame.iloc[[i]])) is not None:
            own.alone[int(i)] = (alone[0][0], None if alone[1] is None else alone[1][0])
    return own


def _parted(rows: pd.DataFrame, asked: Callable[[pd.DataFrame], Any]) -> tuple[list[tuple[pd.DataFrame, Any]], pd.DataFrame]:
    """Rows that are answered, with their answers, and rows that are not; found by halving, in 300 calls at most."""
    answered, refused, pending, calls = [], [], [rows], 0
    while pending:
        block, calls = pending.pop(0), calls + 1
        if (answer := asked(block)) is not None:
            answered.append((block, answer))
        elif len(block) > 1 and calls < 300:
            middle = len(block) // 2
            pending += [block.iloc[:middle], block.iloc[middle:]]
        else:
            refused.append(block)
    return answered, pd.concat(refused, ignore_index=True) if refused else rows.iloc[:0]


@dataclass
class Compared:
    """Answers of one backend held to the estimator's own."""

    difference: float = 0.0
    flips: list[int] = field(default_factory=list)
    answers: int = 0
    problem: str = ""


def _compare(model: Any, own: Own, tolerance: float, n_alone: int) -> Compared:
    compared = Compared()
    for rows, answer in _answers(model, own, n_alone):
        compared.answers += len(rows)
        for row, label, p, word in zip(rows, *answer, strict=True):
            _hold(compared, model, own, int(row), label, p, word)
    if compared.flips:
        compared.problem = f"{len(compared.flips)} of {compared.answers} answers have another class or confidence"
    elif not compared.difference <= tolerance:
        compared.problem = f"a probability is off by {compared.difference:.1g}"
    for i in range(min(_REFUSED, len(own.refused))):
        try:
            model.predict(own.refused.iloc[[i]])
        except FinPyfuncError:
            continue
        compared.problem = compared.problem or "a row that the estimator refuses is answered"
    return compared


def _answers(model: Any, own: Own, n_alone: int) -> Iterator[tuple[Array, tuple[Any, Any, Any]]]:
    """Row numbers and what is answered: all at once, in batches of rows from all over, and alone as JSON has them."""
    n = len(own.frame)
    yield np.arange(n), _of_frame(model.predict(own.frame))
    for size, most in BATCHES:
        order = np.random.default_rng(size).permutation(n)[:most]
        for at in range(0, len(order), size):
            rows = order[at : at + size]
            yield rows, _of_frame(model.predict(own.frame.iloc[rows]))
    alone = _some(n, ALONE_COMPILED)[:n_alone]
    for i, row in zip(alone, as_rows(own.frame.iloc[alone]), strict=True):
        one = model.predict_one(row)
        p = None if one["probabilities"] is None else list(one["probabilities"].values())
        yield np.array([i]), ([one["prediction"]], [p], [one["confidence"]])


def _of_frame(answers: pd.DataFrame) -> tuple[Any, Any, Any]:
    columns = [name for name in answers.columns if name.startswith("probability_")]
    p = answers[columns].to_numpy() if columns else [None] * len(answers)
    return answers["prediction"].tolist(), p, answers["confidence"].tolist()


def _some(n: int, most: int) -> Array:
    """Rows from all over, the same ones each time."""
    return np.random.default_rng(8).permutation(n)[:most]


def _hold(compared: Compared, model: Any, own: Own, row: int, label: Any, p: Any, word: str) -> None:
    """One answer: its class, its probabilities, its word of confidence."""
    expected = [(own.labels[row], None if own.proba is None else own.proba[row])]
    if row in own.alone:  # the estimator's own rounding may differ alone
        expected.append(own.alone[row])
    if label not in [each for each, _ in expected]:
        compared.flips.append(row)
        return
    if own.proba is None:
        return
    apart, words = [], []
    for each, own_p in expected:
        assert own_p is not None
        apart.append(float(np.abs(as_array(p) - own_p.clip(0, 1)).max()))
        chosen = own_p[list(model.manifest.classes).index(each)]
        words += [model.thresholds.confidence(chosen + by) for by in (0.0, -4 * own.spread, 4 * own.spread)]
    compared.difference = max(compared.difference, min(apart))
    if word not in words:
        compared.flips.append(row)


