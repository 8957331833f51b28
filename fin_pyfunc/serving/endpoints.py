"""`POST /predict` and `POST /predict/batch`, as bare ASGI: bytes in, one decode, scores, one encode, bytes out."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from starlette.types import Receive, Scope, Send

from fin_pyfunc.model.decision import Decisions
from fin_pyfunc.serving.decode import batch_decoder, decode, predict_decoder
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import encode, read_body, require_json, require_method, send_json
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.schemas import BatchResponse
from fin_pyfunc.serving.settings import Limits


class Predict:
    """One row: `POST /predict`."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        require_method(scope, "POST")
        require_json(scope)
        request = decode(await read_body(scope, receive, self._limits.max_body_bytes), predict_decoder)
        loaded, decisions = await self._predictor.predict(request.model_uri, [request.features])
        body = encode(decisions.one(request.return_proba))
        await send_json(send, 200, body, lineage(request.model_uri, loaded, decisions))


class PredictBatch:
    """Many rows, all or none: `POST /predict/batch`."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        require_method(scope, "POST")
        require_json(scope)
        request = decode(await read_body(scope, receive, self._limits.max_body_bytes), batch_decoder)
        rows = request.features_list
        if len(rows) > self._limits.max_batch_rows:
            raise RequestError(
                413,
                f"The batch has more rows than this server takes ({self._limits.max_batch_rows}): send it in parts, "
                "or raise deployment.api.limits.max_batch_rows.",
            )
        loaded, decisions = await self._predictor.predict(request.model_uri, rows)
        body = encode(
            BatchResponse(
                predictions=decisions.predictions,
                probabilities=decisions.distributions if request.return_proba else None,
                count=len(decisions),
                confidences=decisions.confidences if request.return_proba else msgspec.UNSET,
            )
        )
        await send_json(send, 200, body, lineage(request.model_uri, loaded, decisions))


def lineage(asked: str | None, loaded: LoadedModel, decisions: Decisions) -> dict[str, str]:
    """Where an answer came from, as headers."""
    return {**identity(asked, loaded), "X-Model-Backend": decisions.backend}


def identity(asked: str | None, loaded: LoadedModel) -> dict[str, str]:
    """What was asked and what it turned out to be.

    A URI is percent-encoded where a header could not hold it. The operator's own local path stays on the server.
    """
    resolved = loaded.resolved
    if asked is None:
        asked = resolved.uri if resolved.uri.startswith(("models:/", "runs:/")) else resolved.model_id
    return {"X-Model-URI": quote(asked, safe="/:@=+,!$&'()*~"), "X-Model-ID": resolved.model_id}
