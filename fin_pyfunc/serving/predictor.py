"""Rows in, decisions out: find the model, wait for a place, score off the event loop, within the time limit."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar

from fin_pyfunc.model.errors import FeatureError, FinPyfuncError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.decode import Envelope, read_row
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.http import HeldBytes
from fin_pyfunc.serving.joiner import Joiner
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.places import Places
from fin_pyfunc.serving.prediction import Failure, Prediction, UnansweredError
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.threads import ScoringThreads

P = ParamSpec("P")
T = TypeVar("T")

logger = logging.getLogger("fin_pyfunc.server")

#: More scoring threads than this only take turns: an estimator holds the interpreter most of the time.
MAX_DEFAULT_THREADS = 4
#: A worker is replaced when so many scoring threads do not come back, and when twice as many as it has do not.
MIN_LOST = 4
#: Seconds between two looks for scoring threads that do not come back.
LOOK_SECONDS = 0.5
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
        self._threads = ScoringThreads(threads)
        self._max_lost = max(MIN_LOST, 2 * threads)
        self._joiner = Joiner(self._threads)
        self.held = HeldBytes(limits.max_held_bytes)
        self._places = Places(limits.max_waiting, limits.request_seconds)
        self.is_draining = False

    @property
    def is_idle(self) -> bool:
        """Whether every prediction that was accepted is answered."""
        return self.waiting == 0

    @property
    def waiting(self) -> int:
        """Predictions under way."""
        return self._places.taken

    @property
    def default_uri(self) -> str | None:
        """The model of a request that names none, as the operator named it."""
        return self._default.uri

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
            Whatever finding or loading the model raised.
        UnansweredError
            Scoring the row raised.
        """
        uri, sent, entered = envelope.model_uri, envelope.features, time.perf_counter()
        loaded = self._in_memory(uri)
        try:
            if loaded is not None and not self.is_draining:
                row = read_row(envelope, loaded.model, self._limits.max_row_keys)
                decoded = time.perf_counter()
                try:
                    decisions = loaded.model.decide_now(row)
                except Exception as e:
                    raise UnansweredError(Failure(e, uri, loaded, row, entered, decoded, sent)) from e
                if decisions is not None:
                    return Prediction(uri, loaded, row, decisions, entered, decoded, sent)
            async with self.place():
                if loaded is None:
                    loaded = await self.find(uri)
                else:
                    self.stops.check(uri, loaded)
                found = time.perf_counter()
                row = read_row(envelope, loaded.model, self._limits.max_row_keys)
                decoded = time.perf_counter()
                try:
                    decisions, started = await self._joiner.decide(loaded.model, row)
                except FeatureError:
                    raise
                except Exception as e:
                    raise UnansweredError(Failure(e, uri, loaded, row, found, decoded, sent)) from e
                asked = (uri, loaded, row, decisions, found, decoded, sent)
                return Prediction(*asked, entered=entered, found=found, started=started)
        except FinPyfuncError as e:
            _note_model(e, loaded)
            raise

    async def on_thread(self, uri: str | None, work: Callable[[LoadedModel, float], T]) -> T:
        """Find a model, and do with it on a scoring thread what takes its time.

        Parameters
        ----------
        uri : str or None
            The model as the client named it; None for the server's default.
        work : callable
            Given the model, and when it was found in the seconds of ``time.perf_counter``.

        Raises
        ------
        RequestError, FinPyfuncError
            As `predict_row`.
        """
        async with self.place():
            loaded = await self.find(uri)
            try:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, work, loaded, time.perf_counter())
            except FinPyfuncError as e:
                _note_model(e, loaded)
                raise

    async def off_loop(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do on a scoring thread what would hold up every other request; raises as `place` and as the work."""
        async with self.place():
            return await asyncio.get_running_loop().run_in_executor(self._threads, partial(work, *args, **kwargs))

    async def watch(self, on_stuck: Callable[[], None] | None) -> None:
        """Give up calls of a model that outlast every request that could wait for them, until cancelled.

        Parameters
        ----------
        on_stuck : callable or None
            Called once, when so many do not come back that the worker should be replaced.
        """
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if late := self._threads.give_up(self._limits.request_seconds):
                logger.error(
                    "%d scoring threads did not answer within %g s and were given up: %d are lost now",
                    *(late, self._limits.request_seconds, self._threads.lost),
                )
            if self._threads.lost >= self._max_lost and on_stuck is not None:
                logger.error("too many scoring threads are lost: this worker finishes what it has, and is replaced")
                on_stuck()
                return

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
        async with self._places.take():
            yield

    async def find(self, uri: str | None) -> LoadedModel:
        """The model that a request asks for, unless it has been stopped."""
        self.stops.check(uri, None)
        loaded = await self._default.get() if uri is None else self._cache.peek(uri) or await self._cache.get(uri)
        self.stops.check(uri, loaded)
        return loaded

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)


def _note_model(error: FinPyfuncError, loaded: LoadedModel | None) -> None:
    """Let an error know the model that it is about, for `prediction.model_of`."""
    if loaded is not None:
        error.model_id = loaded.resolved.model_id
