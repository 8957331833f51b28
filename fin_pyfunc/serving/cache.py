"""Models in memory: found by what a URI resolves to, loaded once however many ask, the least recently used let go."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial
from typing import Any, TypeVar

from fin_pyfunc.model.errors import StoreUnavailableError
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.values import Values
from fin_pyfunc.serving.resolver import Resolved, Resolver
from fin_pyfunc.serving.trust.unknown import Unknown
from fin_pyfunc.serving.uris import parse

logger = logging.getLogger("fin_pyfunc.server")
T = TypeVar("T")


#: A URI, and whether it is the operator's own: what `-m` named is not thereby a URI that a client may send.
Key = tuple[str, bool]


class Resolution:
    """What a URI stands for now.

    Parameters
    ----------
    resolved : Resolved
    fresh_until : float
        In the seconds of ``time.monotonic``.

    Attributes
    ----------
    was_asked : bool
        Whether a request came for it since the follower looked last.
    idle_rounds : int
        How often the follower looked and none had come.
    """

    __slots__ = ("fresh_until", "idle_rounds", "resolved", "was_asked")

    def __init__(self, resolved: Resolved, fresh_until: float) -> None:
        self.resolved, self.fresh_until = resolved, fresh_until
        self.was_asked, self.idle_rounds = True, 0


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
    is_followed : bool, default False
        Somebody looks again in the background (`motion.follower`), so that no request ever has to.
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
        is_followed: bool = False,
        unknown: Unknown | None = None,
        loads: int = 2,
    ) -> None:
        self._resolver, self._load, self._is_followed = resolver, load, is_followed
        self._max_models, self._refresh_seconds, self._max_uris = max_models, refresh_seconds, max_uris
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._resolutions: OrderedDict[Key, Resolution] = OrderedDict()
        self._in_flight: dict[tuple[object, ...], asyncio.Task[Any]] = {}
        #: by who wants it kept, the URI whose model stays whatever else is asked for
        self._pins: dict[str, Key] = {}
        self._values = values or Values(None)
        self.hits = 0
        self._unknown = unknown or Unknown(0, 1_000_000)
        self._threads = ThreadPoolExecutor(loads, thread_name_prefix="load")
        # of their own: whoever asks for what is not there must not keep what is from loading
        self._lookups = ThreadPoolExecutor(2, thread_name_prefix="look-up")

    def __len__(self) -> int:
        return len(self._models)

    def __contains__(self, key: Key) -> bool:
        return key in self._resolutions

    def __iter__(self) -> Iterator[LoadedModel]:
        return iter(list(self._models.values()))

    def peek(self, uri: str, *, is_default: bool = False) -> LoadedModel | None:
        """The model for a URI if it is in memory and its resolution still fresh; never waits."""
        known = self._resolutions.get((uri, is_default))
        if known is None or known.fresh_until < time.monotonic():
            return None
        known.was_asked = True
        return self._used(known.resolved.model_id)

    def held(self, uri: str, *, is_default: bool = False) -> LoadedModel | None:
        """The model for a URI if it is in memory, by what the URI stood for last; does not count as being asked."""
        known = self._resolutions.get((uri, is_default))
        return None if known is None else self._models.get(known.resolved.model_id)

    async def get(self, uri: str, *, is_default: bool = False, pin: str | None = None) -> LoadedModel:
        """The model for a URI, loaded if need be.

        Parameters
        ----------
        uri : str
        is_default : bool, default False
            The URI is the operator's own: whatever MLflow takes goes, and the model is kept whatever else is asked for.
        pin : str, optional
            Keep the model so under this name, until `unpin`, whoever's the URI is.

        Raises
        ------
        ModelUriError, ModelForbiddenError, ModelNotFoundError, StoreUnavailableError, ArtifactError, BackendError
        """
        if is_default or pin is not None:
            self._pins[pin or uri] = uri, is_default
        if is_default:
            model = await self._get(uri, is_default)
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
            model = await self.load(resolved)
            model.hits += 1
        return model

    def unpin(self, pin: str) -> None:
        """Let go of what was kept under this name, as soon as there is need of its place."""
        if self._pins.pop(pin, None) is not None:
            self._evict()

    def models(self) -> list[LoadedModel]:
        """What is in memory, the least recently used first."""
        return list(self._models.values())

    def led_to(self) -> list[tuple[str, str]]:
        """Every URI that is known, and the id of the model that it stands for."""
        return [(uri, known.resolved.model_id) for (uri, _), known in list(self._resolutions.items())]

    def to_follow(self) -> list[tuple[Key, Resolution]]:
        """What may come to stand for something else."""
        return [(key, known) for key, known in self._resolutions.items() if known.resolved.mutable]

    def is_pinned(self, key: Key) -> bool:
        """Whether somebody wants the URI's model kept."""
        return key in self._pins.values()

    def resolve_now(self, key: Key) -> Resolved:
        """What a URI stands for now, by asking; for a thread."""
        uri, is_default = key
        return self._resolver.resolve_argument(uri) if is_default else self._resolver.resolve(parse(uri))

    async def load(self, resolved: Resolved, threads: Executor | None = None) -> LoadedModel:
        """The model, loaded if need be, without anything coming to stand for it.

        Raises
        ------
        StoreUnavailableError, ArtifactError, BackendError
        """
        model = self._models.get(resolved.model_id)
        if model is None:
            key = ("load", resolved.model_id)
            model = await self._once(key, lambda: self._load_and_keep(resolved, threads or self._threads))
        return model

    def swap(self, key: Key, resolved: Resolved, model: LoadedModel) -> None:
        """Let a URI stand for another model from the next request on; the one before is freed after its last.

        Parameters
        ----------
        key : Key
        resolved : Resolved
        model : LoadedModel
            Warm.
        """
        known = self._resolutions.setdefault(key, Resolution(resolved, float("inf")))
        before, known.resolved = known.resolved.model_id, resolved
        self._models[resolved.model_id] = model
        if all(other.resolved.model_id != before for other in self._resolutions.values()):
            self._let_go(before)
        self._evict()

    def allows_code(self, resolved: Resolved) -> bool:
        """Whether a model may be more than data."""
        return self._resolver.allows_code(resolved)

    def forget(self, key: Key) -> None:
        """Have the next request for a URI resolve it again."""
        self._resolutions.pop(key, None)

    def close(self) -> None:
        """Stop loading and remove what was downloaded."""
        for threads in (self._threads, self._lookups):
            threads.shutdown(wait=False, cancel_futures=True)
        self._resolver.close()

    def _used(self, model_id: str) -> LoadedModel | None:
        model = self._models.get(model_id)
        if model is not None:
            model.hits += 1
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
                resolved = await self._on_thread(self._lookups, self.resolve_now, (uri, is_default))
        except StoreUnavailableError:
            if known is None or known.resolved.model_id not in self._models:
                raise
            # the store cannot say what the URI stands for now: go on with what is here, and ask again later
            logger.warning("MLflow does not answer; %s goes on as %s", uri, known.resolved.model_id)
            resolved = known.resolved
        is_fresh = self._is_followed or not resolved.mutable
        fresh_for = float("inf") if is_fresh else self._refresh_seconds
        self._resolutions[uri, is_default] = Resolution(resolved, time.monotonic() + fresh_for)
        self._resolutions.move_to_end((uri, is_default))
        while len(self._resolutions) > self._max_uris:
            pinned = set(self._pins.values())
            self.forget(next(key for key in self._resolutions if key not in pinned))
        return resolved

    async def _load_and_keep(self, resolved: Resolved, threads: Executor) -> LoadedModel:
        started = time.perf_counter()
        self._values.add(m.CACHE_MISSES)
        try:
            model = await self._on_thread(threads, self._load, resolved)
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
        found = (self._resolutions.get(key) for key in self._pins.values())
        pinned = {known.resolved.model_id for known in found if known is not None}
        unpinned = [model_id for model_id in self._models if model_id not in pinned]
        for model_id in unpinned[: max(0, len(unpinned) - self._max_models)]:
            self._let_go(model_id)
            self._values.add(m.EVICTIONS)
            logger.info("evicted %s", model_id)

    def _let_go(self, model_id: str) -> None:
        """Take no more requests for a model; those under way may still need its files."""
        model = self._models.pop(model_id, None)
        if model is not None:
            self._resolver.discard(model.resolved, after=model.model)

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

    async def _on_thread(self, threads: Executor, function: Callable[..., T], *args: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function, *args)


async def _awaited(work: Callable[[], Awaitable[T]]) -> T:
    return await work()
