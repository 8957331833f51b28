"""Log a model, ask every backend that it gets for hard rows, and compare each answer with the estimator's own."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import fin_pyfunc
from fin_pyfunc.model import dispatch
from fin_pyfunc.model.backends.forest import is_forest
from fin_pyfunc.model.errors import FinPyfuncError, NotLoggableError, ScoringError
from fin_pyfunc.model.features import FeatureSpec
from tests.authoring.checks import as_rows
from tests.zoo.case import Case, Outcome, as_array
from tests.zoo.hard_rows import hard_rows

Array = np.ndarray[Any, Any]
#: Rows that are asked one at a time, of the estimator itself and of its compiled forms.
ALONE = {"native": 24}
ALONE_COMPILED = 60
#: Sizes of batches, and how many rows of each size are asked.
BATCHES = ((64, 192), (7, 56))
#: How far the estimator itself may be off when it was written and read back, unless it is off by itself.
NATIVE_TOLERANCE = 1e-9
#: How far beyond 0 or 1 a probability may be by rounding.
_ROUNDING = 1e-6
#: Beyond this, or below one in so many, a number is far out.
_FAR = 1e15
#: Rows that the estimator refuses, of which every backend is asked.
_REFUSED = 6


@dataclass(frozen=True)
class Own:
    """What the estimator itself answers, all rows at once and some of them alone.

    Parameters
    ----------
    frame : DataFrame
        The rows that it answers.
    answers : list of (ndarray of shape (n_rows,), ndarray of shape (n_rows, k) or None)
        Position in `classes` and probabilities: of all rows at once; of rows in batches, and alone, as far as they were
        asked so.
    refused : DataFrame
        The rows that it does not answer.
    spread : float
        How far its own probabilities of a row differ, alone and among others.
    is_unsteady : bool
        Whether it refused, in a batch or alone, what it had answered beside other rows.
    """

    frame: pd.DataFrame
    answers: list[tuple[Array, Array | None]]
    refused: pd.DataFrame
    spread: float = 0.0
    is_unsteady: bool = False


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
    dispatch.BUDGET = 0.02  # nobody looks at how fast it is
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
            options = {"input_example": None, "serialization": serialization, **case.options}
            fin_pyfunc.save_model(estimator, train, folder / serialization, **options)
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
    compiled = [form.backend for form in manifest.forms] + ["forest" for form in manifest.forms if is_forest(form)]
    models |= {name: fin_pyfunc.load_model(str(folder / "model"), backend=name) for name in compiled}
    if compiled:
        models["auto"] = fin_pyfunc.load_model(str(folder / "model"))
    position = {label: i for i, label in enumerate(_classes(estimator, manifest.classes))}
    say("the estimator itself was asked")
    own = _own(case, estimator, train, manifest.features, position)
    for name, model in models.items():
        say(f"{name} was asked")
        tolerance = NATIVE_TOLERANCE if name == "native" else manifest.tolerance
        compared = _compare(model, own, max(tolerance, 4 * own.spread), ALONE.get(name, ALONE_COMPILED))
        outcome.flips += compared.flips
        outcome.answers += compared.answers
        if name != "auto":
            outcome.differences[name] = compared.difference
        if compared.problem and outcome.verdict == "served":
            outcome.verdict, outcome.says = "wrong", f"{name}: {compared.problem}"
    if outcome.verdict == "served" and not outcome.is_pickled and not compiled:
        reasons = manifest.dropped
        outcome.says = reasons.get("onnx") or next(iter(reasons.values()), "")
    if own.is_unsteady:
        outcome.says = f"{outcome.says}; the estimator itself answers a row otherwise beside other rows".lstrip("; ")


def _classes(estimator: Any, classes: Any) -> list[Any]:
    own = getattr(estimator, "classes_", None)
    return list(classes) if own is None else np.asarray(own).tolist()


def _own(case: Case, estimator: Any, train: pd.DataFrame, spec: FeatureSpec, position: dict[Any, int]) -> Own:
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
        return np.array([position[label] for label in labels.tolist()], dtype=np.intp), None if p is None else p.clip(
            0, 1
        )

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
    index = np.concatenate([a[0] for _, a in answered])
    p = np.vstack([a[1] for _, a in answered]) if has_proba else None
    if asked(frame) is None:  # a row that is far out spoils those beside it
        size = frame.select_dtypes("number").abs()
        near = ~((size > _FAR) | ((size > 0) & (size < 1 / _FAR))).any(axis=1).to_numpy()
        frame, index, p = frame[near].reset_index(drop=True), index[near], None if p is None else p[near]
    answers, spread, is_unsteady = [(index, p)], 0.0, False
    every, alone = [np.arange(len(frame))], _some(len(frame), ALONE_COMPILED)[: ALONE["native"], None]
    restored = spec.restore(spec.check(frame))  # the same in another layout, which BLAS may add up in another order
    batches = [(frame, _batches(len(frame), size, most)) for size, most in BATCHES]
    for of, rows_of in [(frame, every), (restored, every), (frame, alone), *batches]:
        other, other_p = index.copy(), None if p is None else p.copy()
        for some in rows_of:
            if (again := asked(of.iloc[some])) is None:
                is_unsteady = True
            else:
                other[some] = again[0]
                if other_p is not None:
                    other_p[some] = again[1]
        answers.append((other, other_p))
        spread = spread if p is None else max(spread, float(np.abs(p - other_p).max()))
    return Own(frame, answers, refused, spread, is_unsteady)


def _batches(n: int, size: int, most: int) -> list[Array]:
    """Row numbers of batches of one size, of rows from all over."""
    order = np.random.default_rng(size).permutation(n)[:most]
    return [order[at : at + size] for at in range(0, len(order), size)]


def _parted(
    rows: pd.DataFrame, asked: Callable[[pd.DataFrame], Any]
) -> tuple[list[tuple[pd.DataFrame, Any]], pd.DataFrame]:
    """Rows that are answered, with their answers, and rows that are not; found by halving, in some 300 calls."""
    answered, refused, pending, calls = [], [], [rows], 0
    while pending:
        block, calls = pending.pop(0), calls + 1
        if (answer := asked(block)) is not None:
            answered.append((block, answer))
        elif len(block) == 1:
            refused.append(block)
        elif calls < 300:
            middle = len(block) // 2
            pending += [block.iloc[:middle], block.iloc[middle:]]
    return answered, pd.concat(refused, ignore_index=True) if refused else rows.iloc[:0]


@dataclass
class Compared:
    """Answers of one backend held to the estimator's own."""

    difference: float = 0.0
    flips: int = 0
    answers: int = 0
    problem: str = ""


