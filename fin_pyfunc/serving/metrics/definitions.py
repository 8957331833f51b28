"""Every metric there is: the only list, which the documentation, the dashboard and the alerts are held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["counter", "gauge", "histogram"]
#: How the gauges of several workers become one; "live" leaves out workers that have ended.
Merge = Literal["", "livesum", "livemin", "livemax", "liveall"]

#: Upper bounds in seconds, from 100 us: a compiled model answers within the first few.
SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
LOAD_SECONDS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
ROWS = (1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 10000.0, 100000.0)


@dataclass(frozen=True, eq=False)  # told apart as objects: a look-up by fields would cost more than counting
class Metric:
    """One metric.

    Parameters
    ----------
    name : str
        As Prometheus knows it, a counter without its ``_total``.
    kind : {"counter", "gauge", "histogram"}
    help : str
        What it says, in one line.
    labels : tuple of str
    buckets : tuple of float
        Upper bounds of a histogram, without infinity.
    merge : str
        Of a gauge.
    """

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    merge: Merge = ""

    @property
    def exposed(self) -> str:
        """The name as one asks for it, a histogram's without its endings."""
        return f"{self.name}_total" if self.kind == "counter" else self.name


def _counter(name: str, text: str, *labels: str) -> Metric:
    return Metric(f"fin_pyfunc_{name}", "counter", text, labels)


def _gauge(name: str, text: str, *labels: str, merge: Merge = "livesum") -> Metric:
    return Metric(f"fin_pyfunc_{name}", "gauge", text, labels, merge=merge)


def _histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...] = SECONDS) -> Metric:
    return Metric(f"fin_pyfunc_{name}", "histogram", text, labels, buckets)


REQUESTS = _counter("requests", "Requests answered; status 499: the client went away.", "route", "status", "model")
REQUEST_SECONDS = _histogram("request_seconds", "Seconds from a request's head to its answer.", "route")
RATE_LIMITED = _counter("rate_limited", "Requests refused because their caller reached a rate limit.", "route")

LOAD_WAIT_SECONDS = _histogram("load_wait_seconds", "Seconds a prediction waited for its model.", "route")
QUEUE_SECONDS = _histogram("queue_seconds", "Seconds a prediction waited for its turn to be scored.", "route")
DECODE_SECONDS = _histogram("decode_seconds", "Seconds to read and check the rows of a request.", "route")
SCORE_SECONDS = _histogram("score_seconds", "Seconds to score the rows of a request.", "route")
ENCODE_SECONDS = _histogram("encode_seconds", "Seconds to write the answer's body.", "route")
ROWS_PER_REQUEST = _histogram("rows", "Rows of a request that was answered.", "route", buckets=ROWS)

PREDICTIONS = _counter("predictions", "Rows predicted, by the class that was predicted.", "model", "class")
CONFIDENCES = _counter("confidences", "Rows predicted, by confidence.", "model", "confidence")
BACKENDS = _counter("backend_rows", "Rows predicted, by the backend that computed them.", "model", "backend")

FEATURES_REFUSED = _counter(
    "features_refused", "Values refused with 422, by what was wrong (missing, null, type, …).", "feature", "reason"
)
FEATURES_NULL = _counter("features_null", "Values accepted as null.", "model", "feature")
FEATURES_OUT_OF_RANGE = _counter(
    "features_out_of_range", "Values accepted beyond the least or greatest of training.", "model", "feature"
)

MODELS = _gauge("models_in_memory", "Models in memory, over all workers.")
MODEL_BYTES = _gauge("model_bytes", "Bytes of the files of the models in memory, over all workers.")
MODEL_INFO = _gauge(
    "model_info", "1 for a model in memory, by what it was asked for as.", "model", "uri", merge="livemax"
)
LOADS = _histogram("model_load_seconds", "Seconds to load a model that loaded.", buckets=LOAD_SECONDS)
LOAD_FAILURES = _counter("model_load_failures", "Models that could not be loaded, by the kind of error.", "reason")
CACHE_HITS = _counter("cache_hits", "Times that a model asked for was in memory.")
CACHE_MISSES = _counter("cache_misses", "Times that a model asked for had to be loaded.")
EVICTIONS = _counter("cache_evictions", "Models let go to make room for another.")
ALIAS_SWAPS = _counter("alias_swaps", "Aliases that led to another model, by what came of it.", "result")
HOST_RESTARTS = _counter("host_restarts", "Model processes that ended and were started again, by why.", "reason")
HOSTS = _gauge("hosts", "Models that run in processes of their own, in the worker that has most.", merge="livemax")

SHADOW_ROWS = _counter("shadow_rows", "Rows a shadow was asked, by whether it agreed.", "model", "shadow", "agrees")
SHADOW_DISTANCE = _counter(
    "shadow_distance", "Sum over rows of the greatest difference in a probability from a shadow's.", "model", "shadow"
)
SHADOW_SKIPPED = _counter("shadow_skipped", "Rows meant for a shadow that it gave no answer to.", "shadow", "reason")
STOPPED_MODELS = _gauge("models_stopped", "Models stopped by an operator.", merge="livemax")

RECORDS_WRITTEN = _counter("records_written", "Predictions written to the record.")
RECORDS_FAILED = _counter("records_failed", "Predictions that could not be written to the record.")
RECORDS_WAITING = _gauge("records_waiting", "Predictions not yet on disk, over all workers.")

GPU_FALLBACKS = _counter("gpu_fallbacks", "Times that the CPU computed what the GPU was to compute.", "reason")
REDIS_ERRORS = _counter("redis_errors", "Times that Redis did not answer, by the error's type.", "error")

WAITING = _gauge("predictions_waiting", "Predictions waiting or running, over all workers.")
READY = _gauge("workers_ready", "Workers that are ready.")
MLFLOW_UP = _gauge("mlflow_up", "1 while MLflow answers, as seen by the worker that sees it worst.", merge="livemin")
WORKER_MEMORY = _gauge("worker_memory_bytes", "Bytes of resident memory of each worker.", merge="liveall")
WORKER_EXITS = _counter("worker_exits", "Workers that ended, by why.", "reason")
RELOADS = _counter("reloads", "SIGHUPs, by whether the new configuration was taken (taken, refused).", "result")
BUILD_INFO = _gauge("build_info", "1, with the version that runs.", "version", merge="livemax")

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
