"""Aliases that are followed: the new version is loaded and warmed beside the old, then swapped between two requests."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from fin_pyfunc.model.errors import (
    ArtifactError,
    BackendError,
    ExampleError,
    FinPyfuncError,
    ModelForbiddenError,
    ModelNotFoundError,
    StoreUnavailableError,
)
from fin_pyfunc.serving.cache import Key, ModelCache, Resolution
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import warm_up
from fin_pyfunc.serving.motion.tally import Tally
from fin_pyfunc.serving.resolver import Resolved

logger = logging.getLogger("fin_pyfunc.server")
T = TypeVar("T")

#: Rounds without a request after which an alias that nobody has pinned is left to be resolved when it is asked for.
IDLE_ROUNDS = 10
#: Seconds until a version that was refused is tried again; each time twice as many, up to the second number.
RETRY_SECONDS, MAX_RETRY_SECONDS = 30.0, 3600.0

_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ExampleError, "example"),
    (ArtifactError, "files"),
    (BackendError, "backend"),
    (ModelNotFoundError, "missing"),
    (ModelForbiddenError, "missing"),
)


class Rejection(NamedTuple):
    """A version that stays out.

    Parameters
    ----------
    model_id : str
        What the URI stands for by MLflow's word; empty where it stands for nothing.
    reason : str
        One sentence.
    times : int
        How often it was refused.
    retry_at : float
        When it is tried again, in the seconds of ``time.monotonic``.
    """

    model_id: str
    reason: str
    times: int
    retry_at: float


class Follower:
    """Looks again and again at what URIs stand for, in the background of one worker.

    Parameters
    ----------
    cache : ModelCache
        Made with `is_followed`.
    default : DefaultModel
    refresh_seconds : float
        From one look to the next.
    tally : Tally
    """

    def __init__(self, cache: ModelCache, default: DefaultModel, refresh_seconds: float, tally: Tally) -> None:
        self._cache, self._default, self._refresh_seconds, self._tally = cache, default, refresh_seconds, tally
        # of its own: what it waits for must keep no request's model from loading
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="follow")
        self._is_away = False
        #: what this look has told: a URI may be the operator's and a client's, and is followed as each of them
        self._told: set[tuple[str, str]] = set()
        self.rejected: dict[Key, Rejection] = {}

    async def run(self) -> None:
        """Follow until cancelled, from `refresh_seconds` on: what is loaded at the start was resolved just before."""
        await asyncio.sleep(self._refresh_seconds)
        while True:
            began = time.monotonic()
            try:
                await self.look()
            except Exception:  # a defect must not end the following
                logger.exception("following aliases failed in a way that was not foreseen")
            await asyncio.sleep(max(self._refresh_seconds / 2, self._refresh_seconds - (time.monotonic() - began)))

    async def look(self) -> None:
        """Look once at everything that is in use."""
        was_away, self._is_away = self._is_away, False
        self._told.clear()
        for key, known in self._cache.to_follow():
            if self._is_away and key[0].startswith("models:/"):
                continue  # one question that was not answered is enough
            if not self._cache.is_pinned(key) and self._is_idle(key, known):
                self._cache.forget(key)
                self.rejected.pop(key, None)
                continue
            await self._follow(key, known)
        if self._is_away != was_away:
            said = "does not answer: models go on as they are" if self._is_away else "answers again"
            logger.warning("following aliases: MLflow %s", said)

    def close(self) -> None:
        """Stop looking."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _is_idle(self, key: Key, known: Resolution) -> bool:
        known.idle_rounds = 0 if known.was_asked else known.idle_rounds + 1
        known.was_asked = False
        return known.idle_rounds >= IDLE_ROUNDS or self._cache.held(key[0], is_default=key[1]) is None

    async def _follow(self, key: Key, known: Resolution) -> None:
        uri, before = key[0], known.resolved
        try:
            resolved = await self._on_thread(self._cache.resolve_now, key)
        except StoreUnavailableError:
            self._note_away()
            return
        except FinPyfuncError as e:
            if self._cache.is_pinned(key):
                self._reject(key, "", before.model_id, e)
            else:
                self._cache.forget(key)  # the next request is told what is wrong
            return
        if resolved.model_id == before.model_id:
            self.rejected.pop(key, None)
            return
        refused = self.rejected.get(key)
        if refused is not None and refused.model_id == resolved.model_id and time.monotonic() < refused.retry_at:
            return
        try:
            model = await self._ready(resolved, self._cache.held(uri, is_default=key[1]))
        except StoreUnavailableError:
            self._note_away()
        except Exception as e:
            self._reject(key, resolved.model_id, before.model_id, e)
        else:
            self._cache.swap(key, resolved, model)
            if key == (self._default.uri, True):
                self._default.now_is(model)
            self.rejected.pop(key, None)
            if self._is_news(uri, resolved.model_id):
                self._tally.add("followed")
                logger.info("%s is %s from now on, and no longer %s", uri, resolved.model_id, before.model_id)

    async def _ready(self, resolved: Resolved, before: LoadedModel | None) -> LoadedModel:
        """The model in memory, warm for every route that the one before it was asked by."""
        model = await self._cache.load(resolved, self._thread)
        await self._on_thread(warm_up, model)
        if before is not None and before.is_pyfunc_open and model.has_pyfunc:
            await self._on_thread(model.prepare_pyfunc)
        return model

    def _note_away(self) -> None:
        self._is_away = True
        self._tally.add("store_away")

    def _reject(self, key: Key, model_id: str, before: str, error: Exception) -> None:
        known = self.rejected.get(key)
        times = known.times + 1 if known is not None and known.model_id == model_id else 1
        if not model_id and times > 1:
            return  # still nothing there: asking is cheap, saying so again is not
        wait = min(MAX_RETRY_SECONDS, RETRY_SECONDS * 2 ** (times - 1))
        sentence = str(error) if isinstance(error, FinPyfuncError) else f"loading it raised {type(error).__name__}."
        self.rejected[key] = Rejection(model_id, sentence, times, time.monotonic() + wait)
        if not self._is_news(key[0], model_id):
            return
        self._tally.add("rejected", next((word for kind, word in _REASONS if isinstance(error, kind)), "other"))
        to = model_id or "nothing"
        trace = None if isinstance(error, FinPyfuncError) else error
        logger.error("%s goes on as %s and not as %s: %s", key[0], before, to, sentence, exc_info=trace)

    def _is_news(self, uri: str, model_id: str) -> bool:
        """Whether this look has not told of it yet."""
        is_news = (uri, model_id) not in self._told
        self._told.add((uri, model_id))
        return is_news

    async def _on_thread(self, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, function, *args)
