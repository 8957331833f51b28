"""One answered request, and whoever looks on: metrics, the record, a shadow. None of them can change an answer."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
from starlette.types import Scope

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.loaded_model import LoadedModel


class Asked:
    """What was asked of a model that was found, by whom, and when.

    Parameters
    ----------
    asked : str or None
        The model URI as the client sent it; None for the server's default model.
    loaded : LoadedModel
        What was asked.
    table : ndarray of shape (n_rows, n_features) or DataFrame
        The rows as they were scored.
    began, decoded : float
        When work on the rows began and when they were read, in the seconds of ``time.perf_counter``, as all times here.
    sent : bytes-like or None
        The rows as the client sent them, JSON; None where they came as a table of another content type.
    identifiers : mapping of str to sequence, optional
        Of rows that came as a table: name to one value a row.

    Attributes
    ----------
    scored : float
        When the rows were scored, or could not be.
    """

    __slots__ = ("asked", "began", "decoded", "identifiers", "loaded", "scored", "sent", "table")

    def __init__(
        self,
        asked: str | None,
        loaded: LoadedModel,
        table: Table,
        began: float,
        decoded: float,
        sent: msgspec.Raw | bytes | None = None,
        identifiers: Mapping[str, Sequence[Any]] | None = None,
    ) -> None:
        self.asked, self.loaded, self.table, self.sent, self.identifiers = asked, loaded, table, sent, identifiers
        self.began, self.decoded, self.scored = began, decoded, time.perf_counter()


class Prediction(Asked):
    """What was asked, what answered, and when each step was done; in the ``state`` of its request's scope.

    It holds no scope itself: together they would stay in memory until Python looks for such rings.

    Parameters
    ----------
    decisions : Decisions
        The answers, one a row.
    asked, loaded, table, began, decoded, sent, identifiers
        As `Asked` takes them.
    entered, found : float, optional
        When the model was asked for and when it was there; default `began`: it was in memory, and nothing was waited
        for.
    started : float, optional
        When scoring began; default `decoded`.

    Attributes
    ----------
    encoded : float
        When the answer's body was written.
    """

    __slots__ = ("decisions", "encoded", "entered", "found", "started")

    def __init__(
        self,
        asked: str | None,
        loaded: LoadedModel,
        table: Table,
        decisions: Decisions,
        began: float,
        decoded: float,
        sent: msgspec.Raw | bytes | None = None,
        identifiers: Mapping[str, Sequence[Any]] | None = None,
        *,
        entered: float | None = None,
        found: float | None = None,
        started: float | None = None,
    ) -> None:
        super().__init__(asked, loaded, table, began, decoded, sent, identifiers)
        self.decisions = decisions
        self.entered = began if entered is None else entered
        self.found = began if found is None else found
        self.started = decoded if started is None else started
        self.encoded = self.scored


class Failure(Asked):
    """What was asked, and what the model raised.

    Parameters
    ----------
    error : Exception
    asked, loaded, table, began, decoded, sent, identifiers
        As `Asked` takes them.
    """

    __slots__ = ("error",)

    def __init__(self, error: Exception, *asked: Any) -> None:
        super().__init__(*asked)
        self.error = error


class UnansweredError(Exception):
    """A model was asked, and raised; never leaves the endpoints, which raise the failure's own error."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(str(failure.error))
        self.failure = failure
        if isinstance(failure.error, FinPyfuncError):
            failure.error.model_id = failure.loaded.resolved.model_id  # for `model_of`


def model_of(state: Mapping[str, Any], error: Exception | None = None) -> str:
    """The immutable id of the model that a request was about, as far as its scope's state tells; else an empty text."""
    prediction: Prediction | None = state.get("prediction")
    return getattr(error, "model_id", "") if prediction is None else prediction.loaded.resolved.model_id


@runtime_checkable
class Watcher(Protocol):
    """Looks on at answered requests, on the event loop."""

    def after_answer(self, scope: Scope, prediction: Prediction) -> None:
        """Called once the answer has been sent; must be quick, and must not raise."""


@runtime_checkable
class EarlyWatcher(Protocol):
    """Looks on before a request is answered."""

    def before_answer(self, scope: Scope, prediction: Prediction) -> Awaitable[None] | None:
        """Called before the answer is sent, which is held back for as long as what this returns takes, if it returns
        anything; what that raises is answered in its place.
        """

    async def before_failure(self, scope: Scope, failure: Failure) -> None:
        """Called before an error of the model's is answered; what this raises is answered in its place."""


class Watchers:
    """All who look on; with none, a request pays for nothing.

    Attributes
    ----------
    early : tuple of EarlyWatcher
        Those that look on before an answer.
    before_answer : callable
        (scope, prediction) -> what is to be waited for before the answer is sent, or None: each of them has looked.
    after_answer : callable
        (scope, prediction) -> None: the others have looked after the answer was sent.
    """

    def __init__(self) -> None:
        self._set(())

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def add(self, watcher: Watcher | EarlyWatcher) -> None:
        """Let one more look on, after the others, from the next request on."""
        self._set((*self._watchers, watcher))

    def remove(self, watcher: Watcher | EarlyWatcher) -> None:
        """Let one look on no more, if it does."""
        self._set(tuple(other for other in self._watchers if other is not watcher))

    async def before_failure(self, scope: Scope, failure: Failure) -> None:
        """Let those look who look at failures."""
        for watcher in self.early:
            await watcher.before_failure(scope, failure)

    def _set(self, watchers: tuple[Watcher | EarlyWatcher, ...]) -> None:
        self._watchers = watchers
        self.early = tuple(one for one in watchers if isinstance(one, EarlyWatcher))
        self._late = tuple(one for one in watchers if isinstance(one, Watcher))
        # of a sole one its own: a call more on the way of each request is not free
        before = self.early[0].before_answer if len(self.early) == 1 else self._before_answer
        after = self._late[0].after_answer if len(self._late) == 1 else self._after_answer
        self.before_answer: Callable[[Scope, Prediction], Awaitable[None] | None] = before
        self.after_answer: Callable[[Scope, Prediction], None] = after

    def _before_answer(self, scope: Scope, prediction: Prediction) -> Awaitable[None] | None:
        waited = [w for one in self.early if (w := one.before_answer(scope, prediction)) is not None]
        return _in_turn(waited) if waited else None

    def _after_answer(self, scope: Scope, prediction: Prediction) -> None:
        for watcher in self._late:
            watcher.after_answer(scope, prediction)


async def _in_turn(waited: Sequence[Awaitable[None]]) -> None:
    for each in waited:
        await each
