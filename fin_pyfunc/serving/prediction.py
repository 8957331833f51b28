"""One answered request, and whoever looks on: metrics, the record, a shadow. None of them can change an answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

import msgspec
from starlette.types import Scope

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.loader import LoadedModel


class Prediction:
    """What was asked, what answered, and when each step was done.

    Parameters
    ----------
    asked : str or None
        The model URI as the client sent it; None for the server's default model.
    loaded : LoadedModel
        What answered.
    table : ndarray of shape (n_rows, n_features) or DataFrame
        The rows as they were scored.
    decisions : Decisions
        The answers, one a row.
    began, decoded : float
        When work on the rows began and when they were read, in the seconds of ``time.perf_counter``, as all times here.
    sent : bytes-like or None
        The rows as the client sent them, JSON; None where they came as a table of another content type.
    entered, found : float, optional
        When the model was asked for and when it was there; default `began`: it was in memory, and nothing was waited
        for.
    started : float, optional
        When scoring began; default `decoded`.

    Attributes
    ----------
    scored, encoded : float
        When the rows were scored, and when the answer's body was written.
    scope : Scope
        Of the request, whose ``state`` holds its id and its principal; set by the endpoint. From then on the state
        holds the prediction, too.
    """

    __slots__ = (
        *("_scope", "asked", "began", "decisions", "decoded", "encoded", "entered", "found", "loaded", "scored"),
        *("sent", "started", "table"),
    )

    def __init__(
        self,
        asked: str | None,
        loaded: LoadedModel,
        table: Table,
        decisions: Decisions,
        began: float,
        decoded: float,
        sent: msgspec.Raw | bytes | None = None,
        *,
        entered: float | None = None,
        found: float | None = None,
        started: float | None = None,
    ) -> None:
        self.asked, self.loaded, self.table, self.decisions, self.sent = asked, loaded, table, decisions, sent
        self.entered = began if entered is None else entered
        self.found = began if found is None else found
        self.started = decoded if started is None else started
        self.began, self.decoded, self.scored = began, decoded, time.perf_counter()
        self.encoded = self.scored
        self._scope: Scope = {}

    @property
    def scope(self) -> Scope:
        """The request's."""
        return self._scope

    @scope.setter
    def scope(self, scope: Scope) -> None:
        self._scope = scope
        scope["state"]["prediction"] = self

    @property
    def waited(self) -> float:
        """Seconds that its rows waited for their turn, once the model was there."""
        return (self.began - self.found) + (self.started - self.decoded)


def model_of(scope: Scope, error: Exception | None = None) -> str:
    """The immutable id of the model that a request was about, as far as it is known; else an empty text."""
    prediction: Prediction | None = scope["state"].get("prediction")
    return getattr(error, "model_id", "") if prediction is None else prediction.loaded.resolved.model_id


class Watcher(Protocol):
    """Looks on at answered requests, on the event loop."""

    async def before_answer(self, prediction: Prediction) -> None:
        """Called before the answer is sent: it is held back for as long as this takes, and what this raises is
        answered in its place.
        """

    def after_answer(self, prediction: Prediction) -> None:
        """Called once the answer has been sent; must be quick, and must not raise."""


class Watchers:
    """All who look on; with none, a request pays for nothing.

    Parameters
    ----------
    watchers : sequence of Watcher
        In the order in which they are called.
    """

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self._watchers = tuple(watchers)

    def __bool__(self) -> bool:
        return bool(self._watchers)

    def add(self, watcher: Watcher) -> None:
        """Let one more look on, after the others, from the next request on."""
        self._watchers = (*self._watchers, watcher)

    def remove(self, watcher: Watcher) -> None:
        """Let one look on no more, if it does."""
        self._watchers = tuple(other for other in self._watchers if other is not watcher)

    async def before_answer(self, prediction: Prediction) -> None:
        """Let each look before the answer is sent."""
        for watcher in self._watchers:
            await watcher.before_answer(prediction)

    def after_answer(self, prediction: Prediction) -> None:
        """Let each look after the answer was sent."""
        for watcher in self._watchers:
            watcher.after_answer(prediction)
