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
    """

    def __init__(
        self,
        store: Store,
        predictor: Predictor,
        cache: ModelCache,
        default: DefaultModel,
        preload: Preload,
        probe_seconds: float,
    ) -> None:
        self._store, self._predictor, self._cache = store, predictor, cache
        self._default, self._preload = default, preload
        self._probe_seconds = probe_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="probe")
        self._mlflow_connected = False
        self._has_probed = False
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
            await asyncio.sleep(self._probe_seconds)

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
            can_score = in_memory > 0 or self._mlflow_connected
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
        if self._default.uri is None and not self._has_probed:
            return "The server has only just started and has not asked MLflow yet: try again."
        if not self._default.is_ready:
            return "The server's default model has not scored its warm-up row yet: try again."
        return (
            None if self._preload.is_ready else "The server is still loading the models of its preload list: try again."
        )

    def close(self) -> None:
        """Stop asking."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _note(self, connected: bool) -> None:
        """Keep what the probe found, and say what is new of it: the first finding, and each change."""
        if connected and not self._mlflow_connected:
            logger.info("MLflow answers")
        elif not connected and self._mlflow_connected:
            logger.warning("MLflow does not answer any more; models in memory go on")
        elif not connected and not self._has_probed:
            logger.warning("MLflow does not answer; it is asked every %g s", self._probe_seconds)
        self._mlflow_connected, self._has_probed = connected, True

    def _ping(self) -> bool:
        try:
            self._store.ping()
        except FinPyfuncError:
            return False
        except Exception:  # a defect must not end the probing
            logger.exception("asking MLflow failed in a way that was not foreseen")
            return False
        return True
