"""`POST /predict` and `POST /predict/batch`, as bare ASGI: bytes in, one decode, scores, one encode, bytes out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.types import Receive, Scope, Send

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving import content_types, tables
from fin_pyfunc.serving.callers.principal import require_model
from fin_pyfunc.serving.decode import BatchEnvelope, open_batch_envelope, open_envelope, read_row_identifiers, read_rows
from fin_pyfunc.serving.http import Headers, encode, read_body, require_method, send_body
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.motion.stops import Stops
from fin_pyfunc.serving.prediction import Failure, Prediction, UnansweredError, Watchers
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.schemas import BatchResponse
from fin_pyfunc.serving.settings import Limits

#: URIs whose header lines one model remembers; a model has few names, and made-up ones lead to none.
MAX_REMEMBERED = 100
#: A larger batch is opened on a thread: reading through it would hold up every other request.
LARGE_BYTES = 262_144


_IN_BODY = "send 'model_uri' as a key of the JSON body"


class Predict:
    """One row: `POST /predict`."""

    def __init__(self, predictor: Predictor, limits: Limits, watchers: Watchers) -> None:
        self._predictor, self._limits, self._watchers = predictor, limits, watchers
        self._most = min((limits.max_body_bytes, "max_body_bytes"), (limits.max_row_bytes, "max_row_bytes"))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        require_method(scope, "POST")
        content_types.require_json(scope)
        content_types.refuse_model_in_query(scope, _IN_BODY)
        envelope = open_envelope(await read_body(scope, receive, self._most[0], self._predictor.held, self._most[1]))
        require_model(scope, envelope.model_uri, self._predictor.default_uri)
        try:
            prediction = await self._predictor.predict_row(envelope)
        except UnansweredError as e:
            error = await unanswered(scope, e.failure, self._watchers)
            raise error from error.__cause__
        body = encode(prediction.decisions.one(envelope.return_proba))
        prediction.encoded = time.perf_counter()
        await answer(scope, send, prediction, body, content_types.JSON, self._predictor.stops, self._watchers)


class PredictBatch:
    """Many rows, all or none: `POST /predict/batch`."""

    def __init__(self, predictor: Predictor, limits: Limits, watchers: Watchers) -> None:
        self._predictor, self._limits, self._watchers = predictor, limits, watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; JSON or a table, whichever is sent and whichever is asked for."""
        require_method(scope, "POST")
        sent = content_types.media_type(scope)
        if sent not in content_types.BATCH_TYPES:
            raise content_types.unsupported()
        wanted = content_types.accepted(scope)
        body = await read_body(scope, receive, self._limits.max_body_bytes, self._predictor.held)
        if sent == content_types.JSON:
            content_types.refuse_model_in_query(scope, _IN_BODY)
            if len(body) > LARGE_BYTES:
                envelope = await self._predictor.off_loop(open_batch_envelope, body)
            else:
                envelope = open_batch_envelope(body)
            uri, return_proba, rows = envelope.model_uri, envelope.return_proba, envelope.features_list
            read = partial(self._read_rows, envelope)
        else:
            uri, return_proba = content_types.query(scope)
            rows, read = None, partial(self._read_table, sent, body)
        is_table = sent != content_types.JSON
        with_identifiers = is_table and (bool(self._watchers) or wanted != content_types.JSON)
        require_model(scope, uri, self._predictor.default_uri)

        entered = time.perf_counter()

        def work(loaded: LoadedModel, found: float) -> tuple[bytes, Prediction]:
            began = time.perf_counter()
            table = read(loaded)
            decoded = time.perf_counter()
            held = (
                tables.read_identifiers(sent, body, loaded.model.features, self._limits) if with_identifiers else None
            )
            try:
                decisions = loaded.model.decide_table(table)
            except FeatureError:
                raise
            except Exception as e:
                raise UnansweredError(Failure(e, uri, loaded, table, began, decoded, rows, held)) from e
            prediction = Prediction(
                uri, loaded, table, decisions, began, decoded, rows, held, entered=entered, found=found
            )
            kept = held
            if rows is not None and wanted != content_types.JSON:
                kept = read_row_identifiers(rows, loaded.model)
            encoded = _encoded(wanted, decisions, return_proba, kept)
            prediction.encoded = time.perf_counter()
            return encoded, prediction

        try:
            encoded, prediction = await self._predictor.on_thread(uri, work)
        except UnansweredError as e:
            error = await unanswered(scope, e.failure, self._watchers)
            raise error from error.__cause__
        await answer(scope, send, prediction, encoded, wanted, self._predictor.stops, self._watchers)

    def _read_rows(self, envelope: BatchEnvelope, loaded: LoadedModel) -> Table:
        return read_rows(envelope, loaded.model, self._limits.max_batch_rows, self._limits.max_row_keys)

    def _read_table(self, content_type: str, body: bytes, loaded: LoadedModel) -> Table:
        frame = tables.read_table(content_type, body, loaded.model.features, self._limits)
        return loaded.model.check(frame)


async def answer(
    scope: Scope, send: Send, prediction: Prediction, body: bytes, content_type: str, stops: Stops, watchers: Watchers
) -> None:
    """Send the answer to a prediction, unless its model has been stopped, and notify the observers."""
    stops.check(prediction.asked, prediction.loaded)  # it may have been stopped while this waited
    headers = lineage(prediction.asked, prediction.loaded, prediction.decisions.backend)
    scope["state"]["prediction"] = prediction
    if watchers.early and (waited := watchers.before_answer(scope, prediction)) is not None:
        await waited
    await send_body(send, body, content_type, headers)
    if watchers:
        watchers.after_answer(scope, prediction)


async def unanswered(scope: Scope, failure: Failure, watchers: Watchers) -> Exception:
    """What the model raised, once those who look on have seen it."""
    await watchers.before_failure(scope, failure)
    return failure.error


def _encoded(
    wanted: str, decisions: Decisions, return_proba: bool, identifiers: Mapping[str, Sequence[Any]] | None
) -> bytes:
    if wanted != content_types.JSON:
        return tables.write_table(wanted, decisions, return_proba, identifiers)
    return encode(
        BatchResponse(
            predictions=decisions.predictions,
            probabilities=decisions.distributions if return_proba else None,
            count=len(decisions),
            confidences=decisions.confidences if return_proba else msgspec.UNSET,
        )
    )


def lineage(asked: str | None, loaded: LoadedModel, backend: str) -> Headers:
    """Where an answer came from, as header lines; the same list for the same question, so not to be changed."""
    known = loaded.lineage.get((asked, backend))
    if known is None:
        named = {**identity(asked, loaded), "X-Model-Backend": backend}
        known = [(name.lower().encode(), value.encode("latin-1")) for name, value in named.items()]
        if len(loaded.lineage) < MAX_REMEMBERED:
            loaded.lineage[asked, backend] = known
    return known


def identity(asked: str | None, loaded: LoadedModel) -> dict[str, str]:
    """What was asked and what it turned out to be.

    A URI is percent-encoded where a header could not hold it. The operator's own local path stays on the server.
    """
    resolved = loaded.resolved
    uri = resolved.public(loaded.asked_by(None)) if asked is None else asked
    return {"X-Model-URI": quote(uri, safe="/:@=+,!$&'()*~"), "X-Model-ID": resolved.model_id}
