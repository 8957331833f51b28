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

#: Predictions are looked at together, once they have so many rows: one at a time would cost each several times as much,
#: and more of them would hold up the event loop.
ROWS_TOGETHER = 256
#: What an answer that was never sent has for a status, as nginx has it.
CLIENT_WENT_AWAY = 499
#: How what was wrong with a value begins, and what it is counted as.
_REASONS = (
    ("missing", "missing"), ("null", "null"), ("NaN", "null"), ("infinite", "infinite"), ("unknown", "unknown"),
    ("must be one of", "category"), ("must be", "type"),
)  # fmt: skip


class RequestMetrics:
    """Counts requests and predictions; an `Observer` of the boundary and a `Watcher` of predictions.

    Parameters
    ----------
    values : Values
    routes : collection of str
        Every path there is; any other one is counted as "other".
    """

    def __init__(self, values: Values, routes: Collection[str]) -> None:
        self._values, self._routes = values, frozenset(routes)
        self._predictions: list[Prediction] = []
        self._rows = 0

    def answered(self, scope: Scope, status: int, seconds: float, error: Exception | None, /) -> None:
        """Count one request, whatever became of it."""
        values = self._values
        route = scope["path"] if scope["path"] in self._routes else OTHER
        values.add(m.REQUESTS, route, str(status or CLIENT_WENT_AWAY), model_of(scope, error))
        values.observe(m.REQUEST_SECONDS, route, value=seconds)
        if status == 429:
            values.add(m.RATE_LIMITED, route)
        elif isinstance(error, FeatureError):
            self._count_refused(error)

    async def before_answer(self, prediction: Prediction) -> None:
        """Nothing: what is counted can wait."""

    def after_answer(self, prediction: Prediction) -> None:
        """Keep it until there are enough to be counted together."""
        self._predictions.append(prediction)
        self._rows += len(prediction.decisions)
        if self._rows >= ROWS_TOGETHER:
            self.count()

    def count(self) -> None:
        """Count what was kept."""
        predictions, self._predictions, self._rows = self._predictions, [], 0
        if predictions:
            self._count_times(predictions)
            # a model that does not say its classes has others with each answer
            alike: dict[tuple[int, int], list[Prediction]] = {}
            for p in predictions:
                alike.setdefault((id(p.loaded), id(p.decisions.scores.classes)), []).append(p)
            for of_model in alike.values():
                self._count_answers(of_model)
                self._count_features(of_model[0].loaded, [prediction.table for prediction in of_model])

    def _count_refused(self, error: FeatureError) -> None:
        for problem in error.problems:
            reason = next((reason for start, reason in _REASONS if problem.problem.startswith(start)), OTHER)
            # a name that the model does not know is the caller's own
            self._values.add(m.FEATURES_REFUSED, OTHER if reason == "unknown" else problem.feature, reason)

    def _count_times(self, predictions: Iterable[Prediction]) -> None:
        by_route: dict[str, list[tuple[float, ...]]] = {}
        for p in predictions:
            times = (p.found - p.entered, p.waited, p.decoded - p.began, p.scored - p.started, p.encoded - p.scored)
            by_route.setdefault(p.path, []).append((*times, len(p.decisions)))
        metrics = (m.LOAD_WAIT_SECONDS, m.QUEUE_SECONDS, m.DECODE_SECONDS, m.SCORE_SECONDS, m.ENCODE_SECONDS)
        for route, rows in by_route.items():
            columns = np.array(rows, dtype=np.float64).T
            for metric, column in zip((*metrics, m.ROWS_PER_REQUEST), columns, strict=True):
                self._values.observe_all(metric, route, values=column)

    def _count_answers(self, predictions: list[Prediction]) -> None:
        model, classes = predictions[0].loaded.resolved.model_id, label_names(predictions[0].decisions.scores.classes)
        indices = np.concatenate([p.decisions.scores.index for p in predictions])
        by_class = dict(zip(classes, np.bincount(indices, minlength=len(classes)).tolist(), strict=True))
        by_backend = Counter[str]()
        for p in predictions:
            by_backend[p.decisions.backend] += len(p.decisions)
        by_confidence = _confidences(predictions, indices)
        for metric, counts in ((m.PREDICTIONS, by_class), (m.CONFIDENCES, by_confidence), (m.BACKENDS, by_backend)):
            for label, n in counts.items():
                if n:
                    self._values.add(metric, model, label, by=n)

    def _count_features(self, loaded: LoadedModel, tables: list[Table]) -> None:
        model, features, manifest = loaded.resolved.model_id, loaded.model.features, loaded.model.manifest
        if features is None:
            return
        ranges = {} if manifest is None else manifest.ranges
        if features.is_numeric:
            columns: Iterable[Any] = np.concatenate([np.asarray(t, dtype=np.float64) for t in tables]).T
        else:
            frame = pd.concat([features.restore(t) for t in tables], ignore_index=True)
            columns = (frame[name] for name in features.names)
        for name, column in zip(features.names, columns, strict=True):
            if n := int(pd.isna(column).sum()):
                self._values.add(m.FEATURES_NULL, model, name, by=n)
            if name in ranges:
                least, greatest = ranges[name]
                if n := int(((column < least) | (column > greatest)).sum()):
                    self._values.add(m.FEATURES_OUT_OF_RANGE, model, name, by=n)


def _confidences(predictions: list[Prediction], indices: np.ndarray[Any, Any]) -> Counter[str]:
    """How many rows of each confidence; all of one model."""
    of_each = [p.decisions.scores.probabilities for p in predictions]
    found = [p for p in of_each if p is not None]
    if len(found) < len(of_each):
        return Counter(chain.from_iterable(p.decisions.confidences for p in predictions))
    chosen, thresholds = np.concatenate(found)[np.arange(len(indices)), indices], predictions[0].decisions.thresholds
    high, fair = int((chosen >= thresholds.high).sum()), int((chosen >= thresholds.medium).sum())
    return Counter(high=high, medium=fair - high, low=len(chosen) - fair)
