"""Models in memory: found by what a URI resolves to, loaded once however many ask, the least recently used let go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, NamedTuple, TypeVar

from fin_pyfunc.model.errors import StoreUnavailableError
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.values import Values
from fin_pyfunc.serving.resolver import Resolved, Resolver
from fin_pyfunc.serving.trust.unknown import Unknown
from fin_pyfunc.serving.uris import parse

logger = logging.getLogger("fin_pyfunc.server")
T = TypeVar("T")


class _Resolution(NamedTuple):
    resolved: Resolved
    fresh_until: float


class ModelCache:
    """Loaded models of one worker. Everything but resolving and loading happens on the event loop, so no locks.

    Parameters
    ----------
    resolver : Resolver
    load : callable
        Resolved -> LoadedModel; runs on a thread.
    max_models : int
        Models kept besides the pinned one; 0 keeps none.
    refresh_seconds : float
        How long an alias, `latest` or a file may go on standing for what it stood for.
    values : Values, optional
        Where loads are counted.
    max_uris : int, default 10,000
        How many URIs are remembered, so that made-up ones cannot fill the memory.
    unknown : Unknown, optional
        What is not there; default one that remembers nothing.
    loads : int, default 2
        Models that are loaded at once: one slow download must not keep every other model from loading.

    Attributes
    ----------
    hits : int
        Times that a model asked for was in memory.
    """

    def __init__(
        self,
        resolver: Resolver,
        load: Callable[[Resolved], LoadedModel],
        max_models: int,
        refresh_seconds: float,
        values: Values | None = None,
        max_uris: int = 10_000,
        unknown: Unknown | None = None,
        loads: int = 2,
    ) -> None:
        self._resolver, self._load = resolver, load
        self._max_models, self._refresh_seconds, self._max_uris = max_models, refresh_seconds, max_uris
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        #: by URI and whose it is: what `-m` named is not thereby a URI that a client may send
        self._resolutions: OrderedDict[tuple[str, bool], _Resolution] = OrderedDict()
        self._in_flight: dict[tuple[object, ...], asyncio.Task[Any]] = {}
        self._pinned: str | None = None
        self._values = values or Values(None)
        self.hits = 0
        self._unknown = unknown or Unknown(0, 1_000_000)
        self._threads = ThreadPoolExecutor(loads, thread_name_prefix="load")
        # of their own: whoever asks for what is not there must not keep what is from loading
        self._lookups = ThreadPoolExecutor(2, thread_name_prefix="look-up")

    def __len__(self) -> int:
        return len(self._models)

    def __iter__(self) -> Iterator[LoadedModel]:
        return iter(list(self._models.values()))

    def peek(self, uri: str, *, is_default: bool = False) -> LoadedModel | None:
        """The model for a URI if it is in memory and its resolution still fresh; never waits."""
        known = self._resolutions.get((uri, is_default))
        if known is None or known.fresh_until < time.monotonic():
            return None
        return self._used(known.resolved.model_id)

    async def get(self, uri: str, *, is_default: bool = False) -> LoadedModel:
        """The model for a URI, loaded if need be.

        Parameters
        ----------
        uri : str
        is_default : bool, default False
            The URI is the operator's own: whatever MLflow takes goes, and the model is kept whatever else is asked for.

        Raises
        ------
        ModelUriError, ModelForbiddenError, ModelNotFoundError, StoreUnavailableError, ArtifactError, BackendError
        """
        if is_default:
            model = await self._get(uri, is_default)
            self._pinned = model.resolved.model_id
        else:
            self._resolver.check_allowed(parse(uri))
            self._unknown.check(uri)
            with self._unknown.remembering(uri):
                model = await self._get(uri, is_default)
        self._evict()
        return model

    async def _get(self, uri: str, is_default: bool) -> LoadedModel:
        resolved = await self._resolve(uri, is_default)
        model = self._used(resolved.model_id)
        if model is None:
            model = await self._once(("load", resolved.model_id), lambda: self._load_and_keep(resolved))
        return model

    def close(self) -> None:
        """Stop loading and remove what was downloaded."""
        for threads in (self._threads, self._lookups):
            threads.shutdown(wait=False, cancel_futures=True)
        self._resolver.close()

    def _used(self, model_id: str) -> LoadedModel | None:
        model = self._models.get(model_id)
        if model is not None:
            self.hits += 1
            self._models.move_to_end(model_id)
        return model

    async def _resolve(self, uri: str, is_default: bool) -> Resolved:
        known = self._resolutions.get((uri, is_default))
        if known is not None and known.fresh_until >= time.monotonic():
            self._resolutions.move_to_end((uri, is_default))
            return known.resolved
        return await self._once(("resolve", uri, is_default), lambda: self._resolve_and_keep(uri, is_default))

    async def _resolve_and_keep(self, uri: str, is_default: bool) -> Resolved:
        known = self._resolutions.get((uri, is_default))
        try:
            with self._unknown.asking() if known is None and not is_default else nullcontext():
                resolved = await self._on_thread(self._lookups, self._resolve_now, uri, is_default)
        except StoreUnavailableError:
            if known is None or known.resolved.model_id not in self._models:
                raise
            # the store cannot say what the URI stands for now: go on with what is here, and ask again later
            logger.warning("MLflow does not answer; %s goes on as %s", uri, known.resolved.model_id)
            resolved = known.resolved
        fresh_for = self._refresh_seconds if resolved.mutable else float("inf")
        self._resolutions[uri, is_default] = _Resolution(resolved, time.monotonic() + fresh_for)
        self._resolutions.move_to_end((uri, is_default))
        while len(self._resolutions) > self._max_uris:
            self._resolutions.popitem(last=False)
        return resolved

    def _resolve_now(self, uri: str, is_default: bool) -> Resolved:
        return self._resolver.resolve_argument(uri) if is_default else self._resolver.resolve(parse(uri))

    async def _load_and_keep(self, resolved: Resolved) -> LoadedModel:
        started = time.perf_counter()
        self._values.add(m.CACHE_MISSES)
        try:
            model = await self._on_thread(self._threads, self._load, resolved)
        except Exception as e:
            self._values.add(m.LOAD_FAILURES, type(e).__name__)
            raise
        seconds = time.perf_counter() - started
        self._values.observe(m.LOADS, value=seconds)
        dispatch = model.model.dispatch
        dispatch.on_fallback = partial(self._values.add, m.GPU_FALLBACKS)
        if dispatch.fallbacks:
            dispatch.on_fallback("while it was loaded")
        logger.info("loaded %s for %s in %.2f s: %s", resolved.model_id, resolved.uri, seconds, dispatch.described)
        self._models[resolved.model_id] = model
        return model

    def _evict(self) -> None:
        unpinned = [model_id for model_id in self._models if model_id != self._pinned]
        for model_id in unpinned[: max(0, len(unpinned) - self._max_models)]:
            evicted = self._models.pop(model_id)
            self._values.add(m.EVICTIONS)
            logger.info("evicted %s", model_id)
            self._threads.submit(self._resolver.discard, evicted.resolved)

    async def _once(self, key: tuple[object, ...], work: Callable[[], Awaitable[T]]) -> T:
        """Do the work once for all who ask while it is under way; one caller who gives up does not stop it."""
        task = self._in_flight.get(key)
        if task is None:
            task = asyncio.ensure_future(_awaited(work))
            self._in_flight[key] = task
            task.add_done_callback(lambda done: self._forget(key, done))
        result: T = await asyncio.shield(task)
        return result

    def _forget(self, key: tuple[object, ...], task: asyncio.Task[Any]) -> None:
        del self._in_flight[key]
        if not task.cancelled():
            task.exception()  # seen, even if every caller has gone

    async def _on_thread(self, threads: ThreadPoolExecutor, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function, *args)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
