"""What is counted of each request: when it was answered, and what was predicted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.decision import label_names
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.block import Block
from fin_pyfunc.serving.metrics.values import OTHER, Values
from fin_pyfunc.serving.observers import Answered
from fin_pyfunc.serving.prediction import Prediction, model_of

#: What is counted of a prediction's steps, and of its waits.
_TOOK = (m.REQUEST_SECONDS, m.DECODE_SECONDS, m.SCORE_SECONDS, m.ENCODE_SECONDS)
_WAITED = (m.LOAD_WAIT_SECONDS, m.QUEUE_SECONDS)
#: What an answer that was never sent has for a status, as nginx has it.
CLIENT_WENT_AWAY = 499
#: How what was wrong with a value begins, and what it is counted as.
_REASONS = (
    ("missing", "missing"), ("null", "null"), ("NaN", "null"), ("infinite", "infinite"), ("unknown", "unknown"),
    ("must be one of", "category"), ("must be", "type"),
)  # fmt: skip


class RequestMetrics:
    """Counts requests, and the predictions they were answered with; an `Observer`.

    Parameters
    ----------
    values : Values
    routes : collection of str
        Every path there is; any other one is counted as "other".
    """

    def __init__(self, values: Values, routes: Collection[str]) -> None:
        self._values, self._routes = values, frozenset(routes)
        #: of each kind of prediction one
        self._blocks: list[Block] = []

    def answered(self, requests: list[Answered], /) -> None:
        """Count them, whatever became of them."""
        block: Block | None = None
        for _, seconds, status, _, path, state, error in requests:
            prediction: Prediction | None = state.get("prediction")
            if prediction is None or status != 200:
                self._count_other(path, seconds, status, model_of(state, error), error)
                continue
            if block is None or not block.takes(path, prediction):
                block = self._block(path, prediction)
            block.add(seconds, prediction)
            if block.is_full:
                self._count_block(block)
                block.clear()

    def count(self) -> None:
        """Count what was kept to be counted together, and let go of the models."""
        blocks, self._blocks = self._blocks, []
        for block in blocks:
            if block.n:
                self._count_block(block)

    def _block(self, path: str, prediction: Prediction) -> Block:
        """Where predictions of its kind are gathered."""
        found = next((block for block in self._blocks if block.takes(path, prediction)), None)
        if found is None:
            self._blocks.append(found := Block(path, prediction))
        return found

    def _count_block(self, block: Block) -> None:
        model = block.loaded.resolved.model_id
        self._values.add(m.REQUESTS, block.path, "200", model, by=block.n)
        self._count_steps(block)
        self._count_features(block)
        self._count_answers(block)

    def _route(self, path: str) -> str:
        return path if path in self._routes else OTHER

    def _count_other(self, path: str, seconds: float, status: int, model: str, error: Exception | None) -> None:
        path = self._route(path)
        self._values.add(m.REQUESTS, path, str(status or CLIENT_WENT_AWAY), model)
        self._values.observe(m.REQUEST_SECONDS, path, value=seconds)
        if status == 429:
            self._values.add(m.RATE_LIMITED, path)
        elif isinstance(error, FeatureError):
            self._count_refused(error)

    def _count_refused(self, error: FeatureError) -> None:
        for problem in error.problems:
            reason = next((reason for start, reason in _REASONS if problem.problem.startswith(start)), OTHER)
            # a name that the model does not know is the caller's own
            self._values.add(m.FEATURES_REFUSED, OTHER if reason == "unknown" else problem.feature, reason)

    def _count_steps(self, block: Block) -> None:
        path, waited = block.path, block.waited
        seconds, began, decoded, started, scored, encoded, rows = block.steps
        took = np.array([seconds, decoded - began, scored - started, encoded - scored])
        self._values.observe_all(_TOOK, path, values=took)
        self._values.observe_all((m.ROWS_PER_REQUEST,), path, values=rows[None])
        # most predictions wait for nothing
        if waited:
            self._values.observe_all(_WAITED, path, values=np.array(waited).T)
        for metric in _WAITED:
            self._values.observe(metric, path, value=0.0, times=block.n - len(waited))

    def _count_answers(self, block: Block) -> None:
        model, classes, index = block.loaded.resolved.model_id, label_names(block.classes), block.index
        by_class = dict(zip(classes, np.bincount(index, minlength=len(classes)).tolist(), strict=True))
        self._values.add(m.BACKENDS, model, block.backend, by=block.n_rows)
        for metric, counts in ((m.PREDICTIONS, by_class), (m.CONFIDENCES, _confidences(block, index))):
            for label, n in counts.items():
                if n:
                    self._values.add(metric, model, label, by=n)

    def _count_features(self, block: Block) -> None:
        features, manifest, model = block.loaded.model.features, block.loaded.model.manifest, block.loaded.resolved
        if features is None:
            return
        ranges = {} if manifest is None else manifest.ranges
        if features.is_numeric or features.is_coded:  # codes have no range
            values = block.matrix
            bounds = np.array([ranges.get(name, (-np.inf, np.inf)) for name in features.names], dtype=np.float64)
            inside = (values >= bounds[:, 0]) & (values <= bounds[:, 1])  # NaN is nowhere
            if inside.all():
                return
            nulls = np.isnan(values).sum(axis=0)
            outside = len(values) - inside.sum(axis=0) - nulls
        else:
            frame = block.frame()
            nulls = np.array([pd.isna(frame[name]).sum() for name in features.names])
            outside = np.array([_n_outside(frame[name], ranges.get(name)) for name in features.names])
        for metric, counts in ((m.FEATURES_NULL, nulls), (m.FEATURES_OUT_OF_RANGE, outside)):
            for i in np.flatnonzero(counts).tolist():
                self._values.add(metric, model.model_id, features.names[i], by=int(counts[i]))


def _n_outside(column: Any, bounds: tuple[float, float] | None) -> int:
    return 0 if bounds is None else int(((column < bounds[0]) | (column > bounds[1])).sum())


def _confidences(block: Block, index: np.ndarray[Any, Any]) -> dict[str, int]:
    """How many rows of each confidence, as `Decisions.confidences` has them."""
    if (p := block.probabilities) is None:
        return {"unknown": block.n_rows}
    chosen, thresholds = p[np.arange(len(index)), index], block.thresholds
    high, fair = int((chosen >= thresholds.high).sum()), int((chosen >= thresholds.medium).sum())
    return {"high": high, "medium": fair - high, "low": len(chosen) - fair}
