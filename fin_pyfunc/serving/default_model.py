"""The model that answers where a request names none: loaded and warmed in the background when a worker starts."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from typing import Any

from fin_pyfunc.model.errors import FinPyfuncError, StoreUnavailableError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import warm_up
from fin_pyfunc.serving.motion.last_good import LastGood

logger = logging.getLogger("fin_pyfunc.server")

#: Seconds between attempts while MLflow does not answer.
RETRY_SECONDS = 2.0
#: Seconds for which a default model that could not be refreshed goes on without another attempt.
REFRESH_AGAIN_SECONDS = 30.0


class DefaultModel:
    """The server's default model, if it has one.

    Parameters
    ----------
    cache : ModelCache
    uri : str or None
        What `-m` said: whatever MLflow takes.
    last_good : LastGood
        What answered last, in whichever worker.
    """

    def __init__(self, cache: ModelCache, uri: str | None, last_good: LastGood) -> None:
        self._cache, self.uri, self._last_good = cache, uri, last_good
        self._refusal = "it is being loaded"
        #: why it will never load, where waiting does not help; the worker then ends with this sentence
        self.fatal: str | None = None
        self._loaded: LoadedModel | None = None
        self._refresh_not_before = 0.0
        #: set once it is loaded, or known to be none, or to have to wait for MLflow
        self.settled = asyncio.Event()

    @property
    def loaded(self) -> LoadedModel | None:
        """The model that answers now, once there is one."""
        return self._loaded

    @loaded.setter
    def loaded(self, loaded: LoadedModel | None) -> None:
        if loaded is not None:
            loaded.default_uri = self.uri
        self._loaded = loaded

    @property
    def is_ready(self) -> bool:
        """Whether it has scored its warm-up row, or there is none to wait for."""
        return self.uri is None or self.loaded is not None

    async def start(self) -> None:
        """Load until it works or cannot; MLflow being away is waited out."""
        try:
            await self._start()
        finally:
            self.settled.set()

    async def _start(self) -> None:
        self.fatal = None
        while self.uri is not None and self.loaded is None:
            try:
                self.loaded = await self._load(self.uri)
            except StoreUnavailableError as e:
                self._refusal = str(e)
                logger.warning("the default model %s is not loaded yet: %s", self.uri, e)
                self.settled.set()
                await asyncio.sleep(RETRY_SECONDS)
            except FinPyfuncError as e:
                self.loaded = await self._fall_back(self.uri, e)
                if self.loaded is None:
                    self.fatal = self._refusal = str(e)
                    return
            except Exception as e:  # a defect: still an end with a sentence rather than a wait for ever
                logger.exception("the default model %s could not be loaded", self.uri)
                self.fatal = self._refusal = f"loading it raised {type(e).__name__}; the server's log has the cause."
                return

    def now_is(self, loaded: LoadedModel) -> None:
        """Go on as another model, which is warm."""
        self.loaded = loaded
        if self.uri is not None:
            self._last_good.note(self.uri, loaded.resolved.model_id)

    def peek(self) -> LoadedModel | None:
        """The default model if it is in memory and what its URI stands for is still fresh; never waits."""
        if self.uri is None or self.loaded is None:
            return None
        return self._cache.peek(self.uri, is_default=True)

    async def get(self) -> LoadedModel:
        """The default model as it is now: an alias is followed, unless it leads to nothing that loads.

        Raises
        ------
        RequestError
            422 where the server has none, 503 while it is not loaded.
        """
        if self.uri is None:
            raise RequestError(
                422, "This server has no default model: name one with the key 'model_uri', or start the server with -m."
            )
        if self.loaded is None:
            raise RequestError(
                503, f"The server's default model is not ready: {self._refusal.rstrip('.')}.", RETRY_AFTER
            )
        current = self._cache.peek(self.uri, is_default=True)
        if current is None and time.monotonic() >= self._refresh_not_before:
            try:
                current = await self._cache.get(self.uri, is_default=True)
            except FinPyfuncError as e:
                self._refresh_not_before = time.monotonic() + REFRESH_AGAIN_SECONDS
                logger.error("the default model %s goes on as %s: %s", self.uri, self.loaded.resolved.model_id, e)
        self.loaded = current or self.loaded
        return self.loaded

    async def _load(self, uri: str) -> LoadedModel:
        loaded = await self._cache.get(uri, is_default=True)
        await asyncio.get_running_loop().run_in_executor(None, warm_up, loaded)
        self._last_good.note(uri, loaded.resolved.model_id)
        manifest: Any = loaded.model.manifest
        logger.info(
            "default model %s is ready (%s)", uri, manifest.estimator if manifest else "not logged by fin_pyfunc"
        )
        return loaded

    async def _fall_back(self, uri: str, error: FinPyfuncError) -> LoadedModel | None:
        """The version that other workers answer with, where an alias has come to lead to one that does not load."""
        last, key = self._last_good.of(uri), (uri, True)
        if last is None or last.startswith("sha256:"):  # a file whose content has changed is gone
            return None
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(None, self._cache.resolve_now, (last, True))
            resolved = dataclasses.replace(found, uri=uri, mutable=True)
            loaded = await self._cache.load(resolved)
            await loop.run_in_executor(None, warm_up, loaded)
        except FinPyfuncError:
            return None
        self._cache.swap(key, resolved, loaded)
        logger.error("the default model %s goes on as %s, as in the other workers: %s", uri, last, error)
        return loaded
