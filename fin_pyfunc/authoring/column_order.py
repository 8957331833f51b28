"""Whether X's columns are in the order that an estimator was trained in, where the estimator knows no names."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from fin_pyfunc.authoring.verify import Reference
from fin_pyfunc.model.backends.native import NativeBackend, labels_of, single_threaded
from fin_pyfunc.model.decision import Label
from fin_pyfunc.model.errors import NotLoggableError, ScoringError

logger = logging.getLogger("fin_pyfunc")

#: Fewest rows on which agreement with labels says anything, and how many standard errors above chance it must be.
FEWEST_ROWS, STANDARD_ERRORS = 10, 2.0
#: The same for two columns exchanged, of which there are many pairs; most rows, and seconds, that are spent on them.
EXCHANGE_ERRORS, MOST_ROWS, SECONDS = 5.0, 300, 1.0
_REMEDY = "pass X with its columns in the order of training"


def check_column_order(answers: Reference, n_rows: int, y: Any, predictions: Any) -> None:
    """Compare the estimator's answers with what the caller knows of the rows; warn where nothing is known.

    Parameters
    ----------
    answers : Reference
        What the estimator answers on rows of X, with its columns as they are.
    n_rows : int
        Of X.
    y : array-like of shape (n_rows,) or None
        Labels of X's rows.
    predictions : array-like of shape (n_rows,) or None
        What the estimator's own `predict` answered for X's rows.

    Raises
    ------
    NotLoggableError
        The estimator answers otherwise than `predictions`, or agrees with `y` no more often than by chance, or clearly
        more often once two columns are exchanged.
    """
    estimator = answers.estimator
    is_nameless = not hasattr(estimator, "feature_names_in_") and getattr(estimator, "n_features_in_", 0) > 1
    if predictions is not None:
        known = _positions("predictions", predictions, answers, n_rows)
        n_other = min(int((of != answers.scores.index).sum()) for of in known)
        if n_other:
            raise NotLoggableError(
                f"the estimator answers otherwise than predictions on {n_other} of {len(answers.rows)} rows: "
                f"{_REMEDY}, and the predictions of the same rows."
            )
    elif is_nameless:
        names = answers.spec.names
        logger.warning(
            "%s was fitted without feature names, so the order of X's columns is taken for the order of training (%s): "
            "fit it on a DataFrame, or pass predictions=, its answers for X's rows, which are then compared",
            type(estimator).__name__,
            ", ".join([*names[:5], *(["…"] if len(names) > 5 else [])]),
        )
    if y is not None:
        known = _positions("y", y, answers, n_rows)
        agreeing, by_chance = max((_agreement(of, answers.scores.index) for of in known), key=lambda found: found[0])
        error = math.sqrt(by_chance * (1 - by_chance) / len(answers.rows))
        if len(answers.rows) >= FEWEST_ROWS and error and agreeing < by_chance + STANDARD_ERRORS * error:
            raise NotLoggableError(
                f"the estimator agrees with y on {agreeing:.1%} of the rows, and would on {by_chance:.1%} by chance: "
                f"{_REMEDY}, and the labels of the same rows; leave y out if the model is that weak."
            )
        if is_nameless and predictions is None and (exchanged := _better_exchanged(answers, known)):
            raise NotLoggableError(
                f"the estimator agrees with y more often where {exchanged[0]!r} and {exchanged[1]!r} are exchanged: "
                f"{_REMEDY}."
            )


def _better_exchanged(
    answers: Reference, known: Sequence[np.ndarray[Any, np.dtype[np.intp]]]
) -> tuple[str, str] | None:
    """Two columns with which the estimator agrees with labels clearly more often once they are exchanged.

    By McNemar's test, on the rows that it gets right in one of the two orders alone.
    """
    names, rows = answers.spec.names, min(len(answers.rows), MOST_ROWS)
    X = answers.rows[names].iloc[:rows].to_numpy()
    right = [of[:rows] == answers.scores.index[:rows] for of in known]
    until = time.monotonic() + SECONDS
    with single_threaded(answers.estimator):
        native = NativeBackend(answers.estimator, None, answers.scores.classes)
        for i, j in combinations(range(len(names)), 2):
            order = list(range(len(names)))
            order[i], order[j] = j, i
            try:
                index = native.score(X[:, order]).index
            except ScoringError:  # a column of text in place of one of numbers
                continue
            for of, before in zip(known, right, strict=True):
                after = of[:rows] == index
                better, worse = int((after & ~before).sum()), int((before & ~after).sum())
                if better - worse > EXCHANGE_ERRORS * math.sqrt(better + worse):
                    return names[i], names[j]
            if time.monotonic() > until:
                break
    return None


def _positions(option: str, given: Any, answers: Reference, n_rows: int) -> list[np.ndarray[Any, np.dtype[np.intp]]]:
    """Labels as positions among the classes: by the estimator's labels, by those that `classes` puts in their place."""
    labels = np.asarray(given, dtype=object).reshape(-1).tolist()
    if len(labels) != n_rows:
        raise NotLoggableError(f"{option} has {len(labels)} labels, but X has {n_rows} rows: pass one a row.")
    taken = [labels[i] for i in answers.positions]
    found = [
        np.array([position[label] for label in taken], dtype=np.intp)
        for position in map(_index, (labels_of(answers.estimator), answers.scores.classes))
        if all(isinstance(label, str | int | float | bool | np.generic) and label in position for label in taken)
    ]
    if not found:
        raise NotLoggableError(f"{option} holds a label that is none of the classes: pass one label of them a row.")
    return found


def _index(labels: Sequence[Label]) -> dict[Label, int]:
    return {label: i for i, label in enumerate(labels)}


def _agreement(known: np.ndarray[Any, Any], answered: np.ndarray[Any, Any]) -> tuple[float, float]:
    """The share of rows that agree, and the share that would if the two knew nothing of each other; 1 where that cannot
    be told, since one of the two is always the same.
    """
    if min(len(set(of.tolist())) for of in (known, answered)) == 1:
        return float((known == answered).mean()), 1.0
    n_classes = int(max(known.max(), answered.max())) + 1
    shares = [np.bincount(of, minlength=n_classes) / len(of) for of in (known, answered)]
    return float((known == answered).mean()), float(shares[0] @ shares[1])
