"""One model of the zoo, and what came of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
import pandas as pd

from tests.zoo import tables

THREE, CODES, TWO = (-1, 0, 1), (0, 1, 2), ("down", "up")
#: Fits an estimator to a table and its labels.
Fit = Callable[[Any, Any], Any]


@dataclass(frozen=True)
class Case:
    """A model to log and to serve.

    Parameters
    ----------
    group, name : str
        The heading and the line of docs/models.md.
    fit : callable
        Table and labels to a fitted estimator.
    on : str, default "numbers"
        Name of its training table in `tables.TABLES`.
    classes : tuple of label, default (-1, 0, 1)
    options : mapping, optional
        Keywords of `fin_pyfunc.save_model`.
    variant : str, default ""
        What else tells it from others of its name.
    """

    group: str
    name: str
    fit: Fit
    on: str = "numbers"
    classes: tuple[Any, ...] = THREE
    options: Mapping[str, Any] = field(default_factory=dict)
    variant: str = ""

    @property
    def data(self) -> str:
        """What the page calls its training data."""
        return ", ".join(filter(None, (self.variant, self.on, "two classes" if len(self.classes) == 2 else "")))

    @property
    def key(self) -> str:
        """Its name among all others."""
        return f"{self.group} / {self.name} / {self.data}"

    def train(self) -> pd.DataFrame:
        """Its training table."""
        return tables.TABLES[self.on]()

    def fitted(self) -> Any:
        """The estimator, fitted anew."""
        X = self.train()
        return self.fit(X.to_numpy() if self.on == "NumPy array" else X, tables.labels(self.classes))


class Outcome(msgspec.Struct, kw_only=True):
    """What came of a case.

    Parameters
    ----------
    verdict : {"served", "refused", "wrong", "crashed"}
    differences : dict of str to float
        By backend, the greatest difference of a probability from the estimator's own.
    flips : int
        Answers with another class, or another word of confidence, than the estimator's.
    answers : int
        Answers that were compared.
    is_pickled : bool
        Served only with ``serialization="cloudpickle"``.
    says : str
        The sentence that the user gets where it, or skops, refuses; what is wrong; or why nothing is compiled.
    seconds : float
    """

    group: str
    name: str
    data: str
    verdict: Literal["served", "refused", "wrong", "crashed"] = "served"
    differences: dict[str, float] = {}
    flips: int = 0
    answers: int = 0
    is_pickled: bool = False
    says: str = ""
    seconds: float = 0.0

    @property
    def served_by(self) -> str:
        """Its compiled backends, or the estimator itself."""
        if self.verdict != "served":
            return self.verdict
        compiled = sorted(self.differences.keys() - {"native"})
        return f"{', '.join(compiled) or 'native'}{' (cloudpickle)' if self.is_pickled else ''}"


def fitting(make: Callable[[], Any]) -> Fit:
    """Fit what `make` makes."""
    return lambda X, y: make().fit(X, y)


def sk(path: str, *given: Any, **options: Any) -> Any:
    """An estimator of scikit-learn by the dotted name of its class."""
    module, _, name = path.rpartition(".")
    return getattr(__import__(f"sklearn.{module}", fromlist=[name]), name)(*given, **options)


def linear() -> Any:
    """A logistic regression."""
    return sk("linear_model.LogisticRegression", max_iter=300)


def forest(**options: Any) -> Any:
    """A small random forest."""
    return sk("ensemble.RandomForestClassifier", n_estimators=10, max_depth=5, random_state=0, **options)


def piped(*steps: Any) -> Any:
    """A Pipeline of these steps."""
    from sklearn.pipeline import make_pipeline

    return make_pipeline(*steps)


def as_array(values: Any) -> np.ndarray[Any, Any]:
    """Probabilities as float64."""
    return np.asarray(values, dtype=np.float64)
