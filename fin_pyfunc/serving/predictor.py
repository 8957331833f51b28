"""Rows in, decisions out: find the model, wait for a place, score off the event loop, within the time limit."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.decode import Envelope, read_row
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.joiner import Joiner
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.prediction import Prediction
from fin_pyfunc.serving.settings import Limits

T = TypeVar("T")

#: More scoring threads than this only take turns: an estimator holds the interpreter most of the time.
MAX_DEFAULT_THREADS = 4
DRAINING = "The server is stopping: it finishes what it has accepted and takes no more; ask another one."


class Predictor:
    """Predicts for every route of one worker.

    Parameters
    ----------
    cache : ModelCache
    default : DefaultModel
        Answers where a request names no model.
    limits : Limits
        `max_waiting`, `request_seconds` and `score_threads` of the settings.
    stops : Stops
        What must not answer.
    """

    def __init__(self, cache: ModelCache, default: DefaultModel, limits: Limits, stops: Stops) -> None:
        self._cache, self._default, self._limits, self.stops = cache, default, limits, stops
        threads = limits.score_threads or min(MAX_DEFAULT_THREADS, os.cpu_count() or 1)
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="score")
        self._joiner = Joiner(self._threads)
        self._waiting = 0
        self.is_draining = False

    @property
    def is_idle(self) -> bool:
        """Whether every prediction that was accepted is answered."""
        return self._waiting == 0

    def drain(self) -> None:
        """Take no more predictions; those under way go on."""
        self.is_draining = True

    async def predict_row(self, envelope: Envelope) -> Prediction:
        """Classify the row of a request: at once where that is quicker than a change of threads, else on a thread,
        joined with whatever other rows wait for the same model.

        Returns
        -------
        Prediction
            What answered, and what it answered.

        Raises
        ------
        RequestError
            422 without a model to ask, 503 where too many wait already or the server stops, 504 when the time is up.
        FinPyfuncError
            Whatever finding, loading or scoring the model raised.
        """
        uri, sent, began = envelope.model_uri, envelope.features, time.perf_counter()
        loaded = self._in_memory(uri)
        if loaded is not None and not self.is_draining:
            row, decoded = read_row(envelope, loaded.model), time.perf_counter()
            decisions = loaded.model.decide_now(row)
            if decisions is not None:
                return Prediction(uri, loaded, row, decisions, began, decoded, sent)
        async with self.place():
            loaded = await self.find(uri)
            row, decoded = read_row(envelope, loaded.model), time.perf_counter()
            return Prediction(uri, loaded, row, await self._joiner.decide(loaded.model, row), began, decoded, sent)

    async def on_thread(self, uri: str | None, work: Callable[[LoadedModel], T]) -> T:
        """Find a model, and do with it on a scoring thread what takes its time.

        Parameters
        ----------
        uri : str or None
            The model as the client named it; None for the server's default.
        work : callable

        Raises
        ------
        RequestError, FinPyfuncError
            As `predict_row`.
        """
        async with self.place():
            loaded = await self.find(uri)
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, loaded)

    def _in_memory(self, uri: str | None) -> LoadedModel | None:
        """The model for a URI if nothing has to be waited for."""
        return self._default.peek() if uri is None else self._cache.peek(uri)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place among the requests under way, for as long as one may take.

        Raises
        ------
        RequestError
            503 where there is none or the server stops, 504 when the time is up.
        """
        if self.is_draining:
            raise RequestError(503, DRAINING, RETRY_AFTER)
        if self._waiting >= self._limits.max_waiting:
            raise RequestError(503, "The server is working on as many requests as it takes: try again.", RETRY_AFTER)
        self._waiting += 1
        try:
            async with asyncio.timeout(self._limits.request_seconds):
                yield
        except TimeoutError:
            raise RequestError(
                504,
                f"The request took longer than the {self._limits.request_seconds:g} s it may take: send fewer rows "
                "at a time, or raise deployment.api.limits.request_seconds.",
            ) from None
        finally:
            self._waiting -= 1

    async def find(self, uri: str | None) -> LoadedModel:
        """The model that a request asks for, unless it has been stopped."""
        self.stops.check(uri, None)
        loaded = await self._default.get() if uri is None else self._cache.peek(uri) or await self._cache.get(uri)
        self.stops.check(uri, loaded)
        return loaded

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)
