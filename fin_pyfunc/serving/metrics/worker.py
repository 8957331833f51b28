"""The metrics of one worker while it serves: what is read off its parts, and writing it all now and then."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from fin_pyfunc._version import __version__
from fin_pyfunc.serving.memory import resident_bytes
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics import folder as folders
from fin_pyfunc.serving.metrics.values import Values

logger = logging.getLogger("fin_pyfunc.server")

#: Seconds between two writings; what a worker that is killed counted in the last of them is lost.
FLUSH_SECONDS = 0.2


class WorkerMetrics:
    """Counts for one worker.

    Parts of the server count by ``metrics.values.add(definitions.X, …)`` and its like; what is on the hot path collects
    and counts when it is asked to, before each writing, by `before_flush`.

    Parameters
    ----------
    is_on : bool
    folder : Path, optional
        Shared with the other workers; default one of its own, made when the worker starts.
    """

    def __init__(self, is_on: bool, folder: Path | None = None) -> None:
        self._is_on, self._folder, self._owns_folder = is_on, folder, False
        self.values = Values(None)
        #: what is called before each writing
        self.before_flush: list[Callable[[], None]] = []

    def start(self) -> None:
        """Open this worker's files: after the fork, since they bear the process's id."""
        if not self._is_on:
            return
        if self._folder is None:
            self._folder, self._owns_folder = folders.make(), True
        self.values.folder = self._folder
        self.values.set(m.BUILD_INFO, __version__, to=1)

    async def run(self) -> None:
        """Write several times a second until cancelled."""
        while self.values.is_on:
            self.flush()
            await asyncio.sleep(FLUSH_SECONDS)

    def flush(self) -> None:
        """Write what was counted up to now."""
        try:
            for collect in self.before_flush:
                collect()
            self.values.set(m.WORKER_MEMORY, to=resident_bytes())
            self.values.flush()
        except Exception:  # a defect of what counts must stop neither the counting nor the server
            logger.exception("writing the metrics failed")

    async def expose(self, accept: str) -> tuple[bytes, str]:
        """What all workers counted; see `folder.expose`."""
        assert self._folder is not None  # noqa: S101 - for the type checker; there is no route to this otherwise
        self.flush()
        return await asyncio.to_thread(folders.expose, self._folder, accept)

    def close(self) -> None:
        """Write the last of it."""
        if self.values.is_on:
            self.flush()
            self.values.close()
        if self._owns_folder and self._folder is not None:
            folders.remove(self._folder)
