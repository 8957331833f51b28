"""What is counted of each request: when it was answered, and what was predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import pandas as pd
from starlette.types import Scope

from fin_pyfunc.model.decision import label_names
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.values import OTHER, Values
from fin_pyfunc.serving.prediction import Prediction, model_of

#: Answers of one model are counted together, once they have so many rows: one at a time would cost each several times
#: as much, and more of them would hold up the event loop.
TOGETHER = 128
#: What is told of a prediction's time, and what is counted of that; and of its waits.
_STEPS = attrgetter("began", "decoded", "started", "scored", "encoded")
_TOOK = (m.REQUEST_SECONDS, m.DECODE_SECONDS, m.SCORE_SECONDS, m.ENCODE_SECONDS)
_WAITED = (m.LOAD_WAIT_SECONDS, m.QUEUE_SECONDS)
#: What an answer that was never sent has for a status, as nginx has it.
CLIENT_WENT_AWAY = 499
#: How what was wrong with a value begins, and what it is counted as.
_REASONS = (
    ("missing", "missing"), ("null", "null"), ("NaN", "null"), ("infinite", "infinite"), ("unknown", "unknown"),
    ("must be one of", "category"), ("must be", "type"),
)  # fmt: skip


class _Kept:
    """Answers of one model on one path that are not counted yet."""

    __slots__ = ("are_single", "predictions", "rows", "seconds")

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.predictions: list[Prediction] = []
        self.rows, self.are_single = 0, True

    def add(self, seconds: float, prediction: Prediction) -> None:
        """Keep one more."""
        self.seconds.append(seconds)
        self.predictions.append(prediction)
        n_rows = len(prediction.table)
        self.rows += n_rows
        if n_rows != 1:
            self.are_single = False


class RequestMetrics:
    """Counts requests, and the predictions they were answered with; an `Observer` of the boundary.

    Parameters
    ----------
    values : Values
    routes : collection of str
        Every path there is; any other one is counted as "other".
    """

    def __init__(self, values: Values, routes: Collection[str]) -> None:
        self._values, self._routes = values, frozenset(routes)
        #: by path and model, which is there as long as a prediction of it is
        self._kept: dict[tuple[str, int], _Kept] = {}

    def answered(self, scope: Scope, status: int, seconds: float, error: Exception | None, /) -> None:
        """Count one request, whatever became of it."""
        prediction: Prediction | None = scope["state"].get("prediction")
        if prediction is not None and status == 200:
            key = scope["path"], id(prediction.loaded)
            kept = self._kept.get(key)
            if kept is None:
                kept = self._kept[key] = _Kept()
            kept.add(seconds, prediction)
            if kept.rows >= TOGETHER:
                del self._kept[key]
                self._count_kept(key[0], kept)
            return
        path = self._route(scope["path"])
        self._values.add(m.REQUESTS, path, str(status or CLIENT_WENT_AWAY), model_of(scope, error))
        self._values.observe(m.REQUEST_SECONDS, path, value=seconds)
        if status == 429:
            self._values.add(m.RATE_LIMITED, path)
        elif isinstance(error, FeatureError):
            self._count_refused(error)

    def count(self) -> None:
        """Count what was kept to be counted together."""
        all_kept, self._kept = self._kept, {}
        for (path, _), kept in all_kept.items():
            self._count_kept(path, kept)

    def _count_kept(self, path: str, kept: _Kept) -> None:
        loaded = kept.predictions[0].loaded
        self._values.add(m.REQUESTS, path, "200", loaded.resolved.model_id, by=len(kept.predictions))
        self._count_steps(path, kept)
        self._count_features(loaded, kept)
        # a model that does not say its classes has others with each answer
        alike: dict[int, list[Prediction]] = {}
        for p in kept.predictions:
            alike.setdefault(id(p.decisions.scores.classes), []).append(p)
        for of_classes in alike.values():
            self._count_answers(of_classes)

    def _route(self, path: str) -> str:
        return path if path in self._routes else OTHER

    def _count_refused(self, error: FeatureError) -> None:
        for problem in error.problems:
            reason = next((reason for start, reason in _REASONS if problem.problem.startswith(start)), OTHER)
            # a name that the model does not know is the caller's own
            self._values.add(m.FEATURES_REFUSED, OTHER if reason == "unknown" else problem.feature, reason)

    def _count_steps(self, path: str, kept: _Kept) -> None:
        predictions, n = kept.predictions, len(kept.predictions)
        steps = [*chain.from_iterable(map(_STEPS, predictions))]  # a flat list becomes an array sooner
        began, decoded, started, scored, encoded = np.array(steps).reshape(n, 5).T
        took = np.array([kept.seconds, decoded - began, scored - started, encoded - scored])
        self._values.observe_all(_TOOK, path, values=took)
        # most predictions wait for nothing
        waited = [p for p in predictions if p.entered is not p.began or p.started is not p.decoded]
        if waited:
            waits = [[p.found - p.entered for p in waited], [p.began - p.found + p.started - p.decoded for p in waited]]
            self._values.observe_all(_WAITED, path, values=np.array(waits))
        for metric in _WAITED:
            self._values.observe(metric, path, value=0.0, times=n - len(waited))
        if kept.are_single:
            self._values.observe(m.ROWS_PER_REQUEST, path, value=1.0, times=n)
        else:
            rows = np.array([[len(p.table) for p in predictions]], dtype=np.float64)
            self._values.observe_all((m.ROWS_PER_REQUEST,), path, values=rows)

    def _count_answers(self, predictions: list[Prediction]) -> None:
        model, classes = predictions[0].loaded.resolved.model_id, label_names(predictions[0].decisions.scores.classes)
        indices = _stacked([p.decisions.scores.index for p in predictions])
        by_class = dict(zip(classes, np.bincount(indices, minlength=len(classes)).tolist(), strict=True))
        backends = {p.decisions.backend for p in predictions}
        if len(backends) == 1:
            by_backend = dict.fromkeys(backends, len(indices))
        else:
            by_backend = {b: sum(len(p.table) for p in predictions if p.decisions.backend == b) for b in backends}
        by_confidence = _confidences(predictions, indices)
        for metric, counts in ((m.PREDICTIONS, by_class), (m.CONFIDENCES, by_confidence), (m.BACKENDS, by_backend)):
            for label, n in counts.items():
                if n:
                    self._values.add(metric, model, label, by=n)

    def _count_features(self, loaded: LoadedModel, kept: _Kept) -> None:
        features, manifest = loaded.model.features, loaded.model.manifest
        if features is None:
            return
        ranges = {} if manifest is None else manifest.ranges
        tables = [p.table for p in kept.predictions]
        if features.is_numeric:
            values = _stacked(tables)
            bounds = np.array([ranges.get(name, (-np.inf, np.inf)) for name in features.names], dtype=np.float64)
            inside = (values >= bounds[:, 0]) & (values <= bounds[:, 1])  # NaN is nowhere
            if inside.all():
                return
            nulls = np.isnan(values).sum(axis=0)
            outside = len(values) - inside.sum(axis=0) - nulls
        else:
            frame = pd.concat([features.restore(table) for table in tables], ignore_index=True)
            nulls = np.array([pd.isna(frame[name]).sum() for name in features.names])
            outside = np.array([_n_outside(frame[name], ranges.get(name)) for name in features.names])
        for metric, counts in ((m.FEATURES_NULL, nulls), (m.FEATURES_OUT_OF_RANGE, outside)):
            for i in np.flatnonzero(counts).tolist():
                self._values.add(metric, loaded.resolved.model_id, features.names[i], by=int(counts[i]))


def _stacked(parts: list[Any]) -> np.ndarray[Any, Any]:
    """Arrays of one dtype below each other; three times as fast as `np.concatenate` for many rows of their own."""
    first = parts[0]
    try:
        flat = np.frombuffer(b"".join(parts), dtype=first.dtype)
    except BufferError:  # of a table that lies in memory column by column
        return np.concatenate(parts)
    return flat.reshape(-1, *first.shape[1:])


def _n_outside(column: Any, bounds: tuple[float, float] | None) -> int:
    return 0 if bounds is None else int(((column < bounds[0]) | (column > bounds[1])).sum())


def _confidences(predictions: list[Prediction], indices: np.ndarray[Any, Any]) -> Counter[str]:
    """How many rows of each confidence; all of one model."""
    of_each = [p.decisions.scores.probabilities for p in predictions]
    found = [p for p in of_each if p is not None]
    if len(found) < len(of_each):
        return Counter(chain.from_iterable(p.decisions.confidences for p in predictions))
    chosen, thresholds = _stacked(found)[np.arange(len(indices)), indices], predictions[0].decisions.thresholds
    high, fair = int((chosen >= thresholds.high).sum()), int((chosen >= thresholds.medium).sum())
    return Counter(high=high, medium=fair - high, low=len(chosen) - fair)
