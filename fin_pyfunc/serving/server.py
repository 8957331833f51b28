"""What one worker holds while it serves, and how that starts and stops."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp

from fin_pyfunc.host.lifeline import Lifeline
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.catalog import Catalog
from fin_pyfunc.serving.compiler import Compiler
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.health import HealthProbe
from fin_pyfunc.serving.hosts.isolation import isolate
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.memory import keep_little
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.worker import WorkerMetrics
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.motion.follower import Follower
from fin_pyfunc.serving.motion.last_good import LastGood
from fin_pyfunc.serving.motion.motion import Asked, Motion
from fin_pyfunc.serving.motion.shadow.shadow import Shadow
from fin_pyfunc.serving.motion.state import StateFile
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.motion.tally import Tally
from fin_pyfunc.serving.prediction import Watchers
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.preload import Preload
from fin_pyfunc.serving.record.recorder import Recorder
from fin_pyfunc.serving.resolver import Resolver, allow_file_store, bound_mlflow_waits
from fin_pyfunc.serving.settings import Settings
from fin_pyfunc.serving.store import Store
from fin_pyfunc.serving.tracing import Tracer
from fin_pyfunc.serving.trust.loads import Loads
from fin_pyfunc.serving.trust.unknown import Unknown
from fin_pyfunc.serving.warming import warm

#: Called with the default model, or None where the server has none.
ReadyHook = Callable[[LoadedModel | None], None]
#: Seconds between attempts to load a default model that could not be loaded, where other workers serve.
LOAD_AGAIN_SECONDS = 10.0
_NOT_ISOLATED = (
    "models.isolation is 'none': code of models runs in the workers, with the server's rights, environment and memory; "
    "a crash of a model ends its worker, and models that bring different modules of one name cannot be loaded together"
)
logger = logging.getLogger("fin_pyfunc.server")


class Server:
    """The parts of one worker, each made once.

    Parameters
    ----------
    settings : Settings
    on_ready : callable, optional
        Called once `/health/ready` says yes.
    on_fatal : callable, optional
        Called with the reason where it is certain that one of its models cannot be loaded; what it raises ends the
        worker.
    on_stuck : callable, optional
        Called once too many scoring threads do not come back; it should have the worker replaced.
    before_serving : callable, optional
        Awaited, with this server, before the worker listens.
    metrics_folder : Path, optional
        Where all workers of one server keep what they count; default one of this worker's own.
    board : Board, optional
        What the workers share; default one of this server's own.
    lifeline : Lifeline, optional
        What makes the workers share the processes that models run in; default one of this server's own.
    folder : Path, optional
        Private folder for copies of models, which its owner removes even if this process is killed; default one of this
        server's own.

    Attributes
    ----------
    is_leaving : bool
        Whether this worker ends, so that clients should connect anew.
    admin_app : ASGI application or None
        Answers what comes over the admin socket; set by `create_app`.
    watchers : Watchers
        Who looks on at predictions.
    at_end : list of callable
        What is called once every request was answered.

    Raises
    ------
    StateFileError
        The state file cannot be read.
    """

    def __init__(
        self,
        settings: Settings,
        on_ready: ReadyHook | None = None,
        on_fatal: Callable[[str], None] | None = None,
        on_stuck: Callable[[], None] | None = None,
        before_serving: Callable[[Server], Awaitable[None]] | None = None,
        metrics_folder: Path | None = None,
        board: Board | None = None,
        lifeline: Lifeline | None = None,
        folder: Path | None = None,
    ) -> None:
        self._on_ready, self._on_fatal, self._on_stuck = on_ready, on_fatal or _ignore, on_stuck
        self._before_serving = before_serving
        uri = settings.mlflow.tracking_uri
        models = settings.models
        resolver = Resolver(
            uri,
            file_roots=[Path(root) for root in models.file_roots],
            trust=models.trust,
            allow=models.allow,
            artifact_roots=models.artifact_roots,
            max_bytes=models.max_bytes,
            folder=folder,
        )
        self.settings = settings
        self.admin_app: ASGIApp | None = None
        self.is_leaving = False
        self.at_end: list[Callable[[], None]] = []
        self.metrics = WorkerMetrics(settings.metrics.enabled, metrics_folder)
        isolation = isolate(models, settings.limits.request_seconds, lifeline, self.metrics.values)
        if isolation is None:
            logger.warning(_NOT_ISOLATED)
        self.hosts = None if isolation is None else isolation.hosts
        self.compiler = Compiler(self.hosts)
        self.tracer = Tracer() if settings.tracing.enabled else None
        self.cache = ModelCache(
            resolver,
            Loads(
                partial(
                    load,
                    resolver,
                    backend=settings.backend,
                    compiler=self.compiler,
                    isolation=isolation,
                ),
                resolver.discard,
                models.loads,
                models.load_seconds,
            ),
            max_models=settings.cache.max_models if settings.cache.enabled else 0,
            refresh_seconds=models.refresh_seconds,
            values=self.metrics.values,
            is_followed=models.refresh_seconds > 0,
            unknown=Unknown(models.unknown_seconds, models.unknown_per_second),
            loads=models.loads,
        )
        self.tally, self.watchers, board = Tally(), Watchers(), board or Board()
        state_file = None if settings.admin.state_file is None else StateFile(Path(settings.admin.state_file))
        self.stops = Stops(board, state_file, self.cache, settings.model_uri, self.tally)
        self.stops.load()
        self.default = DefaultModel(self.cache, settings.model_uri, LastGood(board))
        self.preload = Preload(self.cache, settings.preload)
        record = settings.record
        self.recorder = Recorder(record, settings.limits.request_seconds) if record.folder is not None else None
        if self.recorder is not None:
            self.watchers.add(self.recorder)
        self.follower = Follower(self.cache, self.default, settings.models.refresh_seconds, self.tally)
        self.shadow = Shadow(self.cache, settings, self.stops, self.watchers, self.tally)
        asked = Asked(resolver, Store(uri))
        self.motion = Motion(settings, board, asked, self.default, self.follower, self.stops, self.shadow)
        self.predictor = Predictor(self.cache, self.default, settings.limits, self.stops)
        probe_seconds = settings.mlflow.probe_seconds
        self.health = HealthProbe(
            *(Store(uri), self.predictor, self.cache, self.default, self.preload),
            probe_seconds,
            has_files=bool(models.file_roots),
        )
        self.catalog = Catalog(uri, settings.mlflow.experiment_name)
        self._hits, self._recorded = 0, (0, 0)
        self._shown: set[tuple[str, str]] = set()
        self.metrics.before_flush.append(self._count)
        self.tally.listen(self._count_motion)

    @asynccontextmanager
    async def lifespan(self, _: object) -> AsyncIterator[dict[str, Any]]:
        """Start what runs in the background; stop it, and remove what was downloaded, at the end.

        Yields itself as the lifespan's state, so that whoever runs the application can tell it to drain.
        """
        keep_little()
        allow_file_store(os.environ, self.settings.mlflow.tracking_uri)
        bound_mlflow_waits(os.environ)
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # it would draw in the log
        warm(self.settings)  # a worker of ours has inherited these imports
        self.metrics.start()
        if self.tracer is not None:
            self.tracer.start()
        work = [
            self.health.run(),
            self._start_models(),
            self.motion.run(),
            self.predictor.watch(self._on_stuck),
            self.metrics.run(),
        ]
        if self.recorder is not None:
            self.recorder.start()
            work.append(self.recorder.run())
        background = [asyncio.create_task(each) for each in work]
        try:
            if self._before_serving is not None:
                await self._before_serving(self)
            yield {"server": self}
        finally:
            self.predictor.drain()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)
            if self.recorder is not None:
                await self.recorder.close()
            self.motion.close()
            self.predictor.close()
            self.health.close()
            self.compiler.close()
            if self.hosts is not None:
                self.hosts.close()
            self.cache.close()
            for finish in self.at_end:
                finish()
            self.metrics.close()
            if self.tracer is not None:
                self.tracer.close()

    async def _start_models(self) -> None:
        await self.default.start()
        while self.default.fatal is not None:
            refusal = f"the default model {self.default.uri} cannot be loaded: {self.default.fatal}"
            self._on_fatal(refusal)
            logger.error("%s", refusal)
            await asyncio.sleep(LOAD_AGAIN_SECONDS)  # others still serve what they have: this worker waits
            await self.default.start()
        await self.preload.start(self._on_fatal)
        await self.health.wait_until_ready()
        if self._on_ready is not None:
            self._on_ready(self.default.loaded)

    def _count(self) -> None:
        """What is read off the parts rather than counted by them."""
        values, models = self.metrics.values, list(self.cache)
        values.add(m.CACHE_HITS, by=self.cache.hits - self._hits)
        self._hits = self.cache.hits
        values.set(m.MODELS, to=len(models))
        values.set(m.HOSTS, to=0 if self.hosts is None else len(self.hosts))
        values.set(m.MODEL_BYTES, to=sum(model.size for model in models))
        shown = {(model.resolved.model_id, model.resolved.public(self._uri_of(model))) for model in models}
        for labels in shown | self._shown:
            values.set(m.MODEL_INFO, *labels, to=float(labels in shown))
        self._shown = shown
        if self.recorder is not None:
            written, failed = self.recorder.written, self.recorder.failed
            values.add(m.RECORDS_WRITTEN, by=written - self._recorded[0])
            values.add(m.RECORDS_FAILED, by=failed - self._recorded[1])
            values.set(m.RECORDS_WAITING, to=self.recorder.waiting)
            self._recorded = written, failed
        values.set(m.STOPPED_MODELS, to=len(self.stops.now()))
        values.set(m.WAITING, to=self.predictor.waiting)
        values.set(m.READY, to=float(self.health.not_ready() is None))
        values.set(m.MLFLOW_UP, to=float(self.health.mlflow_connected))

    def _uri_of(self, model: LoadedModel) -> str:
        """The URI to show a model by: the default model's own, which need not have loaded it."""
        return model.asked_by(None) if self.default.loaded is model else model.resolved.uri

    def _count_motion(self, name: str, _: tuple[str, ...], n: float) -> None:
        """What happened to a model, as soon as it did; names as `Tally` has them."""
        values, chosen = self.metrics.values, self.shadow.chosen
        shadow, model = chosen.model_uri or "", chosen.of or self.settings.model_uri or ""
        match name:
            case "followed":
                values.add(m.ALIAS_SWAPS, "swapped", by=n)
            case "rejected":
                values.add(m.ALIAS_SWAPS, "refused", by=n)
            case "shadow_agreed" | "shadow_differed":
                values.add(m.SHADOW_ROWS, model, shadow, "true" if name == "shadow_agreed" else "false", by=n)
            case "shadow_difference":
                values.add(m.SHADOW_DISTANCE, model, shadow, by=n)
            case "shadow_dropped" | "shadow_stopped" | "shadow_failed":
                values.add(m.SHADOW_SKIPPED, shadow, name.removeprefix("shadow_"), by=n)


def _ignore(_: str) -> None:
    """What cannot be loaded ends nothing."""
