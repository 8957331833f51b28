"""The estimator itself, as scikit-learn would call it: the answer every other backend is held to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np

from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.alike import score_alike
from fin_pyfunc.model.backends.class_threshold import class_threshold
from fin_pyfunc.model.backends.following import gap, unclear
from fin_pyfunc.model.backends.nameless import nameless
from fin_pyfunc.model.decision import Label, Probabilities, Scores
from fin_pyfunc.model.device import is_device_failure
from fin_pyfunc.model.errors import DeviceError, ScoringError
from fin_pyfunc.model.features import FeatureSpec, Table
from fin_pyfunc.model.parts import to_host

#: How far beyond 0 or 1 a probability may lie by rounding alone (exp of a log-sum, a weighted mean, float32).
ROUNDING = 1e-6


class NativeBackend:
    """Scores with the fitted estimator.

    Parameters
    ----------
    estimator : object with `predict`, and perhaps `predict_proba`
        Fitted. Its `n_jobs` are set to 1: threads cost more than they save on few rows, and the order in which a
        forest's threads add up makes the last bit of a probability depend on chance.
    spec : FeatureSpec or None
        None for a foreign model that says nothing of its features.
    classes : sequence of Label, length k, optional
        Labels of the columns of `predict_proba`; default the estimator's `classes_`.
    device : {"cpu", "gpu"}, default "cpu"
        Where the estimator computes.
    """

    name = "native"

    def __init__(
        self,
        estimator: Any,
        spec: FeatureSpec | None,
        classes: Sequence[Label] | None = None,
        device: Literal["cpu", "gpu"] = "cpu",
    ) -> None:
        self.estimator, self._spec = estimator, spec
        self.device: Literal["cpu", "gpu"] = device
        own = labels_of(estimator)
        self._classes = list(own if classes is None else classes)
        #: the estimator's own label of each column, which `classes` may rename
        self._position = {label: i for i, label in enumerate(own or self._classes)}
        if not own and not any(i in self._position for i in range(len(self._classes))):
            self._position |= {i: i for i in range(len(self._classes))}  # an object without labels may count columns
        self._has_proba = has_proba(estimator)
        self._is_untyped = spec is None or spec.is_untyped
        self._wants_names = (
            hasattr(estimator, "feature_names_in_")
            or not hasattr(estimator, "n_features_in_")
            or (spec is not None and spec.has_numbers_for_names)
        )
        self._gap = gap(estimator, self._wants_names) if self._has_proba else None
        self._threshold = class_threshold(estimator) if self._has_proba else None
        for part in _parallel_parts(estimator):
            _set_jobs(part, 1)
        #: what is asked instead of it where its features are a matrix
        self._nameless = nameless(estimator) if spec is not None and spec.is_float64 else None

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        if not len(table):  # estimators refuse to look at no rows at all
            none = np.empty((0, len(self._classes))) if self._has_proba else None
            return Scores(classes=self._classes, index=np.empty(0, dtype=np.intp), probabilities=none)
        return score_alike(table, self._score) if self._is_untyped else self._score(table)

    def _score(self, table: Table) -> Scores:
        X = self._estimator_input(table)
        probabilities = self._call("predict_proba", X) if self._has_proba else None
        checked = None if probabilities is None else self._check(probabilities, len(table))
        if checked is not None and self._threshold is not None:
            index = self._threshold.index(np.asarray(probabilities))
        elif self._gap is None or checked is None:
            index = self._index(self._call("predict", X), len(table))
        else:
            index = checked.argmax(axis=1)
            # too close to call: `predict` compares what probabilities are made of
            if self._gap and len(rows := unclear(checked, self._gap)):
                asked = X.iloc[rows] if hasattr(X, "iloc") else X[rows]
                index[rows] = self._index(self._call("predict", asked), len(rows))
        return Scores(classes=self._classes, index=index, probabilities=checked)

    @property
    def classes(self) -> list[Label]:
        """Labels of the scores' columns."""
        return self._classes

    @property
    def has_proba(self) -> bool:
        """Whether its scores have probabilities."""
        return self._has_proba

    @property
    def type_name(self) -> str:
        """Name of the estimator's class."""
        return type(self.estimator).__name__

    def of(self, estimator: Any, device: Literal["cpu", "gpu"]) -> NativeBackend:
        """The same features and labels, computed by another estimator."""
        return NativeBackend(estimator, self._spec, self._classes, device)

    def call(self, method: str, table: Table) -> Any:
        """What one of the estimator's methods says of each row.

        Raises
        ------
        ScoringError
        """
        return self._call(method, self._estimator_input(table))

    def _call(self, method: str, X: Any) -> Any:
        asked = self.estimator if self._nameless is None or not isinstance(X, np.ndarray) else self._nameless
        try:
            answered = getattr(asked, method)(X)
            return answered if self.device == "cpu" else to_host(answered)
        except Exception as e:
            if self.device == "gpu" and is_device_failure(e):
                raise DeviceError(f"the GPU failed while it scored ({type(e).__name__})") from e
            raise ScoringError(f"the estimator raised {type(e).__name__}") from e

    def _estimator_input(self, table: Table) -> Any:
        """What the estimator was fitted on (a DataFrame with its names, or an array), or what is the same to it."""
        if self._spec is None or (self._nameless is not None and isinstance(table, np.ndarray)):
            return table
        frame = self._spec.restore(table)
        return frame if self._wants_names else frame.to_numpy()

    def _check(self, probabilities: Any, n_rows: int) -> Probabilities:
        try:
            p = np.asarray(probabilities, dtype=np.float64)
        except (TypeError, ValueError):
            raise ScoringError("the estimator answered probabilities that are not a table of numbers") from None
        if p.shape != (n_rows, len(self._classes)):
            raise ScoringError(
                f"the estimator answered probabilities of shape {p.shape}, expected {(n_rows, len(self._classes))}"
            )
        if ((p >= 0) & (p <= 1)).all():
            return p
        if ((p >= -ROUNDING) & (p <= 1 + ROUNDING)).all():  # NaN fails both
            return p.clip(0, 1)
        raise ScoringError("the estimator answered a probability that is not a number between 0 and 1")

    def _index(self, predicted: Any, n_rows: int) -> np.ndarray[Any, np.dtype[np.intp]]:
        try:
            labels = np.asarray(predicted).reshape(-1).tolist()
        except ValueError:
            raise ScoringError("the estimator answered predictions that are not one label a row") from None
        if len(labels) != n_rows:
            raise ScoringError(f"the estimator answered {len(labels)} predictions for {n_rows} rows")
        try:
            return np.fromiter((self._position[label] for label in labels), dtype=np.intp, count=n_rows)
        except (KeyError, TypeError):
            raise ScoringError("the estimator predicted a label that is not among its classes") from None


