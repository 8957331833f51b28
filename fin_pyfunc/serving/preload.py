"""Models that are loaded and warm before the server is ready, besides the default one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

from fin_pyfunc.model.errors import FinPyfuncError, StoreUnavailableError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.default_model import RETRY_SECONDS
from fin_pyfunc.serving.loader import warm_up

logger = logging.getLogger("fin_pyfunc.server")


class Preload:
    """The operator's list of models.

    They stay in memory whatever else is asked for, and an alias among them is followed whether or not it is asked.

    Parameters
    ----------
    cache : ModelCache
    uris : sequence of str
        As a client may send them.
    """

    def __init__(self, cache: ModelCache, uris: Sequence[str]) -> None:
        self._cache, self._missing = cache, list(uris)
        #: what is wrong with one that cannot be loaded, in a sentence; None while nothing is
        self.fatal: str | None = None

    @property
    def is_ready(self) -> bool:
        """Whether each has been loaded and has scored its warm-up rows."""
        return not self._missing

    async def start(self, on_fatal: Callable[[str], None]) -> None:
        """Load one after the other until all are there; MLflow being away is waited out.

        Parameters
        ----------
        on_fatal : callable
            Called with what is wrong with one that cannot be loaded; if it returns, the server goes on without it.
        """
        while self._missing:
            uri = self._missing[0]
            try:
                loaded = await self._cache.get(uri, pin=f"preload {uri}")
                await asyncio.get_running_loop().run_in_executor(None, warm_up, loaded)
            except StoreUnavailableError as e:
                logger.warning("the model %s is not loaded yet: %s", uri, e)
                await asyncio.sleep(RETRY_SECONDS)
                continue
            except FinPyfuncError as e:
                self.fatal = f"the model {uri} of the preload list cannot be loaded: {e}"
                on_fatal(self.fatal)
                logger.error("%s", self.fatal)
            except Exception as e:  # a defect: still an end rather than a wait for ever
                self.fatal = f"loading the model {uri} of the preload list raised {type(e).__name__}."
                logger.exception("%s", self.fatal)
                on_fatal(self.fatal)
            else:
                logger.info("model %s is ready", uri)
            self._missing.pop(0)
