"""MLflow's own scoring routes for the default model, passed through MLflow's app and mended on the way out.

MLflow's errors carry stack traces and the caller's rows, a model's own exception is answered 400, NaN makes invalid
JSON, `HEAD /ping` is a 405 and a missing content type a 500.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import math
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Decisions, Thresholds
from fin_pyfunc.model.errors import FeatureError, FinPyfuncError, ScoringError
from fin_pyfunc.model.features import Table
from fin_pyfunc.serving.callers.principal import require_model
from fin_pyfunc.serving.decode import most_keys
from fin_pyfunc.serving.endpoints import identity, unanswered
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import header, read_body, require_method, send_json
from fin_pyfunc.serving.json_keys import require_unique_everywhere
from fin_pyfunc.serving.json_values import json_values
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.prediction import Failure, Prediction, Watchers
from fin_pyfunc.serving.predictor import Predictor
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.tables import plain_parquet

if TYPE_CHECKING:
    import pandas as pd

CONTENT_TYPES = ("application/json", "text/csv", "application/vnd.apache.parquet")


class _Seen:
    """What the model did for one request, which gets past MLflow in no other way.

    Attributes
    ----------
    raised : list of Exception
        A model's own exception, of which MLflow would make a 400 and a stack trace.
    asked : Prediction, Failure or None
        What became of the rows, once a model was asked.
    """

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.raised: list[Exception] = []
        self.asked: Prediction | Failure | None = None


_seen: contextvars.ContextVar[_Seen] = contextvars.ContextVar("seen")


class Invocations:
    """`POST /invocations`: MLflow's scoring app around the default model."""

    def __init__(self, predictor: Predictor, limits: Limits, watchers: Watchers) -> None:
        self._predictor, self._limits, self._watchers = predictor, limits, watchers
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
        seen = _Seen()
        token = _seen.set(seen)
        try:
            async with self._predictor.place():
                app, loaded = await self._mlflow_app()
                loop = asyncio.get_running_loop()
                if sent == "application/json":
                    most = most_keys(loaded.model, self._limits.max_row_keys)
                    await loop.run_in_executor(None, require_unique_everywhere, body, most)
                elif sent == "application/vnd.apache.parquet":
                    body = await loop.run_in_executor(None, plain_parquet, body, self._limits)
                status, answered = await _call(app, scope, body)
                self._predictor.stops.check(None, loaded)
        finally:
            _seen.reset(token)
        if status >= 400:
            error = _mended(status, sent, seen.raised)
            if isinstance(seen.asked, Failure):
                seen.asked.error = error
                raise await unanswered(scope, seen.asked, self._watchers)
            raise error
        prediction = seen.asked if isinstance(seen.asked, Prediction) else None
        if prediction is not None:
            scope["state"]["prediction"] = prediction
            if (waited := self._watchers.before_answer(scope, prediction)) is not None:
                await waited
        await send_json(send, status, _without_nan(answered), identity(None, loaded))
        if prediction is not None:
            self._watchers.after_answer(scope, prediction)

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
    """The model as MLflow's app sees it; keeps what it raises and what it answers, for those who look on.

    Parameters
    ----------
    loaded : LoadedModel
        Held by the request that is under way, and not from here.
    predictor : Predictor
    """

    def __init__(self, loaded: LoadedModel, predictor: Predictor) -> None:
        self._held, self._predictor, self.metadata = weakref.ref(loaded), predictor, loaded.pyfunc.metadata
        ours = _own(loaded)
        if ours is not None:
            ours.on_decided = self._decided
        self._is_foreign = ours is None

    @property
    def _loaded(self) -> LoadedModel:
        loaded = self._held()
        assert loaded is not None  # noqa: S101 - for the type checker: a request that is under way holds it
        return loaded

    def predict(self, data: pd.DataFrame, params: dict[str, Any] | None = None) -> Any:
        """As `PyFuncModel.predict`; called on one of MLflow's threads, which no model is to keep for ever."""
        seen = _seen.get()
        predict = partial(self._loaded.pyfunc.predict, data, params=params)
        try:
            # in this context, in which `_decided` finds the request that it is about
            answered = self._predictor.call(contextvars.copy_context().run, predict)
        except Exception as e:
            named = self._named(e, data)
            seen.raised.append(named)
            if self._is_foreign and not isinstance(_mended(500, "", seen.raised), RequestError | FeatureError):
                self._decided(_frame(data), _frame(data), e)
            raise
        if self._is_foreign:
            self._decided(_frame(data), _frame(data), pyfunc_decisions(answered, self._loaded.model.thresholds))
        return answered

    def _decided(self, frame: pd.DataFrame, table: Table, answered: Decisions | Exception) -> None:
        """Keep what became of some rows, for those who look on."""
        seen, features = _seen.get(None), self._loaded.model.features
        if seen is None:  # the same model, asked by another route
            return
        names = () if features is None else features.identifiers
        held = {name: json_values(frame[name]) for name in names if name in frame}
        now = time.perf_counter()
        if isinstance(answered, Decisions):
            seen.asked = Prediction(None, self._loaded, table, answered, seen.began, now, None, held)
        else:
            seen.asked = Failure(answered, None, self._loaded, table, seen.began, now, None, held)

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


def _own(loaded: LoadedModel) -> Classifier | None:
    """The classifier of ours in MLflow's model, if it is one."""
    from mlflow.exceptions import MlflowException

    try:
        model = loaded.pyfunc.unwrap_python_model()
    except MlflowException:  # a flavour without a PythonModel
        return None
    return model if isinstance(model, Classifier) else None


def _frame(data: Any) -> pd.DataFrame:
    """Rows as MLflow hands them over: a DataFrame, or an array, a list or a dict of them."""
    import pandas as pd

    if isinstance(data, pd.DataFrame):
        return data
    if isinstance(data, dict):
        return pd.DataFrame({name: list(values) for name, values in data.items()})
    return pd.DataFrame({"input": list(data)})


def pyfunc_decisions(answered: Any, thresholds: Thresholds) -> Decisions:
    """What a model that is not ours answered to MLflow: labels, and no probabilities; anything else as its JSON text.

    Parameters
    ----------
    answered : object
        One answer a row.
    thresholds : Thresholds
    """
    from fin_pyfunc.model.backends import pyfunc

    try:
        labels = pyfunc.labels(answered)
    except ScoringError:
        rows = answered.to_dict("records") if hasattr(answered, "to_dict") else answered
        labels = [json.dumps(row.tolist() if hasattr(row, "tolist") else row, default=str) for row in rows]
    return Decisions(pyfunc.scores(labels), thresholds, pyfunc.PyfuncBackend.name)


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
