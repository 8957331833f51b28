"""From probabilities to what a user reads: the class, its probability, and a word for how sure the model is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np
import pandas as pd

#: A class label as it was trained.
Label = int | float | str | bool
Probabilities = np.ndarray[Any, np.dtype[np.float64]]


class Thresholds(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """From which probability of the predicted class an answer counts as sure.

    Parameters
    ----------
    high : float in [0, 1], default 0.8
    medium : float in [0, `high`], default 0.6
        Below it the confidence is "low". Defaults are the HTTP contract's.
    """

    high: float = 0.8
    medium: float = 0.6

    def __post_init__(self) -> None:
        if not 0 <= self.medium <= self.high <= 1:
            raise ValueError("confidence thresholds must satisfy 0 <= medium <= high <= 1")

    def confidence(self, probability: float) -> str:
        """The word for one probability of the predicted class."""
        return "high" if probability >= self.high else "medium" if probability >= self.medium else "low"


class Scores(msgspec.Struct, frozen=True, kw_only=True):
    """What a backend computes for n rows.

    Parameters
    ----------
    classes : sequence of Label, length k
        Labels in `predict_proba`'s column order.
    index : ndarray of shape (n,), intp
        Position in `classes` of each row's predicted class, as the estimator's own `predict` decides it.
    probabilities : ndarray of shape (n, k), float64, or None
        None where the model has no probabilities.
    names : sequence of str or None, default None
        What `label_names` makes of `classes`, where a backend keeps it; else it is made when it is wanted.
    """

    classes: Sequence[Label]
    index: np.ndarray[Any, np.dtype[np.intp]]
    probabilities: Probabilities | None
    names: Sequence[str] | None = None


class Decisions:
    """The answers for n rows, in whichever form they are wanted.

    Parameters
    ----------
    scores : Scores
    thresholds : Thresholds
    backend : str
        Name of the backend that computed the scores.
    """

    __slots__ = ("_first", "backend", "scores", "thresholds")

    def __init__(self, scores: Scores, thresholds: Thresholds, backend: str) -> None:
        self.scores, self.thresholds, self.backend = scores, thresholds, backend
        #: what `one` answered, for whoever asks again: the record does
        self._first: dict[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.scores.index)

    @property
    def predictions(self) -> list[Label]:
        """The predicted label of each row."""
        classes = self.scores.classes
        return [classes[i] for i in self.scores.index.tolist()]

    @property
    def chosen(self) -> Probabilities | None:
        """Probability of each row's predicted class, of shape (n,)."""
        p = self.scores.probabilities
        return None if p is None else p[np.arange(len(p)), self.scores.index]

    @property
    def confidences(self) -> list[str]:
        """One of "high", "medium" and "low" a row, or "unknown" where the model has no probabilities."""
        if (chosen := self.chosen) is None:
            return ["unknown"] * len(self)
        sure, fair = chosen >= self.thresholds.high, chosen >= self.thresholds.medium
        words: list[str] = np.where(sure, "high", np.where(fair, "medium", "low")).tolist()
        return words

    @property
    def distributions(self) -> list[dict[str, float]] | None:
        """Each row's whole distribution, keyed by the label as text."""
        if self.scores.probabilities is None:
            return None
        names = label_names(self.scores.classes)
        return [dict(zip(names, row, strict=True)) for row in self.scores.probabilities.tolist()]

    def one(self, return_proba: bool = True) -> dict[str, Any]:
        """The first row's answer: the four keys of ``POST /predict``, in their order. Not to be changed."""
        if return_proba and self._first is not None:
            return self._first
        classes, index, p = self.scores.classes, int(self.scores.index[0]), self.scores.probabilities
        if p is None:
            return {"prediction": classes[index], "probability": None, "probabilities": None, "confidence": "unknown"}
        row = p[0].tolist()
        answer = {
            "prediction": classes[index],
            "probability": row[index] if return_proba else None,
            "probabilities": dict(zip(self.scores.names or label_names(classes), row, strict=True))
            if return_proba
            else None,
            "confidence": self.thresholds.confidence(row[index]),
        }
        if return_proba:
            self._first = answer
        return answer

    def frame(self, return_proba: bool = True, index: pd.Index[Any] | None = None) -> pd.DataFrame:
        """All answers as a DataFrame: `prediction`, `probability`, `confidence` and one `probability_<label>` a class.

        The probability columns are left out when `return_proba` is false or the model has none.
        """
        p = self.scores.probabilities if return_proba else None
        columns: dict[str, Any] = {"prediction": _column(_labels(self.scores.classes)[self.scores.index], index)}
        if p is not None:
            columns["probability"] = self.chosen
        columns["confidence"] = _column(np.asarray(self.confidences, dtype=object), index)
        if p is not None:
            columns |= {f"probability_{name}": p[:, i] for i, name in enumerate(label_names(self.scores.classes))}
        return pd.DataFrame(columns, index=index)


def _column(values: np.ndarray[Any, Any], index: pd.Index[Any] | None) -> Any:
    """Text as objects: pandas 3 makes its own dtype of it, which MLServer does not know."""
    return pd.Series(values, index, dtype=object) if values.dtype.kind in "OU" else values


def _labels(classes: Sequence[Label]) -> np.ndarray[Any, Any]:
    """Labels as an array of their own type; NumPy would make text of ["a", 1], and 1 of True beside 2."""
    kinds = {type(label) for label in classes}
    return np.array(classes, dtype=None if len(kinds) == 1 or kinds <= {int, float} else object)


def label_names(classes: Sequence[Label]) -> list[str]:
    """Labels as text, as JSON would write them: -1 is "-1", True is "true"."""
    return [label if isinstance(label, str) else _as_json(label) for label in classes]


@lru_cache(maxsize=1024, typed=True)  # True is no 1
def _as_json(label: Label) -> str:
    return msgspec.json.encode(label).decode()
