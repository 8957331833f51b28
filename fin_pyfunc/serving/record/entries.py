"""From a prediction to a record of it: one a request, with all its rows."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.types import Scope

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.gapped import GAP, parts
from fin_pyfunc.serving.http import new_id
from fin_pyfunc.serving.joiner import JoinedDecisions
from fin_pyfunc.serving.prediction import Asked, Failure, Prediction
from fin_pyfunc.serving.record.facts import members
from fin_pyfunc.serving.record.features import Digests, as_rows, as_sent, identifiers_of
from fin_pyfunc.serving.record.notes import Parts
from fin_pyfunc.serving.timestamps import timestamp
from fin_pyfunc.serving.withheld import log_error

logger = logging.getLogger("fin_pyfunc.record")

#: The route that one row is sent to, and answered by.
ONE_ROW = "/predict"
_encode = msgspec.json.Encoder().encode


class _Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What is another in each record, in the order in which it is written."""

    kind: str
    request_id: str
    client_request_id: str | None
    received: str
    decided: str
    principal: str | None
    route: str
    status: int
    error: str | None = None
    answers: list[dict[str, Any]] | None
    joined: dict[str, Any] | None = None


class _Gap(msgspec.Struct, frozen=True, kw_only=True):
    """So many predictions were answered and not recorded."""

    kind: str = "gap"
    lost: int
    since: datetime
    until: datetime


class Entries:
    """Makes bodies of records.

    Parameters
    ----------
    digests : Digests or None
        Keeps digests of the features in place of them.
    """

    def __init__(self, digests: Digests | None) -> None:
        self._digests = digests

    def body(self, scope: Scope, asked: Asked, facts: bytes) -> bytes:
        """The body of one record.

        Parameters
        ----------
        scope : Scope
            Of the request.
        asked : Prediction or Failure
        facts : bytes
            What `facts.of_model` says.
        """
        late, now = time.perf_counter(), time.time()
        state, path = scope["state"], scope["path"]
        is_one = path == ONE_ROW
        theirs: str | None = state.get("client_request_id")
        ours = state["request_id"] if theirs is None else new_id()  # a caller may use an id twice
        principal = None if state.get("principal") is None else str(state["principal"])
        failure = asked if isinstance(asked, Failure) else None
        decisions = asked.decisions if isinstance(asked, Prediction) else None
        received, decided = timestamp(now - (late - asked.began)), timestamp(now - (late - asked.scored))
        entry = _Entry(
            kind="prediction",
            request_id=ours,
            client_request_id=theirs,
            received=received,
            decided=decided,
            principal=principal,
            route=path,
            status=200 if failure is None else 500,
            error=None if failure is None else _said(failure.error),
            answers=None if decisions is None else answers(decisions),
            joined=decisions.joined._asdict() if isinstance(decisions, JoinedDecisions) else None,
        )
        try:
            features = self._features(asked, is_one)
        except Exception as e:  # rows of an odd kind may not fail a request
            log_error(logger, "the features of request %s could not be recorded", ours, error=e, request_id=ours)
            features = (b'"features":null',)
        return b"".join((_encode(entry)[1:-1], b",", facts, b",", *features))

    def _features(self, asked: Asked, is_one: bool) -> tuple[bytes, ...]:
        """The features' members, or the digests' in their place, in pieces."""
        sent, spec = asked.sent, asked.loaded.model.features
        if self._digests is None:
            if sent is None:
                return b'"features":', as_rows(asked.table, spec, asked.identifiers)
            return (b'"features":[', as_sent(sent), b"]") if is_one else (b'"features":', as_sent(sent))
        digests = _encode(self._digests.of(asked.table, spec))
        names = [] if spec is None else spec.identifiers
        if not names:
            identifiers = b"null"
        elif sent is not None:
            identifiers = identifiers_of(sent, names, is_one)
        else:
            held = asked.identifiers or {}
            identifiers = _encode([dict(zip(held, row, strict=True)) for row in zip(*held.values(), strict=True)])
        return b'"features":null,"features_hmac_sha256":', digests, b',"identifiers":', identifiers


def around(principal: str | None, facts: bytes) -> Parts:
    """The text of records of answers to `POST /predict`, around what differs from one to the next.

    Parameters
    ----------
    principal : str or None
    facts : bytes
        What `facts.of_model` says.
    """
    entry = _Entry(
        kind="prediction",
        request_id=GAP,
        client_request_id=GAP,
        received=GAP,
        decided=GAP,
        principal=principal,
        route=ONE_ROW,
        status=200,
        answers=GAP,
    )
    first, second, third, fourth, fifth, _ = parts(entry)
    # without the braces, and with quotes around what fills a gap as text that JSON writes as it is
    return (
        *(first[1:] + b'"', b'"' + second, third + b'"', b'"' + fourth + b'"', b'"' + fifth + b"["),
        *(b'],%b,"features":[' % facts, b"]"),
    )


def gap(count: int, since: float) -> bytes:
    """The body of a record that says that so many predictions could not be recorded since a time, in seconds."""
    return members(_Gap(lost=count, since=datetime.fromtimestamp(since, UTC), until=datetime.now(UTC)))


def answers(decisions: Decisions) -> list[dict[str, Any]]:
    """What `/predict` answers with probabilities, a row."""
    if len(decisions) == 1:
        return [decisions.one()]
    n, chosen, spread = len(decisions), decisions.chosen, decisions.distributions
    rows = zip(
        decisions.predictions,
        [None] * n if chosen is None else chosen.tolist(),
        [None] * n if spread is None else spread,
        decisions.confidences,
        strict=True,
    )
    keys = ("prediction", "probability", "probabilities", "confidence")
    return [dict(zip(keys, row, strict=True)) for row in rows]


def _said(error: Exception) -> str:
    """An error of ours is a sentence without a caller's value; of any other only its type is told."""
    return str(error) if isinstance(error, FinPyfuncError) else type(error).__name__
