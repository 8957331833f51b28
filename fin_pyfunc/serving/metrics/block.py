"""Answered predictions that are not counted yet: their numbers, beside each other."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pandas as pd

from fin_pyfunc.model.decision import label_names
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.prediction import Prediction

#: A block is counted once it has so many rows. What counts is out of the processor's caches by then, which costs more
#: than the rows (0.22 ms for 128 of them between requests, 0.07 ms at once again): 0.35 ms, once in so many.
TOGETHER = 512
_STEPS = struct.Struct("7d")
_pack, _SIZE = _STEPS.pack_into, _STEPS.size


class Block:
    """Predictions of one model by one backend, asked for on one path.

    Copies of what is counted, and nothing of the requests themselves: memory that a request leaves is still in the
    processor's caches when the next one takes it, and a prediction that waits to be counted is not when it is.

    Parameters
    ----------
    path : str
    first : Prediction
        Says which model, backend and classes; it is not in the block yet.

    Attributes
    ----------
    n, n_rows : int
        Predictions, and their rows.
    waited : list of (float, float)
        Seconds that predictions waited for their model and for their turn, of those that waited at all.
    """

    __slots__ = (
        *("_are_rows", "_dtype", "_index", "_probabilities", "_steps", "_tables", "backend", "classes", "loaded", "n"),
        *("n_rows", "path", "thresholds", "waited"),
    )

    def __init__(self, path: str, first: Prediction) -> None:
        decisions, p = first.decisions, first.decisions.scores.probabilities
        self.path, self.loaded, self.backend = path, first.loaded, decisions.backend
        self.classes, self.thresholds = decisions.scores.classes, decisions.thresholds
        self._dtype = None if p is None else p.dtype
        features = first.loaded.model.features
        self._are_rows = features is not None and (features.is_numeric or features.is_coded)
        self._tables: list[Any] | None = None if features is None else []
        self._steps = bytearray(TOGETHER * _SIZE)
        self.clear()

    def clear(self) -> None:
        """Begin anew, with predictions of the same kind."""
        self.n = self.n_rows = 0
        self._index: list[bytes] = []
        self._probabilities: list[bytes] = []
        if self._tables is not None:
            self._tables = []
        self.waited: list[tuple[float, float]] = []

    def takes(self, path: str, prediction: Prediction) -> bool:
        """Whether a prediction is of its kind."""
        decisions, classes = prediction.decisions, prediction.decisions.scores.classes
        return (
            prediction.loaded is self.loaded
            # a model that does not say its classes has a list of its own with each answer
            and (classes is self.classes or label_names(classes) == label_names(self.classes))
            and decisions.backend == self.backend
            and path == self.path
        )

    def add(self, seconds: float, prediction: Prediction) -> None:
        """Take one more; there must be fewer than `TOGETHER`."""
        table: Any = prediction.table
        scores, n, i = prediction.decisions.scores, len(table), self.n
        began, decoded, started = prediction.began, prediction.decoded, prediction.started
        _pack(self._steps, i * _SIZE, seconds, began, decoded, started, prediction.scored, prediction.encoded, n)
        self._index.append(scores.index.tobytes())
        if scores.probabilities is not None:
            self._probabilities.append(scores.probabilities.tobytes())
        if self._tables is not None:
            # of more rows a copy would cost more than it brings
            is_row = n == 1 and self._are_rows and isinstance(table, np.ndarray)
            self._tables.append(table.tobytes() if is_row else table)
        if prediction.entered is not began or started is not decoded:
            self.waited.append((prediction.found - prediction.entered, began - prediction.found + started - decoded))
        self.n = i + 1
        self.n_rows += n

    @property
    def is_full(self) -> bool:
        """Whether it is to be counted before another is added; predictions may have no rows."""
        return self.n_rows >= TOGETHER or self.n >= TOGETHER

    @property
    def steps(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Of shape (7, n): seconds of the request; when it began, was decoded, started, scored and encoded; its rows.

        A view, until the block is cleared.
        """
        return np.frombuffer(self._steps, np.float64, 7 * self.n).reshape(self.n, 7).T

    @property
    def index(self) -> np.ndarray[Any, np.dtype[np.intp]]:
        """`Scores.index` of all rows."""
        return np.frombuffer(b"".join(self._index), np.intp)

    @property
    def probabilities(self) -> np.ndarray[Any, Any] | None:
        """`Scores.probabilities` of all rows."""
        if self._dtype is None:
            return None
        return np.frombuffer(b"".join(self._probabilities), self._dtype).reshape(self.n_rows, len(self.classes))

    @property
    def matrix(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """All rows as they were scored; of a model whose rows a matrix holds. A text without a code is not null."""
        assert self._tables is not None  # noqa: S101 - for the type checker
        assert self.loaded.model.features is not None  # noqa: S101
        features = self.loaded.model.features
        parts = [part if isinstance(part, bytes) else _as_bytes(part, features) for part in self._tables]
        return np.frombuffer(b"".join(parts), np.float64).reshape(self.n_rows, len(features.names))

    def frame(self) -> pd.DataFrame:
        """All rows as they were meant; of a model that knows its features."""
        features = self.loaded.model.features
        assert self._tables is not None  # noqa: S101 - for the type checker
        assert features is not None  # noqa: S101
        return pd.concat([features.restore(table) for table in self._tables], ignore_index=True)


def _as_bytes(table: Any, features: FeatureSpec) -> bytes:
    """Rows in the model's order; MLflow hands a DataFrame to a model that this project did not log."""
    if not isinstance(table, np.ndarray):
        frame = table.reindex(columns=features.names)
        table = _encoded(frame, features) if features.is_coded else frame.to_numpy(np.float64)
    return np.ascontiguousarray(table).tobytes()


def _encoded(frame: pd.DataFrame, features: FeatureSpec) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Rows as codes; all null where nobody has checked them, and they are not what the features hold."""
    try:
        return features.encode(frame)
    except (ValueError, TypeError):
        return np.full(frame.shape, np.nan)
