"""A second model that sees a share of the traffic after the answer has gone, and never an answer's time."""

from __future__ import annotations

import asyncio
import itertools
import logging
import random
import threading
import time
from collections import deque
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pandas as pd
from starlette.types import Scope

from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.http import request_id
from fin_pyfunc.serving.loader import LoadedModel, warm_up
from fin_pyfunc.serving.motion import comparison
from fin_pyfunc.serving.motion.differences import Difference, Differences
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.motion.tally import Tally
from fin_pyfunc.serving.prediction import Prediction, Watchers
from fin_pyfunc.serving.settings import Shadow as Settings

logger = logging.getLogger("fin_pyfunc.server")

#: Rows that are scored in one call: the first, and the most; and the seconds that a call is to take at most.
FIRST_ROWS, BATCH_ROWS, CALL_SECONDS = 16, 512, 0.02
#: Seconds between two looks at what waits, at least and at most: rows that came meanwhile share the cost of a call.
PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.1, 60.0
#: A worker that stops waits this long, in seconds, for a call that is under way.
CLOSE_SECONDS = 1.0
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


class _Seen(NamedTuple):
    """What the shadow needs of an answered request."""

    request_id: str
    loaded: LoadedModel
    table: Table
    sent: Any
    scores: Scores


class _Active:
    """A shadow that is on, and what waits for it; another that takes its place starts with nothing.

    Parameters
    ----------
    chosen : Chosen
    loaded : LoadedModel
    shadowed : frozenset of (str or None)
        What requests ask for whose rows it sees.
    """

    def __init__(self, chosen: Chosen, loaded: LoadedModel, shadowed: frozenset[str | None]) -> None:
        self.chosen, self.loaded, self.shadowed = chosen, loaded, shadowed
        self.queue: deque[_Seen] = deque()
        # rows; one is written by the event loop alone, the other by the thread alone
        self.added = self.taken = 0

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return self.added - self.taken

    def take(self, most: int) -> list[_Seen]:
        """What waits and was answered by one model, as far as it is no more than so many rows; one request at least."""
        taken = [self.queue.popleft()]
        n = len(taken[0].scores.index)
        while self.queue and self.queue[0].loaded is taken[0].loaded:
            n += len(self.queue[0].scores.index)
            if n > most:
                break
            taken.append(self.queue.popleft())
        self.taken += sum(len(seen.scores.index) for seen in taken)
        return taken


