"""`POST /predict` and `POST /predict/batch`, as bare ASGI: bytes in, one decode, scores, one encode, bytes out."""

from __future__ import annotations

from functools import partial
from urllib.parse import quote

import msgspec
from starlette.types import Receive, Scope, Send

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.serving import content_types, tables
from fin_pyfunc.serving.decode import BatchEnvelope, open_batch_envelope, open_envelope, read_rows
from fin_pyfunc.serving.http import Headers, encode, read_body, require_json, require_method, send_body
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.schemas import BatchResponse
from fin_pyfunc.serving.settings import Limits

#: URIs whose header lines one model remembers; a model has few names, and made-up ones lead to none.
MAX_REMEMBERED = 100


class Predict:
    """One row: `POST /predict`."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        require_method(scope, "POST")
        require_json(scope)
        envelope = open_envelope(await read_body(scope, receive, self._limits.max_body_bytes))
        loaded, decisions = await self._predictor.predict_row(envelope)
        body = encode(decisions.one(envelope.return_proba))
        await send_body(send, body, content_types.JSON, lineage(envelope.model_uri, loaded, decisions.backend))


class PredictBatch:
    """Many rows, all or none: `POST /predict/batch`."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; JSON or a table, whichever is sent and whichever is asked for."""
        require_method(scope, "POST")
        sent = content_types.media_type(scope)
        if sent not in content_types.BATCH_TYPES:
            raise content_types.unsupported()
        wanted = content_types.accepted(scope)
        body = await read_body(scope, receive, self._limits.max_body_bytes)
        if sent == content_types.JSON:
            envelope = open_batch_envelope(body)
            uri, return_proba = envelope.model_uri, envelope.return_proba
            decide = partial(self._decide_rows, envelope)
        else:
            uri, return_proba = content_types.query(scope)
            decide = partial(self._decide_table, sent, body)

        def work(loaded: LoadedModel) -> tuple[bytes, Headers]:
            decisions = decide(loaded)
            return _encoded(wanted, decisions, return_proba), lineage(uri, loaded, decisions.backend)

        answer, headers = await self._predictor.on_thread(uri, work)
        await send_body(send, answer, wanted, headers)

    def _decide_rows(self, envelope: BatchEnvelope, loaded: LoadedModel) -> Decisions:
        return loaded.model.decide_table(read_rows(envelope, loaded.model, self._limits.max_batch_rows))

    def _decide_table(self, content_type: str, body: bytes, loaded: LoadedModel) -> Decisions:
        frame = tables.read_table(content_type, body, loaded.model.features, self._limits)
        return loaded.model.decide_frame(frame)


def _encoded(wanted: str, decisions: Decisions, return_proba: bool) -> bytes:
    if wanted != content_types.JSON:
        return tables.write_table(wanted, decisions, return_proba)
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
    if asked is None:
        asked = resolved.uri if resolved.uri.startswith(("models:/", "runs:/")) else resolved.model_id
    return {"X-Model-URI": quote(asked, safe="/:@=+,!$&'()*~"), "X-Model-ID": resolved.model_id}
