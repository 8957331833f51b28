"""One answered request, and whoever looks on: metrics, the record, a shadow. None of them can change an answer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import msgspec
from starlette.types import Scope

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.loader import LoadedModel


class Asked:
    """What was asked of a model that was found, by whom, and when each step was done.

    Parameters
    ----------
    asked : str or None
        The model URI as the client sent it; None for the server's default model.
    loaded : LoadedModel
        What was asked.
    table : ndarray of shape (n_rows, n_features) or DataFrame
        The rows as they were scored.
    began, decoded : float
        When work on the body began, and when its rows were read, in the seconds of ``time.perf_counter``.
    sent : bytes-like, optional
        The rows as the client sent them, JSON; None where they came as a table of another content type.
    identifiers : mapping of str to sequence, optional
        Of rows that came as a table: name to one value a row.

    Attributes
    ----------
    scored : float
        When the rows were scored, or could not be.
    scope : Scope
        Of the request, whose ``state`` holds its id and its principal; set by the endpoint.
    """

    __slots__ = ("asked", "began", "decoded", "identifiers", "loaded", "scope", "scored", "sent", "table")

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
        self.scope: Scope = {}


class Prediction(Asked):
    """What was asked, and what answered.

    Parameters
    ----------
    decisions : Decisions
        The answers, one a row.
    asked, loaded, table, began, decoded, sent, identifiers
        As `Asked` takes them.
    """

    __slots__ = ("decisions",)

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
    ) -> None:
        super().__init__(asked, loaded, table, began, decoded, sent, identifiers)
        self.decisions = decisions


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


class Watcher(Protocol):
    """Looks on at answered requests, on the event loop."""

    async def before_answer(self, prediction: Prediction) -> None:
        """Called before the answer is sent: it is held back for as long as this takes, and what this raises is
        answered in its place.
        """

    def after_answer(self, prediction: Prediction) -> None:
        """Called once the answer has been sent; must be quick, and must not raise."""


@runtime_checkable
class FailureWatcher(Protocol):
    """A watcher that looks on at failed requests, too."""

    async def before_failure(self, failure: Failure) -> None:
        """Called before an error of the model's is answered; what this raises is answered in its place."""


class Watchers:
    """All who look on; with none, a request pays for nothing.

    Parameters
    ----------
    watchers : sequence of Watcher
        In the order in which they are called.
    """

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self._watchers = tuple(watchers)
        self._of_failures = tuple(watcher for watcher in watchers if isinstance(watcher, FailureWatcher))

    def __bool__(self) -> bool:
        return bool(self._watchers)

    async def before_answer(self, prediction: Prediction) -> None:
        """Let each look before the answer is sent."""
        for watcher in self._watchers:
            await watcher.before_answer(prediction)

    async def before_failure(self, failure: Failure) -> None:
        """Let those look who look at failures."""
        for watcher in self._of_failures:
            await watcher.before_failure(failure)

    def after_answer(self, prediction: Prediction) -> None:
        """Let each look after the answer was sent."""
        for watcher in self._watchers:
            watcher.after_answer(prediction)