class Shadow:
    """The shadow of one worker; a `Watcher` while it is on.

    Rows wait in a bounded queue, and what does not fit is dropped and counted. One thread takes them out, many at a
    time, and rests long after each call, so that what it takes from the answers is bounded however slow the model is.

    Parameters
    ----------
    cache : ModelCache
        Keeps its model, and follows its alias.
    settings : Settings
    default_uri : str or None
    stops : Stops
        A model that was stopped is no shadow either.
    watchers : Watchers
    tally : Tally
    """

    def __init__(
        self,
        cache: ModelCache,
        settings: Settings,
        default_uri: str | None,
        stops: Stops,
        watchers: Watchers,
        tally: Tally,
    ) -> None:
        self._cache, self._settings, self._default_uri = cache, settings, default_uri
        self._stops, self._watchers, self._tally = stops, watchers, tally
        self._differences = Differences(
            None if settings.differences_file is None else Path(settings.differences_file), settings.differences_bytes
        )
        self.chosen = Chosen(None, 0.0, None, True)
        #: why it is not on although it was chosen
        self.problem: str | None = None
        self.greatest = 0.0
        self._active: _Active | None = None
        self._is_closed, self._hurry = False, threading.Event()
        self._thread: threading.Thread | None = None
        self._pairs: set[tuple[str, str]] = set()

    @property
    def loaded(self) -> LoadedModel | None:
        """The model that it asks now, or None."""
        return None if self._active is None else self._now(self._active)

    @property
    def waiting(self) -> int:
        """Rows in the queue."""
        return 0 if self._active is None else self._active.waiting

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
            loaded = await self._cache.get(to.model_uri, is_default=to.is_operators, pin="shadow")
            await asyncio.get_running_loop().run_in_executor(None, warm_up, loaded)
        except FinPyfuncError as e:
            self.problem = str(e)
            raise
        if self.chosen is not to:  # another has been chosen meanwhile
            return
        of = self._default_uri if to.of is None else to.of
        self._active = _Active(to, loaded, frozenset({of, None} if of == self._default_uri else {of}))
        self.problem = None
        self._hurry.set()  # what the one before took is not to be waited for
        self._watchers.add(self)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)
            self._thread.start()
        logger.info("%s shadows %g of the requests for %s", to.model_uri, to.share, of or "the default model")

    def after_answer(self, scope: Scope, prediction: Prediction) -> None:
        """Put a share of what was answered into the queue."""
        active = self._active
        if active is None or prediction.asked not in active.shadowed:
            return
        if random.random() >= active.chosen.share:  # noqa: S311 - no secret
            return
        n = len(prediction.decisions)
        if active.waiting + n > self._settings.max_rows:
            self._tally.add("shadow_dropped", n=n)
            return
        active.added += n
        scores, loaded = prediction.decisions.scores, prediction.loaded
        active.queue.append(_Seen(request_id(scope), loaded, prediction.table, prediction.sent, scores))

    def close(self) -> None:
        """Ask no more."""
        self._off()
        self._is_closed = True
        self._hurry.set()
        if self._thread is not None:
            self._thread.join(CLOSE_SECONDS)

    def _off(self) -> None:
        if self._active is not None:
            logger.info("%s is no shadow any more", self._active.chosen.model_uri)
        self._watchers.remove(self)
        self._active = None
        self._cache.unpin("shadow")

    def _now(self, active: _Active) -> LoadedModel:
        """The version that its URI stands for now."""
        uri, is_operators = active.chosen.model_uri or "", active.chosen.is_operators
        return self._cache.held(uri, is_default=is_operators) or active.loaded

    def _run(self) -> None:
        pause, most = PAUSE_SECONDS, FIRST_ROWS
        while True:
            if self._hurry.wait(pause):
                self._hurry.clear()
                most = FIRST_ROWS
            if self._is_closed:
                return
            began, n = time.perf_counter(), 0
            if self._active is not None and self._active.queue:
                n = self._work(self._active, most)
            took = time.perf_counter() - began
            pause = min(MAX_PAUSE_SECONDS, max(PAUSE_SECONDS, took / self._settings.part_of_time))
            if n:
                most = min(BATCH_ROWS, max(1, int(CALL_SECONDS * n / took)))

    def _work(self, active: _Active, most: int) -> int:
        """Score what waits, as much as one call takes; returns how many rows that were."""
        shadow, together = self._now(active), active.take(most)
        n = sum(len(seen.scores.index) for seen in together)
        if self._stops.stop_of(active.chosen.model_uri, shadow) is not None:
            self._tally.add("shadow_stopped", n=n)
            return n
        for part in self._scored(shadow, together):
            self._note(shadow, *part)
        return n

    def _scored(self, shadow: LoadedModel, together: list[_Seen]) -> list[tuple[list[_Seen], Scores]]:
        """The shadow's answers: from one call, or, where it fails, from one a request."""
        try:
            table = _stacked([self._table(shadow, seen) for seen in together])
            return [(together, shadow.model.decide_table(table).scores)]
        except Exception as e:
            if len(together) > 1:
                return list(itertools.chain.from_iterable(self._scored(shadow, [seen]) for seen in together))
            self._tally.add("shadow_failed", n=len(together[0].scores.index))
            logger.debug("the shadow cannot answer request %s: %s", together[0].request_id, type(e).__name__)
            return []

    def _table(self, shadow: LoadedModel, seen: _Seen) -> Table:
        """The rows as the shadow takes them."""
        ours, theirs = shadow.model.features, seen.loaded.model.features
        if ours is None or (theirs is not None and ours.features == theirs.features):
            return seen.table
        if seen.sent is not None:
            rows = msgspec.json.decode(seen.sent)
            return shadow.model.table(rows if isinstance(rows, list) else [rows])
        # a table that came as a table: what the model that answered looked at is what there is
        frame = pd.DataFrame(seen.table, columns=None if theirs is None else theirs.names)
        return ours.check(frame)

    def _note(self, shadow: LoadedModel, together: list[_Seen], scores: Scores) -> None:
        answered = _joined([seen.scores for seen in together])
        found = comparison.compare(answered, scores, self._settings.tolerance)
        self._tally.add("shadow_agreed", n=found.agreed)
        for pair, n in found.pairs.items():
            if len(self._pairs) < MAX_PAIRS:
                self._pairs.add(pair)
            self._tally.add("shadow_differed", *(pair if pair in self._pairs else ("other", "other")), n=n)
        if found.distances is not None:
            self._tally.add("shadow_difference", n=float(found.distances.sum()))
            self._tally.add("shadow_compared", n=len(found.distances))
            self.greatest = max(self.greatest, float(found.distances.max(initial=0.0)))
        self._differences.write(list(_records(shadow, together, answered, scores, found.differing)))


def _records(shadow: LoadedModel, together: list[_Seen], answered: Scores, scores: Scores, differing: Any) -> Any:
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    places = [(seen, row) for seen in together for row in range(len(seen.scores.index))]
    for i in np.flatnonzero(differing).tolist():
        seen, row = places[i]
        prediction, probabilities = comparison.one(answered, i)
        shadow_prediction, shadow_probabilities = comparison.one(scores, i)
        yield Difference(
            time=now,
            request_id=seen.request_id,
            row=row,
            model_id=seen.loaded.resolved.model_id,
            shadow_id=shadow.resolved.model_id,
            prediction=prediction,
            shadow_prediction=shadow_prediction,
            probabilities=probabilities,
            shadow_probabilities=shadow_probabilities,
        )


def _joined(scores: list[Scores]) -> Scores:
    """One model's answers to several requests as one."""
    parts = [each.probabilities for each in scores if each.probabilities is not None]
    return Scores(
        classes=scores[0].classes,
        index=np.concatenate([each.index for each in scores]),
        probabilities=np.concatenate(parts) if len(parts) == len(scores) else None,
    )


def _stacked(tables: list[Table]) -> Table:
    frames = [table for table in tables if isinstance(table, pd.DataFrame)]
    return pd.concat(frames, ignore_index=True) if frames else np.concatenate(tables)