class LazyNative:
    """The estimator, read when it is first asked: a compiled form may never need it, nor scikit-learn's imports.

    Parameters
    ----------
    read : callable
        Makes the backend, a `NativeBackend` or what asks a process of its own; called once, on whichever thread asks
        first.
    device : {"cpu", "gpu"}, default "cpu"
        Where it computes.
    """

    name = "native"

    def __init__(self, read: Callable[[], Backend], device: Literal["cpu", "gpu"] = "cpu") -> None:
        self.device: Literal["cpu", "gpu"] = device
        self._read, self._reading = read, threading.Lock()
        self._backend: Backend | None = None

    @property
    def is_loaded(self) -> bool:
        """Whether the estimator is in memory."""
        return self._backend is not None

    def load(self) -> Backend:
        """The estimator's backend, read now if it has not been yet; raises what reading it raises."""
        if self._backend is None:
            with self._reading:
                if self._backend is None:
                    self._backend = self._read()
        return self._backend

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        return self.load().score(table)


def labels_of(estimator: Any) -> list[Label]:
    """The estimator's `classes_` as Python values; empty where it has none."""
    classes = getattr(estimator, "classes_", None)
    if isinstance(classes, list | tuple):  # of several outputs, each its own array
        return [label.tolist() if isinstance(label, np.ndarray | np.generic) else label for label in classes]
    labels = [] if classes is None else np.asarray(to_host(classes)).tolist()
    return labels if isinstance(labels, list) else []


def has_proba(estimator: Any) -> bool:
    """Whether `predict_proba` is there to be called (scikit-learn hides it where the settings rule it out)."""
    return callable(getattr(estimator, "predict_proba", None))


@contextmanager
def single_threaded(estimator: Any) -> Iterator[None]:
    """Set every `n_jobs` of an estimator to 1, and put the user's own back afterwards."""
    before = [(part, part.n_jobs) for part in _parallel_parts(estimator)]
    for part, _ in before:
        _set_jobs(part, 1)
    try:
        yield
    finally:
        for part, n_jobs in before:
            _set_jobs(part, n_jobs)


def _parallel_parts(estimator: Any) -> list[Any]:
    """The estimator and what it holds, as far as it has `n_jobs`."""
    return [part for part in parts_of(estimator) if "n_jobs" in vars(part) and hasattr(part, "set_params")]


def _set_jobs(part: Any, n_jobs: int | None) -> None:
    """Set `n_jobs`, and of an XGBoost estimator nothing else: its `set_params` writes every parameter into the fitted
    booster as text, which then knows no list of metrics and no dict of constraints.
    """
    if not any(of.__module__.startswith("xgboost.") for of in type(part).__mro__):
        part.set_params(n_jobs=n_jobs)
        return
    part.n_jobs = n_jobs
    if (booster := getattr(part, "_Booster", None)) is not None:
        booster.set_param({"nthread": n_jobs or 0})


def parts_of(estimator: Any) -> Iterator[Any]:
    """The estimator and the estimators that it holds; get_params does not name the parts made by fit."""
    seen, pending = set(), [estimator]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple):
            pending += part
        elif isinstance(part, dict):
            pending += part.values()
        elif hasattr(part, "__dict__") and not isinstance(part, type) and may_hold_parts(part):
            yield part
            pending += vars(part).values()


def may_hold_parts(part: Any) -> bool:
    """Whether an object is an estimator, or one of scikit-learn's that may hold some."""
    return hasattr(part, "get_params") or type(part).__module__.startswith("sklearn.")
