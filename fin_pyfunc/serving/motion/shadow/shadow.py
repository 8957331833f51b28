"""A second model that sees a share of the traffic after the answer has gone, and never an answer's time."""

from __future__ import annotations

import logging
import random
from typing import NamedTuple

from starlette.types import Scope

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.gathering import Gathering
from fin_pyfunc.serving.http import request_id
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.motion.shadow.messages import Clear, Opening, Report, framed
from fin_pyfunc.serving.motion.shadow.process import ShadowProcess
from fin_pyfunc.serving.motion.shadow.telling import Answer, Telling
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.motion.tally import Tally
from fin_pyfunc.serving.prediction import Prediction, Watchers
from fin_pyfunc.serving.settings import Settings

logger = logging.getLogger("fin_pyfunc.server")

#: Answers that it is told of together, or what came within so many seconds.
TOGETHER, WAIT_SECONDS = 64, 0.05
#: Pairs of classes that are counted apart.
MAX_PAIRS = 100


class Chosen(NamedTuple):
    """Which model shadows which requests.

    Parameters
    ----------
    model_uri : str or None
        None for no shadow.
    share : float
        Of the requests, from 0 to 1.
    of : str or None
        The URI that requests ask for; None for the default model's.
    is_operators : bool
        The URI is of the settings: whatever MLflow takes goes.
    """

    model_uri: str | None
    share: float
    of: str | None
    is_operators: bool


class _Active:
    """A shadow that is on, and what it has been told; another that takes its place starts with nothing.

    Parameters
    ----------
    chosen : Chosen
    loaded : LoadedModel
    shadowed : frozenset of (str or None)
        What requests ask for whose rows it sees.
    process : ShadowProcess
    """

    def __init__(
        self, chosen: Chosen, loaded: LoadedModel, shadowed: frozenset[str | None], process: ShadowProcess
    ) -> None:
        self.chosen, self.loaded, self.shadowed, self.process = chosen, loaded, shadowed, process
        #: rows that it was told of and has not reported on
        self.waiting = 0
        self.is_cleared = False
        self._gathering: Gathering[Answer] = Gathering(self._send, TOGETHER, WAIT_SECONDS)
        self._telling = Telling(loaded.model.features)

    def tell(self, request_id: str, prediction: Prediction) -> None:
        """Send it what was answered, in a moment and with what else is answered until then."""
        self.waiting += len(prediction.decisions)
        self._gathering.add((request_id, prediction))

    def flush(self) -> None:
        """Send what is gathered now."""
        self._gathering.flush()

    def _send(self, answers: list[Answer]) -> None:
        self.process.send(self._telling.of(answers))

    def clear(self) -> None:
        """Have it drop what waits, once."""
        if not self.is_cleared:
            self.is_cleared = True
            self.flush()
            self.process.send(framed(Clear()))


