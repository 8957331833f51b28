"""What is counted of each request: when it was answered, and what was predicted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from starlette.types import Scope

from fin_pyfunc.model.decision import label_names
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.values import OTHER, Values
from fin_pyfunc.serving.prediction import Prediction, model_of

#: Answers of one model are counted together, once they have so many rows: one at a time would cost each several times
#: as much, and more of them would hold up the event loop.
TOGETHER = 128
#: What an answer that was never sent has for a status, as nginx has it.
CLIENT_WENT_AWAY = 499
#: How what was wrong with a value begins, and what it is counted as.
_REASONS = (
    ("missing", "missing"), ("null", "null"), ("NaN", "null"), ("infinite", "infinite"), ("unknown", "unknown"),
    ("must be one of", "category"), ("must be", "type"),
)  # fmt: skip


class _Kept:
    """Answers of one model on one path that are not counted yet."""

    __slots__ = ("predictions", "rows", "seconds")

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.predictions: list[Prediction] = []
        self.rows = 0


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
            kept.seconds.append(seconds)
            kept.predictions.append(prediction)
            kept.rows += len(prediction.table)
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
        self._values.observe_all(m.REQUEST_SECONDS, path, values=np.array(kept.seconds))
        self._values.add(m.REQUESTS, path, "200", loaded.resolved.model_id, by=len(kept.predictions))
        self._count_steps(path, kept.predictions)
        self._count_features(loaded, [p.table for p in kept.predictions])
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

    def _count_steps(self, path: str, predictions: Iterable[Prediction]) -> None:
        steps = [(p.entered, p.found, p.began, p.decoded, p.started, p.scored, p.encoded) for p in predictions]
        entered, found, began, decoded, started, scored, encoded = np.array(steps, dtype=np.float64).T
        for metric, seconds in (
            (m.LOAD_WAIT_SECONDS, found - entered),
            (m.QUEUE_SECONDS, (began - found) + (started - decoded)),
            (m.DECODE_SECONDS, decoded - began),
            (m.SCORE_SECONDS, scored - started),
            (m.ENCODE_SECONDS, encoded - scored),
        ):
            self._values.observe_all(metric, path, values=seconds)
        rows = np.array([len(p.table) for p in predictions], dtype=np.float64)
        self._values.observe_all(m.ROWS_PER_REQUEST, path, values=rows)

    def _count_answers(self, predictions: list[Prediction]) -> None:
        model, classes = predictions[0].loaded.resolved.model_id, label_names(predictions[0].decisions.scores.classes)
        indices = np.concatenate([p.decisions.scores.index for p in predictions])
        by_class = dict(zip(classes, np.bincount(indices, minlength=len(classes)).tolist(), strict=True))
        by_backend = Counter[str]()
        for p in predictions:
            by_backend[p.decisions.backend] += len(p.table)
        by_confidence = _confidences(predictions, indices)
        for metric, counts in ((m.PREDICTIONS, by_class), (m.CONFIDENCES, by_confidence), (m.BACKENDS, by_backend)):
            for label, n in counts.items():
                if n:
                    self._values.add(metric, model, label, by=n)

    def _count_features(self, loaded: LoadedModel, tables: list[Table]) -> None:
        features, manifest = loaded.model.features, loaded.model.manifest
        if features is None:
            return
        ranges = {} if manifest is None else manifest.ranges
        if features.is_numeric:
            values = np.concatenate(tables).astype(np.float64, copy=False)
            bounds = np.array([ranges.get(name, (-np.inf, np.inf)) for name in features.names], dtype=np.float64)
            nulls = np.isnan(values).sum(axis=0)
            outside = ((values < bounds[:, 0]) | (values > bounds[:, 1])).sum(axis=0)
        else:
            frame = pd.concat([features.restore(table) for table in tables], ignore_index=True)
            nulls = np.array([pd.isna(frame[name]).sum() for name in features.names])
            outside = np.array([_n_outside(frame[name], ranges.get(name)) for name in features.names])
        for metric, counts in ((m.FEATURES_NULL, nulls), (m.FEATURES_OUT_OF_RANGE, outside)):
            for i in np.flatnonzero(counts).tolist():
                self._values.add(metric, loaded.resolved.model_id, features.names[i], by=int(counts[i]))


def _n_outside(column: Any, bounds: tuple[float, float] | None) -> int:
    return 0 if bounds is None else int(((column < bounds[0]) | (column > bounds[1])).sum())


def _confidences(predictions: list[Prediction], indices: np.ndarray[Any, Any]) -> Counter[str]:
    """How many rows of each confidence; all of one model."""
    of_each = [p.decisions.scores.probabilities for p in predictions]
    found = [p for p in of_each if p is not None]
    if len(found) < len(of_each):
        return Counter(chain.from_iterable(p.decisions.confidences for p in predictions))
    chosen, thresholds = np.concatenate(found)[np.arange(len(indices)), indices], predictions[0].decisions.thresholds
    high, fair = int((chosen >= thresholds.high).sum()), int((chosen >= thresholds.medium).sum())
    return Counter(high=high, medium=fair - high, low=len(chosen) - fair)
