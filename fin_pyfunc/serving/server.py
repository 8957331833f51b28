"""What one worker holds while it serves, and how that starts and stops."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.catalog import Catalog
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.health import HealthProbe
from fin_pyfunc.serving.loader import LoadedModel, load
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.motion.follower import Follower
from fin_pyfunc.serving.motion.last_good import LastGood
from fin_pyfunc.serving.motion.motion import Asked, Motion
from fin_pyfunc.serving.motion.shadow import Shadow
from fin_pyfunc.serving.motion.state import StateFile
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.motion.tally import Tally
from fin_pyfunc.serving.prediction import Watchers
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.resolver import Resolver, allow_file_store, bound_mlflow_waits
from fin_pyfunc.serving.settings import Settings
from fin_pyfunc.serving.store import Store
from fin_pyfunc.serving.trust.loads import Loads
from fin_pyfunc.serving.trust.unknown import Unknown

#: Called with the default model, or None where the server has none.
ReadyHook = Callable[[LoadedModel | None], None]
logger = logging.getLogger("fin_pyfunc.server")


class Server:
    """The parts of one worker, each made once.

    Parameters
    ----------
    settings : Settings
    on_ready : callable, optional
        Called once the default model, if any, answers.
    on_fatal : callable, optional
        Called once it is certain that the default model cannot be loaded; what it raises ends the worker.
    on_stuck : callable, optional
        Called once too many scoring threads do not come back; it should have the worker replaced.
    board : Board, optional
        What the workers share; default one of this server's own.

    Raises
    ------
    StateFileError
        The state file cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        on_ready: ReadyHook | None = None,
        on_fatal: Callable[[], None] | None = None,
        on_stuck: Callable[[], None] | None = None,
        board: Board | None = None,
    ) -> None:
        self._on_ready, self._on_fatal, self._on_stuck = on_ready, on_fatal, on_stuck
        uri = settings.mlflow.tracking_uri
        models = settings.models
        resolver = Resolver(
            uri,
            file_roots=[Path(root) for root in models.file_roots],
            trust=models.trust,
            allow=models.allow,
            artifact_roots=models.artifact_roots,
            max_bytes=models.max_bytes,
        )
        self.settings = settings
        self.compiler = Compiler()
        self.cache = ModelCache(
            resolver,
            Loads(
                partial(load, resolver, backend=settings.backend, compiler=self.compiler),
                resolver.discard,
                models.loads,
                models.load_seconds,
            ),
            max_models=settings.cache.max_models if settings.cache.enabled else 0,
            refresh_seconds=models.refresh_seconds,
            is_followed=models.refresh_seconds > 0,
            unknown=Unknown(models.unknown_seconds, models.unknown_per_second),
            loads=models.loads,
        )
        self.tally, self.watchers, board = Tally(), Watchers(), board or Board()
        state_file = None if settings.admin.state_file is None else StateFile(Path(settings.admin.state_file))
        self.stops = Stops(board, state_file, self.cache, settings.model_uri, self.tally)
        self.stops.load()
        self.default = DefaultModel(self.cache, settings.model_uri, LastGood(board))
        self.follower = Follower(self.cache, self.default, settings.models.refresh_seconds, self.tally)
        self.shadow = Shadow(self.cache, settings.shadow, settings.model_uri, self.stops, self.watchers, self.tally)
        asked = Asked(resolver, Store(uri))
        self.motion = Motion(settings, board, asked, self.default, self.follower, self.stops, self.shadow)
        self.predictor = Predictor(self.cache, self.default, settings.limits, self.stops)
        self.health = HealthProbe(Store(uri), self.predictor, self.cache, self.default, settings.mlflow.probe_seconds)
        self.catalog = Catalog(uri, settings.mlflow.experiment_name)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[dict[str, Any]]:
        """Start what runs in the background; stop it, and remove what was downloaded, at the end.

        Yields itself as the lifespan's state, so that whoever runs the application can tell it to drain.
        """
        allow_file_store(os.environ, self.settings.mlflow.tracking_uri)
        bound_mlflow_waits(os.environ)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it would draw in the log
        background = [asyncio.create_task(self.health.run()), asyncio.create_task(self._start_default())]
        background.append(asyncio.create_task(self.motion.run()))
        background.append(asyncio.create_task(self.predictor.watch(self._on_stuck)))
        try:
            yield {"server": self}
        finally:
            self.predictor.drain()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            self.motion.close()
            self.predictor.close()
            self.health.close()
            self.compiler.close()
            self.cache.close()

    async def _start_default(self) -> None:
        await self.default.start()
        if self.default.fatal is not None:
            logger.error("the default model %s cannot be loaded: %s", self.default.uri, self.default.fatal)
            if self._on_fatal is not None:
                self._on_fatal()
        elif self._on_ready is not None:
            self._on_ready(self.default.loaded)
