"""The kill switch: what is stopped is answered 503 with the operator's reason, by every worker from that moment on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence

import msgspec

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.cache import ModelCache
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.motion import state
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.motion.names import normal, registered_name
from fin_pyfunc.serving.motion.state import StateFile, Stop, made, with_stop, without_stop
from fin_pyfunc.serving.motion.tally import Tally

logger = logging.getLogger("fin_pyfunc.server")


class Stops:
    """What is stopped now.

    Asking costs a look at one number in shared memory as long as nothing is stopped, so it is asked right before each
    answer: none leaves a worker once the stop has been shared, whatever the request waited for meanwhile.

    Parameters
    ----------
    board : Board
        Shared by the workers.
    file : StateFile or None
        Where stops outlive the server; None forgets them with it.
    cache : ModelCache
        Knows what URIs lead to.
    default_uri : str or None
    tally : Tally
    """

    def __init__(
        self, board: Board, file: StateFile | None, cache: ModelCache, default_uri: str | None, tally: Tally
    ) -> None:
        self._board, self._file, self._cache = board, file, cache
        self._default_uri, self._tally = default_uri, tally
        self._seen, self._problem = 0, ""
        self._by_word: dict[str, Stop] = {}
        self._by_id: dict[str, Stop] = {}

    @property
    def is_kept(self) -> bool:
        """Whether what is stopped now would be after a restart, too."""
        return self._file is not None and not self._problem

    @property
    def has_file(self) -> bool:
        """Whether there is a file to look at."""
        return self._file is not None

    def load(self) -> None:
        """Share what the file says, before workers start.

        Raises
        ------
        StateFileError
            It cannot be read: a server that does not know what was stopped must not answer.
        """
        if self._file is not None:
            self._merge(self._file.read() or ())
            for stop in self.now():
                logger.warning("%s is stopped since %s: %s", stop.name, stop.since, stop.reason)

    def now(self) -> tuple[Stop, ...]:
        """Every stop, the oldest first."""
        return state.read(self._board).stops

    def check(self, asked: str | None, loaded: LoadedModel | None) -> None:
        """Refuse what is stopped.

        Parameters
        ----------
        asked : str or None
            The URI as the client named it; None for the default model.
        loaded : LoadedModel or None
            What it leads to, where that is known.

        Raises
        ------
        RequestError
            503, with the operator's reason.
        """
        if self._board.generation[0] != self._seen:
            self._read()
        if self._by_word and (stop := self._stop_of(asked, loaded)) is not None:
            self._tally.add("stopped")
            raise RequestError(503, f"This model has been stopped by its operator: {stop.reason}")

    def stop_of(self, asked: str | None, loaded: LoadedModel | None) -> Stop | None:
        """What stops this model when it is asked for like this, or None."""
        if self._board.generation[0] != self._seen:
            self._read()
        return self._stop_of(asked, loaded)

    def add(self, name: str, reason: str, by: str | None = None, ids: Iterable[str] = ()) -> Stop:
        """Stop a model in all workers; from the return on, none answers for it. `keep` puts it into the file.

        Parameters
        ----------
        name : str
            A registered model's name, a URI, or a model id.
        reason : str
            What callers are told.
        by : str, optional
            Who says so.
        ids : iterable of str, optional
            Model ids that the name leads to.

        Raises
        ------
        BoardFullError
        """
        stop = made(name, reason, by, ids)
        self._change(lambda stops: with_stop(stops, stop))
        logger.warning("stopped %s (by %s): %s", stop.name, by or "an operator", reason)
        return stop

    def remove(self, name: str, by: str | None = None) -> None:
        """Let a model answer again, in all workers.

        Raises
        ------
        NotStoppedError
        """
        name = normal(name)
        self._change(lambda stops: without_stop(stops, name))
        logger.warning("started %s again (by %s)", name, by or "an operator")

    def learn(self, found: dict[str, set[str]]) -> None:
        """Add model ids to those that stops are known to lead to, by the stops' names."""

        def more(stop: Stop) -> Stop:
            ids = {*stop.ids, *found.get(stop.name, ())}
            return stop if ids == set(stop.ids) else msgspec.structs.replace(stop, ids=tuple(sorted(ids)))

        if any(more(stop) is not stop for stop in self.now()):
            self._change(lambda stops: [more(stop) for stop in stops])

    def look(self) -> None:
        """Share what somebody else has changed in the file."""
        if self._file is not None and (self._problem or self._file.has_changed()):
            self.keep()

    def keep(self) -> None:
        """Bring the file and the workers' memory together: what either has changed since they last agreed, holds.

        The disk may be slow, or full: what was stopped in memory stays so, and the log says what is wrong, once.
        """
        if self._file is None:
            return
        try:
            with self._file.locked():
                theirs, before = self._file.read(), self.now()
                if theirs is not None:  # whoever removes the file starts nothing by that
                    self._merge(theirs)
                now = self.now()
                if now != (theirs or ()):
                    self._file.write(now)
                    state.change(self._board, lambda shared: msgspec.structs.replace(shared, filed=now))
        except FinPyfuncError as e:
            if str(e) != self._problem:
                self._problem = str(e)
                logger.error("%s Until then the workers hold to what is stopped, and a restart may not.", e)
            return
        self._problem = ""
        for stop in now:
            if stop.name not in {s.name for s in before}:
                logger.warning("stopped %s (by the state file): %s", stop.name, stop.reason)
        for stop in before:
            if stop.name not in {s.name for s in now}:
                logger.warning("started %s again (by the state file)", stop.name)

    def _merge(self, theirs: Sequence[Stop]) -> None:
        theirs = [msgspec.structs.replace(stop, name=normal(stop.name)) for stop in theirs]

        def merged(shared: state.State) -> state.State:
            base = {stop.name: stop for stop in shared.filed}
            ours = {stop.name: stop for stop in shared.stops}
            kept = {stop.name: stop for stop in theirs if stop.name in ours or stop.name not in base}
            kept |= {name: stop for name, stop in ours.items() if base.get(name) != stop}
            return msgspec.structs.replace(shared, stops=tuple(kept.values()), filed=tuple(theirs))

        state.change(self._board, merged)

    def _change(self, to: Callable[[Sequence[Stop]], Sequence[Stop]]) -> None:
        state.change(self._board, lambda now: msgspec.structs.replace(now, stops=tuple(to(now.stops))))

    def _stop_of(self, asked: str | None, loaded: LoadedModel | None) -> Stop | None:
        uri = self._default_uri if asked is None else asked
        if loaded is not None and (stop := self._by_id.get(loaded.resolved.model_id)) is not None:
            return stop
        return None if uri is None else self._by_word.get(uri) or self._by_word.get(registered_name(uri) or "")

    def _read(self) -> None:
        generation, now = self._board.generation[0], self.now()
        by_word = {stop.name: stop for stop in now}
        by_id = {model_id: stop for stop in now for model_id in (*stop.ids, stop.name)}
        for uri, model_id in self._cache.led_to() if now else ():  # at once, before MLflow is asked
            stop = by_word.get(uri) or by_word.get(registered_name(uri) or "")
            if stop is not None:
                by_id.setdefault(model_id, stop)
        self._by_word, self._by_id, self._seen = by_word, by_id, generation
