"""MLflow's own scoring routes for the default model, passed through MLflow's app and mended on the way out.

MLflow's errors carry stack traces and the caller's rows, a model's own exception is answered 400, NaN makes invalid
JSON, `HEAD /ping` is a 405 and a missing content type a 500.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import math
import weakref
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fin_pyfunc.model.errors import FeatureError, FinPyfuncError, ScoringError
from fin_pyfunc.serving.callers.principal import require_model
from fin_pyfunc.serving.endpoints import identity
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import header, read_body, require_method, send_json
from fin_pyfunc.serving.json_keys import require_unique_everywhere
from fin_pyfunc.serving.loader import LoadedModel
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.tables import plain_parquet

if TYPE_CHECKING:
    import pandas as pd

CONTENT_TYPES = ("application/json", "text/csv", "application/vnd.apache.parquet")
#: Where a model's own exception is kept on its way past MLflow, which would make a 400 and a stack trace of it.
_raised: contextvars.ContextVar[list[Exception]] = contextvars.ContextVar("raised")


class Invocations:
    """`POST /invocations`: MLflow's scoring app around the default model."""

    def __init__(self, predictor: Predictor, limits: Limits) -> None:
        self._predictor, self._limits = predictor, limits
        #: the app holds no model, so that one whose place another took is freed after its last request
        self._app: ASGIApp | None = None
        self._app_for: weakref.ref[LoadedModel] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        require_method(scope, "POST")
        sent = (header(scope, b"content-type") or b"").partition(b";")[0].strip().lower().decode("latin-1")
        if sent not in CONTENT_TYPES:
            raise RequestError(415, f"Send the rows with one of the content types {', '.join(CONTENT_TYPES)}.")
        require_model(scope, None, self._predictor.default_uri)
        body = await read_body(scope, receive, self._limits.max_body_bytes, self._predictor.held)
        if sent == "application/json":
            await self._predictor.off_loop(require_unique_everywhere, body, self._limits.max_row_keys)
        raised: list[Exception] = []
        token = _raised.set(raised)
        try:
            async with self._predictor.place():
                app, loaded = await self._mlflow_app()
                if sent == "application/vnd.apache.parquet":
                    body = await asyncio.get_running_loop().run_in_executor(None, plain_parquet, body, self._limits)
                status, answered = await _call(app, scope, body)
                self._predictor.stops.check(None, loaded)
        finally:
            _raised.reset(token)
        if status >= 400:
            raise _mended(status, sent, raised)
        await send_json(send, status, _without_nan(answered), identity(None, loaded))

    async def _mlflow_app(self) -> tuple[ASGIApp, LoadedModel]:
        loaded = await self._predictor.find(None)
        if not loaded.has_pyfunc:
            raise RequestError(
                404, "The default model is a bare file, which MLflow's routes do not know: use /predict."
            )
        app = self._app if self._app_for is not None and self._app_for() is loaded else None
        if app is None:
            app = await asyncio.get_running_loop().run_in_executor(None, self._scoring_app, loaded)
            self._app, self._app_for = app, weakref.ref(loaded)
        return app, loaded

    def _scoring_app(self, loaded: LoadedModel) -> ASGIApp:
        from mlflow.pyfunc import scoring_server

        app: ASGIApp = scoring_server.init(_Witnessed(loaded, self._predictor))
        return app


class _Witnessed:
    """The model as MLflow's app sees it; keeps what it raises."""

    def __init__(self, loaded: LoadedModel, predictor: Predictor) -> None:
        self._loaded, self._predictor, self.metadata = weakref.proxy(loaded), predictor, loaded.pyfunc.metadata

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """As `PyFuncModel.predict`; called on one of MLflow's threads, which no model is to keep for ever."""
        try:
            return self._predictor.call(self._loaded.pyfunc.predict, data, params=params)
        except Exception as e:
            _raised.get().append(self._named(e, data))
            raise

    def _named(self, error: Exception, data: Any) -> Exception:
        """MLflow's refusal of a table names types and quotes the rows; ours names the features."""
        from mlflow.exceptions import MlflowException

        features = self._loaded.model.features
        if isinstance(error, MlflowException) and features is not None and hasattr(data, "columns"):
            try:
                features.check(data)
            except FeatureError as ours:
                return ours
        return error


def _mended(status: int, content_type: str, raised: list[Exception]) -> Exception:
    """What MLflow's error should have been."""
    from mlflow.exceptions import MlflowException

    if not raised:
        if status >= 500:
            return RequestError(status, "MLflow's scoring server could not answer in time: send fewer rows at a time.")
        return RequestError(
            422,
            f"The body could not be read as {content_type}: JSON has one of the keys dataframe_split, "
            "dataframe_records, instances or inputs; CSV has a header line; see /docs.",
        )
    error = raised[0]
    if isinstance(error, MlflowException):
        return RequestError(
            422, "The rows do not fit the model's signature: see its features and types with 'fin-pyfunc inspect'."
        )
    if isinstance(error, FinPyfuncError):
        return error
    failed = ScoringError(f"the model raised {type(error).__name__}")
    failed.__cause__ = error
    return failed


async def _call(app: ASGIApp, scope: Scope, body: bytes) -> tuple[int, bytes]:
    """Give a whole body to an app and take its whole answer."""
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    status, chunks = 500, []

    async def receive() -> Message:
        if messages:
            return messages.pop()
        await asyncio.Event().wait()  # MLflow's middleware listens for a disconnect that the shim has already handled
        raise AssertionError

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            chunks.append(message.get("body", b""))

    await app({**scope, "path": "/invocations", "raw_path": b"/invocations"}, receive, send)
    return status, b"".join(chunks)


def _without_nan(body: bytes) -> bytes:
    """The same answer as valid JSON: a number that is none becomes null."""
    if b"NaN" not in body and b"Infinity" not in body:
        return body
    return json.dumps(_nulled(json.loads(body)), allow_nan=False).encode()


def _nulled(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_nulled(item) for item in value]
    if isinstance(value, dict):
        return {key: _nulled(item) for key, item in value.items()}
    return value
