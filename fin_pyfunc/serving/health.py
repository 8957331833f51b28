"""Whether this worker can score: MLflow is asked in the background, so that the answer never waits."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from fin_pyfunc.model.device import gpu_available, probe
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.predictor import DRAINING, Predictor
from fin_pyfunc.serving.preload import Preload
from fin_pyfunc.serving.schemas import Health
from fin_pyfunc.serving.store import Store

logger = logging.getLogger("fin_pyfunc.server")

#: Most seconds between two probes until MLflow has answered once, where nothing is ready before that.
FIRST_PROBE_SECONDS = 2.0
#: Seconds between two looks at whether the server is ready.
READY_POLL_SECONDS = 0.05


class HealthProbe:
    """What `/health`, `/health/live` and `/health/ready` know.

    Parameters
    ----------
    store : Store
        Asked every `probe_seconds`, on a thread of its own.
    predictor : Predictor
        Knows whether the server is draining.
    cache : ModelCache
    default : DefaultModel
    preload : Preload
    probe_seconds : float
    has_files : bool, default False
        Whether models may be loaded from below ``models.file_roots``, for which MLflow is not needed.
    """

    def __init__(
        self,
        store: Store,
        predictor: Predictor,
        cache: ModelCache,
        default: DefaultModel,
        preload: Preload,
        probe_seconds: float,
        has_files: bool = False,
    ) -> None:
        self._store, self._predictor, self._cache = store, predictor, cache
        self._default, self._preload = default, preload
        self._probe_seconds, self._has_files = probe_seconds, has_files
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._mlflow_connected = False
        #: why MLflow did not answer when it was last asked; None before that, and where it did
        self._problem: str | None = None
        self._has_answered = False
        self._gpu_available = False

    async def run(self) -> None:
        """Probe until cancelled."""
        loop = asyncio.get_running_loop()
        device = await loop.run_in_executor(self._thread, probe)
        logger.info("GPU: %s", device.name or f"none ({device.refusal})")
        while True:
            # asked once; again only where a device has failed since
            self._gpu_available = await loop.run_in_executor(self._thread, gpu_available)
            self._note(await loop.run_in_executor(self._thread, self._ping))
            is_awaited = not self._has_answered and not self._can_do_without
            await asyncio.sleep(min(self._probe_seconds, FIRST_PROBE_SECONDS) if is_awaited else self._probe_seconds)

    @property
    def mlflow_connected(self) -> bool:
        """Whether MLflow answered when it was last asked."""
        return self._mlflow_connected

    def health(self) -> Health:
        """The body of `GET /health`."""
        in_memory = len(self._cache)
        if self._default.uri is not None:
            can_score = self._default.loaded is not None and not self._default.loaded.is_out
        else:
            can_score = in_memory > 0 or self._mlflow_connected or self._has_files
        status = "unhealthy" if not can_score else "healthy" if self._mlflow_connected else "degraded"
        return Health(
            status=status,
            mlflow_connected=self._mlflow_connected,
            gpu_available=self._gpu_available,
            cached_models=in_memory,
        )

    def not_ready(self) -> str | None:
        """Why `/health/ready` says no, or None."""
        if self._predictor.is_draining:
            return DRAINING
        if not self._default.is_ready:
            return "The server's default model has not scored its warm-up row yet: try again."
        if not self._preload.is_ready:
            return "The server is still loading the models of its preload list: try again."
        if self._has_answered or self._can_do_without:
            return None
        return self._problem or "The server has only just started and has not asked MLflow yet: try again."

    async def wait_until_ready(self) -> None:
        """Wait until `/health/ready` would say yes."""
        while self.not_ready() is not None:
            await asyncio.sleep(READY_POLL_SECONDS)

    @property
    def _can_do_without(self) -> bool:
        """Whether something can be served that MLflow is not needed for."""
        return self._default.uri is not None or self._has_files or len(self._cache) > 0

    def close(self) -> None:
        """Stop asking."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _note(self, problem: str | None) -> None:
        """Keep what the probe found, and say what is new of it: the first finding, and each change."""
        if problem is None and not self._mlflow_connected:
            logger.info("MLflow answers")
        elif problem is not None and self._mlflow_connected:
            logger.warning("MLflow does not answer any more; models in memory go on: %s", problem)
        elif problem is not None and problem != self._problem:
            logger.warning("MLflow does not answer; it is asked every %g s: %s", self._probe_seconds, problem)
        self._mlflow_connected, self._problem = problem is None, problem
        self._has_answered |= problem is None

    def _ping(self) -> str | None:
        """Ask MLflow; returns what is wrong, or None."""
        try:
            self._store.ping()
        except FinPyfuncError as e:
            return str(e)
        except Exception:  # a defect must not end the probing
            logger.exception("asking MLflow failed in a way that was not foreseen")
            return "Asking MLflow failed in a way that was not foreseen: the server's log has the trace."
        return None