def _compare(model: Any, own: Own, tolerance: float, n_alone: int) -> Compared:
    compared = Compared()
    try:
        for rows, index, p, words in _answers(model, own, n_alone):
            _hold(compared, model, own, rows, (index, p, words))
    except ScoringError:
        if not own.is_unsteady:
            raise
    if own.is_unsteady:
        return Compared(answers=compared.answers)  # whatever it is held to would be no word of its own
    if compared.flips:
        compared.problem = f"{compared.flips} of {compared.answers} answers have another class or confidence"
    elif not compared.difference <= tolerance:
        compared.problem = f"a probability is off by {compared.difference:.1g}"
    for i in range(min(_REFUSED, len(own.refused))):
        try:
            model.predict(own.refused.iloc[[i]])
        except FinPyfuncError:
            continue
        compared.problem = compared.problem or "a row that the estimator refuses is answered"
    return compared


def _answers(model: Any, own: Own, n_alone: int) -> Iterator[tuple[Array, Array, Array | None, Array]]:
    """Row numbers and what is answered: all at once, in batches of rows from all over, and alone as JSON has them."""
    n, position = len(own.frame), {label: i for i, label in enumerate(model.manifest.classes)}

    def of_frame(rows: Array) -> tuple[Array, Array, Array | None, Array]:
        answers = model.predict(own.frame.iloc[rows])
        columns = [name for name in answers.columns if name.startswith("probability_")]
        p = answers[columns].to_numpy() if columns else None
        index = np.array([position[label] for label in answers["prediction"].tolist()])
        return rows, index, p, answers["confidence"].to_numpy()

    yield of_frame(np.arange(n))
    for size, most in BATCHES:
        yield from map(of_frame, _batches(n, size, most))
    alone = _some(n, ALONE_COMPILED)[:n_alone]
    ones = [model.predict_one(row) for row in as_rows(own.frame.iloc[alone])]
    index = np.array([position[one["prediction"]] for one in ones])
    has_proba = ones[0]["probabilities"] is not None
    p = as_array([list(one["probabilities"].values()) for one in ones]) if has_proba else None
    yield alone, index, p, np.array([one["confidence"] for one in ones], dtype=object)


def _some(n: int, most: int) -> Array:
    """Rows from all over, the same ones each time."""
    return np.random.default_rng(8).permutation(n)[:most]


def _hold(compared: Compared, model: Any, own: Own, rows: Array, answer: tuple[Array, Array | None, Array]) -> None:
    """The class, the probabilities and the word of confidence of each row, held to one of the estimator's own."""
    index, p, words = answer
    compared.answers += len(rows)
    is_right, is_word = np.zeros(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
    apart = np.full(len(rows), np.inf)
    for own_index, own_p in own.answers:
        same = own_index[rows] == index
        is_right |= same
        if p is None or own_p is None:
            is_word |= words == "unknown"
            apart[:] = 0.0
            continue
        apart = np.minimum(apart, np.where(same, np.abs(p - own_p[rows]).max(axis=1), np.inf))
        chosen = own_p[rows, own_index[rows]]
        for by in (0.0, -4 * own.spread, 4 * own.spread):  # its own rounding may be what the word hangs on
            is_word |= words == [model.thresholds.confidence(each) for each in chosen + by]
    compared.flips += int((~is_right | ~is_word).sum())
    compared.difference = max(compared.difference, float(apart[is_right].max(initial=0.0)))