class Shadow:
    """The shadow of one worker; a `Watcher` while it is on.

    Its model scores in a process of its own, which takes processor time that nobody else wants. The rows go there
    through a pipe; of those that it has not answered yet there is a bound, and what is beyond is dropped and counted.

    Parameters
    ----------
    cache : ModelCache
        Keeps its model, and follows its alias.
    settings : Settings
    stops : Stops
        A model that was stopped is no shadow either.
    watchers : Watchers
    tally : Tally

    Attributes
    ----------
    chosen : Chosen
    problem : str or None
        Why it is not on although it was chosen.
    greatest : float
        Greatest difference of a probability so far.
    """

    def __init__(self, cache: ModelCache, settings: Settings, stops: Stops, watchers: Watchers, tally: Tally) -> None:
        self._cache, self._settings = cache, settings
        self._stops, self._watchers, self._tally = stops, watchers, tally
        self.chosen = Chosen(None, 0.0, None, True)
        self.problem: str | None = None
        self.greatest = 0.0
        self._active: _Active | None = None
        self._pairs: set[tuple[str, str]] = set()
        #: whom the counts are of: the shadow's id, and what it shadows
        self._subject: tuple[str, str | None] | None = None

    @property
    def loaded(self) -> LoadedModel | None:
        """The model that is asked now, or None."""
        return None if self._active is None else self._active.loaded

    @property
    def waiting(self) -> int:
        """Rows that it has not answered yet."""
        return 0 if self._active is None else self._active.waiting

    @property
    def is_outdated(self) -> bool:
        """Whether its URI has come to stand for another version than is asked."""
        active = self._active
        return active is not None and self._now(active).resolved.model_id != active.loaded.resolved.model_id

    async def switch(self, to: Chosen) -> None:
        """Make another model the shadow, or none.

        Raises
        ------
        FinPyfuncError
            It cannot be loaded; there is no shadow, then.
        """
        self._off()
        self.chosen, self.problem = to, "it is being loaded"
        if to.model_uri is None or to.share <= 0:
            self.problem = None
            return
        try:
            # in this process too, for whoever names it, and to be followed and checked as all others are
            loaded = await self._cache.get(to.model_uri, is_default=to.is_operators, pin="shadow")
            process = ShadowProcess(self._count, self._ended)
            await process.start(self._opening(loaded))
        except FinPyfuncError as e:
            self.problem = str(e)
            raise
        if self.chosen is not to:  # another has been chosen meanwhile, or the worker ends
            process.kill()
            return
        if (subject := (loaded.resolved.model_id, to.of)) != self._subject:
            # what another shadow found says nothing of this one
            self._subject, self.greatest = subject, 0.0
            self._tally.forget("shadow_")
            self._pairs.clear()
        default = self._settings.model_uri
        of = default if to.of is None else to.of
        self._active = _Active(to, loaded, frozenset({of, None} if of == default else {of}), process)
        self.problem = None
        self._watchers.add(self)
        logger.info("%s shadows %g of the requests for %s", to.model_uri, to.share, of or "the default model")

    def after_answer(self, scope: Scope, prediction: Prediction) -> None:
        """Send it a share of what was answered."""
        active = self._active
        if active is None or prediction.asked not in active.shadowed:
            return
        if random.random() >= active.chosen.share:  # noqa: S311 - no secret
            return
        n = len(prediction.decisions)
        if len(prediction.table) != n:  # answers to /invocations that are not one a row: nothing to compare
            self._tally.add("shadow_failed", n=n)
        elif self._is_stopped(active):
            self._tally.add("shadow_stopped", n=n)
        elif active.waiting + n > self._settings.shadow.max_rows:
            self._tally.add("shadow_dropped", n=n)
        else:
            active.tell(request_id(scope), prediction)

    def look(self) -> None:
        """See whether it has been stopped; called a few times a second."""
        if self._active is not None:
            self._is_stopped(self._active)

    def close(self) -> None:
        """Ask no more."""
        self._off()
        self.chosen = Chosen(None, 0.0, None, True)

    def _off(self) -> None:
        active, self._active = self._active, None
        if active is not None:
            logger.info("%s is no shadow any more", active.chosen.model_uri)
            active.process.kill()
            if active.waiting:
                self._tally.add("shadow_dropped", n=active.waiting)
        self._watchers.remove(self)
        self._cache.unpin("shadow")

    def _opening(self, loaded: LoadedModel) -> Opening:
        settings, shadow, resolved = self._settings, self._settings.shadow, loaded.resolved
        return Opening(
            path=str(loaded.folder.path),
            uri=resolved.uri,
            model_id=resolved.model_id,
            kind=resolved.kind,
            backend=settings.backend,
            is_data=not self._cache.allows_code(resolved),
            part_of_time=shadow.part_of_time,
            tolerance=shadow.tolerance,
            differences_file=shadow.differences_file,
            differences_bytes=shadow.differences_bytes,
            log_level=settings.log_level,
            is_json=settings.log_format == "json",
            models=settings.models,
            request_seconds=settings.limits.request_seconds,
        )

    def _now(self, active: _Active) -> LoadedModel:
        """The version that its URI stands for now."""
        uri, is_operators = active.chosen.model_uri or "", active.chosen.is_operators
        return self._cache.held(uri, is_default=is_operators) or active.loaded

    def _is_stopped(self, active: _Active) -> bool:
        if self._stops.stop_of(active.chosen.model_uri, active.loaded) is None:
            active.is_cleared = False
            return False
        active.clear()
        return True

    def _ended(self, why: str) -> None:
        """The process has ended by itself, or was killed: what it had not answered is lost, and it is started again."""
        active = self._active
        if active is not None:
            logger.error("the shadow %s has ended: %s", active.chosen.model_uri, why)
            self._off()
            self.problem = why

    def _count(self, report: Report) -> None:
        if self._active is None:
            return
        self._active.waiting -= report.taken
        counts = {"agreed": report.agreed, "failed": report.failed, "stopped": report.stopped}
        for name, n in counts.items():
            if n:
                self._tally.add(f"shadow_{name}", n=n)
        for pair, n in report.pairs.items():
            if len(self._pairs) < MAX_PAIRS:
                self._pairs.add(pair)
            self._tally.add("shadow_differed", *(pair if pair in self._pairs else ("other", "other")), n=n)
        if report.compared:
            self._tally.add("shadow_difference", n=report.difference)
            self._tally.add("shadow_compared", n=report.compared)
            self.greatest = max(self.greatest, report.greatest)
