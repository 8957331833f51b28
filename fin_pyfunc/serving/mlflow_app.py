"""`POST /invocations`: MLflow's own protocol for the default model, within this server's bounds and with its errors.

MLflow's errors carry stack traces and the caller's rows, a model's own exception is answered 400, NaN makes invalid
JSON, and nothing bounds what is parsed. So bodies are checked first, and MLflow's code runs on a scoring thread.
"""

from __future__ import annotations

import json
import time
from functools import partial

from starlette.types import Receive, Scope, Send

from fin_pyfunc.serving.callers.principal import require_model
from fin_pyfunc.serving.content_types import CSV, JSON, PARQUET, media_type, parameters, refuse_model_in_query
from fin_pyfunc.serving.decode import most_keys
from fin_pyfunc.serving.endpoints import LARGE_BYTES, answer, unanswered
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import read_body, require_method
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.memory import release_arrow
from fin_pyfunc.serving.mlflow_bodies import check_csv, csv_as_json, misread, plain_parquet, read_json
from fin_pyfunc.serving.mlflow_scoring import Times, score, score_hosted
from fin_pyfunc.serving.prediction import Prediction, UnansweredError, Watchers
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.settings import Limits

CONTENT_TYPES = (JSON, CSV, PARQUET)


class Invocations:
    """`POST /invocations`."""

    def __init__(self, predictor: Predictor, limits: Limits, watchers: Watchers) -> None:
        self._predictor, self._limits, self._watchers = predictor, limits, watchers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        require_method(scope, "POST")
        sent = media_type(scope)
        if sent not in CONTENT_TYPES or any(name != "charset" for name, _ in parameters(scope)):
            raise RequestError(
                415,
                f"Send the rows with one of the content types {', '.join(CONTENT_TYPES)}, and no parameters but "
                "charset=utf-8.",
            )
        refuse_model_in_query(scope, "/invocations is answered by the default model; use /predict for another")
        require_model(scope, None, self._predictor.default_uri)
        body = await read_body(scope, receive, self._limits.max_body_bytes, self._predictor.held)
        work = partial(self._score, sent, body, time.perf_counter())
        try:
            encoded, prediction = await self._predictor.on_thread(None, work)
        except UnansweredError as e:
            error = await unanswered(scope, e.failure, self._watchers)
            raise error from error.__cause__
        await answer(scope, send, prediction, encoded, JSON, self._predictor.stops, self._watchers)

    def _score(
        self, sent: str, body: bytes, entered: float, loaded: LoadedModel, found: float
    ) -> tuple[bytes, Prediction]:
        """Check a body and answer it, on a scoring thread."""
        if not loaded.has_pyfunc:
            raise RequestError(
                404, "The default model is a bare file, which MLflow's routes do not know: use /predict."
            )
        times = Times(entered, found, time.perf_counter())
        most = most_keys(loaded.model, self._limits.max_row_keys)
        n_rows = None
        try:
            if sent == CSV:
                features = loaded.model.features
                n_rows = check_csv(body, most, self._limits, () if features is None else features.names)
            elif sent == PARQUET:
                body = plain_parquet(body, most, self._limits)
        finally:
            if sent != JSON and len(body) > LARGE_BYTES:
                release_arrow()
        data = body if sent != JSON else read_json(body, most, loaded.input_schema, self._limits)
        if sent == CSV and (as_json := csv_as_json(body, loaded.input_schema)) is not None:
            data, body, sent = as_json, json.dumps(as_json).encode(), JSON
        if loaded.hosted is not None:
            encoded, prediction = score_hosted(loaded, loaded.hosted, sent, body, data, times)
        else:
            encoded, prediction = score(loaded, sent, data, times)
        if n_rows is not None and len(prediction.table) != n_rows:
            raise misread()
        return encoded, prediction
