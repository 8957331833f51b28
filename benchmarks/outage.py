"""What others notice while a model's process crashes, hangs or takes too much memory, and when it is back.

A forest is asked at a steady rate by one client. In every other window another model, in a model host, is made to end
its process as soon as the window begins; the rest of the windows are quiet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import cloudpickle
import mlflow
import numpy as np
from mlflow.models import infer_signature

from benchmarks import contenders
from benchmarks.bench import Bench
from benchmarks.contenders import compact, serving
from benchmarks.http_client import ask, request
from benchmarks.open_loop import steadily
from benchmarks.row import Row

#: What the first feature of a row has the model do.
WAYS = {"is killed": 7.0, "hangs": 8.0, "takes too much memory": 9.0}
RATE = 1500.0
#: Seconds of one window: longer than a process takes to be back.
WINDOW = 5.0
REQUEST_SECONDS = 1
BACK_SECONDS = 3.0


class Misbehaving(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Ends its own process in the way that a row says."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:  # noqa: ARG002 - MLflow's
        """One label a row."""
        import os
        import time

        way = float(model_input.iloc[0, 0])
        if way == 7:
            os.kill(os.getpid(), 9)
        if way == 8:
            time.sleep(60)
        if way == 9:
            bytearray(16 << 30)
        return [1] * len(model_input)


def measure(bench: Bench) -> list[Row]:
    """Windows in turn, with an outage and without."""
    models = bench.models
    rows, frame = models.records(), models.frame()
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    mlflow.set_tracking_uri(models.tracking_uri)
    logged = mlflow.pyfunc.log_model(
        name="model", python_model=Misbehaving(), signature=infer_signature(frame), pip_requirements=["mlflow"]
    )
    contender = contenders.ours(
        models.ours["forest"], environ={"FIN_PYFUNC__LIMITS__REQUEST_SECONDS": str(REQUEST_SECONDS)}
    )
    sent = [request("/predict", body) for body in contender.bodies(rows)]
    lines: list[Row] = []
    # from a process of its own, or the one that measures would wait for this one's turns of the interpreter
    elsewhere = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
    with elsewhere, serving(contender, models, rows, models.expected("forest")) as server:
        for how, way in WAYS.items():
            other = _Other(server.port, logged.model_uri, rows[0], way)
            other.wait_until_it_answers()
            ratios, back = [], []
            for _ in range(bench.rounds):
                quiet = _p99(server.port, sent)
                ended = elsewhere.submit(other.end_once)
                ratios.append(_p99(server.port, sent) / quiet)
                back.append(ended.result())
                time.sleep(21)  # so that it does not end three times within a minute, and is not taken out
            lines += [
                Row(20, f"p99 of another model while one's process {how}, to none", "×", ratios, at_most=1.1),
                Row(20, f"until a process that {how} is back", "s", back, at_most=BACK_SECONDS),
            ]
    return lines


def _p99(port: int, sent: Sequence[bytes]) -> float:
    """Of one window; an answer other than 200 ends the benchmark."""
    taken = [asked.seconds for asked in steadily(port, sent, WINDOW, RATE)]
    return float(np.quantile(taken, 0.99))


class _Other:
    """The model that is made to end its process."""

    def __init__(self, port: int, uri: str, row: dict[str, float], way: float) -> None:
        self._port = port
        first = next(iter(row))
        self._usual = request("/predict", compact({"model_uri": uri, "features": row | {first: 0.0}}))
        self._ending = request("/predict", compact({"model_uri": uri, "features": row | {first: way}}))

    def wait_until_it_answers(self) -> None:
        """Until it has been loaded."""
        while ask(self._port, self._usual)[0] != 200:
            time.sleep(0.05)

    def end_once(self) -> float:
        """End its process; the seconds that it then takes until it answers again."""
        ask(self._port, self._ending)
        ended = time.perf_counter()
        self.wait_until_it_answers()
        return time.perf_counter() - ended
