"""What moves in the background of one worker: aliases, the shadow, and what other workers and the operator say."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, NamedTuple

import msgspec

from fin_pyfunc.model.errors import FinPyfuncError, StoreUnavailableError
from fin_pyfunc.serving.default_model import DefaultModel
from fin_pyfunc.serving.motion import state
from fin_pyfunc.serving.motion.board import Board
from fin_pyfunc.serving.motion.follower import Follower
from fin_pyfunc.serving.motion.meaning import ids_of
from fin_pyfunc.serving.motion.shadow.shadow import Chosen, Shadow
from fin_pyfunc.serving.motion.state import ShadowChoice
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.settings import Settings
from fin_pyfunc.serving.store import Store

logger = logging.getLogger("fin_pyfunc.server")

#: Seconds between two looks at the shared memory and the state file.
LOOK_SECONDS = 0.25
#: Seconds until a shadow that could not be loaded is tried again.
RETRY_SECONDS = 5.0


class Asked(NamedTuple):
    """Where models and their names are looked up."""

    resolver: Resolver
    store: Store


class Motion:
    """Keeps one worker in step.

    Parameters
    ----------
    settings : Settings
    board : Board
    asked : Asked
    default : DefaultModel
        Comes first: nothing moves before it is loaded, or has to wait.
    follower : Follower
    stops : Stops
    shadow : Shadow
    """

    def __init__(
        self,
        settings: Settings,
        board: Board,
        asked: Asked,
        default: DefaultModel,
        follower: Follower,
        stops: Stops,
        shadow: Shadow,
    ) -> None:
        self._settings, self._board, self._asked, self._default = settings, board, asked, default
        self.follower, self.stops, self.shadow = follower, stops, shadow
        self._over = msgspec.to_builtins(settings.shadow)
        self._switching = asyncio.Lock()
        self._retry_at = 0.0
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Move until cancelled."""
        await self._default.settled.wait()
        following = [self.follower.run()] if self._settings.models.refresh_seconds > 0 else []
        await asyncio.gather(self._look(), *following)

    def close(self) -> None:
        """Stop moving."""
        for task in self._background:
            task.cancel()
        self.follower.close()
        self.shadow.close()

    async def choose_shadow(self, model_uri: str | None, share: float, of: str | None) -> None:
        """Have all workers take another shadow, or none; returns once this one has.

        Raises
        ------
        FinPyfuncError
            This worker could not load it.
        """
        choice = ShadowChoice(model_uri=model_uri, share=share, of=of, over=self._over)
        state.change(self._board, lambda now: msgspec.structs.replace(now, shadow=choice))
        await self._apply_shadow()

    async def learn_ids(self, name: str | None = None) -> None:
        """Ask MLflow which models are meant by what is stopped, by one name or all."""
        names = [stop.name for stop in self.stops.now() if name in (None, stop.name)]
        found = await asyncio.to_thread(lambda: {name: ids_of(name, *self._asked) for name in names})
        self.stops.learn(found)

    async def _look(self) -> None:
        seen, learnt_at = -1, 0.0
        while True:
            try:
                if self.stops.has_file:
                    await asyncio.to_thread(self.stops.look)
                generation, now = self._board.generation[0], time.monotonic()
                has_changed, seen = generation != seen, generation
                if self.stops.now() and (has_changed or now > learnt_at + self._settings.models.refresh_seconds):
                    learnt_at = now
                    self._start(self._learn_and_keep())
                self.shadow.look()
                if has_changed or self.shadow.is_outdated or (self.shadow.problem and now > self._retry_at):
                    self._start(self._take_shadow())
            except Exception:  # a defect must not end the looking
                logger.exception("looking for what was stopped failed in a way that was not foreseen")
            await asyncio.sleep(LOOK_SECONDS)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def _learn_and_keep(self) -> None:
        before = self.stops.now()
        await self.learn_ids()
        if self.stops.now() != before:
            await asyncio.to_thread(self.stops.keep)

    async def _take_shadow(self) -> None:
        try:
            await self._apply_shadow()
        except StoreUnavailableError as e:
            logger.warning("the shadow is not loaded yet: %s", e)
        except FinPyfuncError as e:
            logger.error("there is no shadow: %s", e)
        except Exception:
            logger.exception("there is no shadow: loading it failed in a way that was not foreseen")

    async def _apply_shadow(self) -> None:
        """Take the shadow that was chosen last, or else that of the settings."""
        async with self._switching:
            chosen = self._chosen()
            if chosen != self.shadow.chosen or self.shadow.problem or self.shadow.is_outdated:
                self._retry_at = time.monotonic() + RETRY_SECONDS
                await self.shadow.switch(chosen)

    def _chosen(self) -> Chosen:
        choice, settings = state.read(self._board).shadow, self._settings.shadow
        if choice is None or choice.over != self._over:  # the settings have been changed since
            return Chosen(settings.model_uri, settings.share, settings.of, is_operators=True)
        return Chosen(choice.model_uri, choice.share, choice.of, is_operators=False)
