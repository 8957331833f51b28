"""The numbers of one process: plain integers in memory, now and then written where every worker can read them.

`prometheus_client` writes each increment to a mapped file at once, under a lock, about 1 us each; a prediction counts a
dozen things. So numbers are added up in memory, and the sums written to the very same files several times a second.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_left
from collections.abc import Sequence
from operator import add
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.utils import floatToGoString

from fin_pyfunc.serving.metrics.definitions import Metric

#: Label values of one metric in one process; whatever else comes is counted under "other", so that nobody can fill the
#: memory of the server, or of Prometheus, by sending things that are new.
MAX_SERIES = 500
OTHER = "other"

_Key = tuple[str, ...]


class _Histogram:
    """How many values lie within each bucket, the last one without a bound, their sum, and what is written of it."""

    __slots__ = ("counts", "total", "written")

    def __init__(self, n_buckets: int) -> None:
        self.counts, self.total = [0] * n_buckets, 0.0
        self.written = [-1] * n_buckets


class Values:
    """Counters, gauges and histograms of this process. Safe to use from many threads.

    Parameters
    ----------
    folder : Path or None
        Where the files go, one process each its own; None keeps nothing and costs nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self._lock = threading.Lock()
        self._numbers: dict[Metric, dict[_Key, float]] = {}
        self._histograms: dict[Metric, dict[_Key, _Histogram]] = {}
        self._changed: set[tuple[Metric, _Key]] = set()
        self._files: dict[str, MmapedDict] = {}
        #: by file and key, what the file held before: a process may be given the id of one that has ended
        self._before: dict[tuple[str, str], float] = {}
        self._keys: dict[tuple[Metric, _Key, str], str] = {}

    @property
    def is_on(self) -> bool:
        """Whether anything is kept."""
        return self.folder is not None

    def add(self, metric: Metric, *labels: str, by: float = 1) -> None:
        """Raise a counter."""
        if self.folder is None:
            return
        with self._lock:
            series = self._numbers.setdefault(metric, {})
            key = _bounded(series, labels)
            series[key] = series.get(key, 0) + by
            self._changed.add((metric, key))

    def set(self, metric: Metric, *labels: str, to: float) -> None:
        """Set a gauge."""
        if self.folder is None:
            return
        with self._lock:
            series = self._numbers.setdefault(metric, {})
            key = _bounded(series, labels)
            series[key] = to
            self._changed.add((metric, key))

    def observe(self, metric: Metric, *labels: str, value: float, times: int = 1) -> None:
        """Put one value into a histogram, so many times."""
        if self.folder is None:
            return
        with self._lock:
            histogram = self._histogram(metric, labels)
            histogram.counts[bisect_left(metric.buckets, value)] += times
            histogram.total += value * times

    def observe_all(self, metrics: Sequence[Metric], *labels: str, values: Any) -> None:
        """Put many values, an ndarray of shape (n_metrics, n_values), into histograms of the same buckets."""
        if self.folder is None:
            return
        buckets, n = metrics[0].buckets, len(metrics[0].buckets) + 1
        places = np.searchsorted(buckets, values) + np.arange(0, n * len(metrics), n)[:, None]
        counts = np.bincount(places.ravel(), minlength=n * len(metrics)).tolist()
        totals = values.sum(axis=1).tolist()
        with self._lock:
            for i, metric in enumerate(metrics):
                histogram = self._histogram(metric, labels)
                histogram.counts = list(map(add, histogram.counts, counts[n * i : n * (i + 1)]))
                histogram.total += totals[i]

    def flush(self) -> None:
        """Write what has changed to this process's files."""
        if self.folder is None:
            return
        with self._lock:
            changed, self._changed = self._changed, set()
            for metric, labels in changed:
                if metric.kind == "histogram":
                    self._write_histogram(metric, labels)
                else:
                    name = metric.exposed
                    self._write(metric, labels, name, metric.labels, labels, self._numbers[metric][labels])

    def close(self) -> None:
        """Write, and let go of the files, which stay: what has been counted goes on counting."""
        self.flush()
        with self._lock:
            for file in self._files.values():
                file.close()
            self._files.clear()
            self.folder = None

    def _histogram(self, metric: Metric, labels: _Key) -> _Histogram:
        series = self._histograms.setdefault(metric, {})
        key = _bounded(series, labels)
        if key not in series:
            series[key] = _Histogram(len(metric.buckets) + 1)
        self._changed.add((metric, key))
        return series[key]

    def _write_histogram(self, metric: Metric, labels: _Key) -> None:
        histogram = self._histograms[metric][labels]
        names = (*metric.labels, "le")
        for i, (bound, count) in enumerate(zip((*metric.buckets, float("inf")), histogram.counts, strict=True)):
            if count != histogram.written[i]:
                histogram.written[i] = count
                self._write(metric, labels, f"{metric.name}_bucket", names, (*labels, floatToGoString(bound)), count)
        self._write(metric, labels, f"{metric.name}_sum", metric.labels, labels, histogram.total)

    def _write(
        self, metric: Metric, series: _Key, sample: str, names: tuple[str, ...], labels: _Key, value: float
    ) -> None:
        cached = (metric, series, sample if len(names) == len(metric.labels) else labels[-1])
        key = self._keys.get(cached)
        if key is None:
            key = self._keys[cached] = mmap_key(metric.name, sample, list(names), list(labels), metric.help)
        kind = f"{metric.kind}_{metric.merge}" if metric.merge else metric.kind
        file = self._files.get(kind)
        if file is None:
            assert self.folder is not None  # noqa: S101 - for the type checker
            file = self._files[kind] = MmapedDict(str(self.folder / f"{kind}_{os.getpid()}.db"))
        if metric.kind != "gauge":
            if (kind, key) not in self._before:
                self._before[kind, key] = file.read_value(key)[0]
            value += self._before[kind, key]
        file.write_value(key, value, 0.0)


def _bounded(series: dict[_Key, Any], labels: _Key) -> _Key:
    return labels if labels in series or len(series) < MAX_SERIES else (OTHER,) * len(labels)
