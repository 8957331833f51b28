"""Score one request to `/invocations` with MLflow's own code: its parser, its schema enforcement, its JSON encoder."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Sequence
from io import BytesIO, StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from fin_pyfunc.model.backends.pyfunc import PyfuncBackend, rows_frame, scores_of_any
from fin_pyfunc.model.decision import Decisions, Thresholds
from fin_pyfunc.model.errors import FeatureError, FinPyfuncError, HostedError, ScoringError
from fin_pyfunc.model.features import Table
from fin_pyfunc.model.foreign.features import numbered_as
from fin_pyfunc.serving import served_pyfunc
from fin_pyfunc.serving.content_types import CSV, PARQUET
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.hosts.hosted_model import HostedModel
from fin_pyfunc.serving.json_values import json_values
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.mlflow_bodies import unreadable
from fin_pyfunc.serving.prediction import Failure, Prediction, UnansweredError

if TYPE_CHECKING:
    import pandas as pd

_NO_FIT = "The rows do not fit the model's signature: GET /models/info shows its features and types."


class Times(NamedTuple):
    """When a request asked for its model, got it, and began to be read, in the seconds of ``time.perf_counter``."""

    entered: float
    found: float
    began: float


def score(
    loaded: LoadedModel, content_type: str, data: bytes | dict[str, Any], times: Times
) -> tuple[bytes, Prediction]:
    """Answer a body that has been checked, as MLflow's scoring server does.

    Parameters
    ----------
    loaded : LoadedModel
        MLflow knows it (`has_pyfunc`).
    content_type : str
        As the client sent it, parameters included.
    data : bytes or dict
        The body; JSON may be decoded already.
    times : Times

    Returns
    -------
    bytes, Prediction
        JSON, in which a number that is not finite is null.

    Raises
    ------
    RequestError, FeatureError
        MLflow or the model refuses the rows.
    UnansweredError
        The model raised.
    """
    from mlflow.environment_variables import _MLFLOW_IS_IN_SERVING_ENVIRONMENT
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server

    os.environ[_MLFLOW_IS_IN_SERVING_ENVIRONMENT.name] = "true"  # as MLflow's server does
    model = _Model(loaded, times)
    try:
        answered = scoring_server.invocations(data, content_type, model, model.metadata.get_input_schema())
    except MlflowException:  # its message quotes the rows
        if model.error is None:
            raise unreadable(_media_type(content_type)) from None
        if model.failure is None:
            raise model.error from model.error.__cause__
        raise UnansweredError(model.failure) from None
    if answered.status >= 400 or model.prediction is None:  # parameters of the content type that it does not know
        raise unreadable(_media_type(content_type))
    body = without_nan(answered.response.encode())
    model.prediction.encoded = time.perf_counter()
    return body, model.prediction


def score_hosted(
    loaded: LoadedModel, hosted: HostedModel, content_type: str, body: bytes, data: bytes | dict[str, Any], times: Times
) -> tuple[bytes, Prediction]:
    """As `score`, by the process that the model runs in.

    What is recorded of it is what was sent and what is answered, as this process reads both: that one is not believed.

    Parameters
    ----------
    loaded, content_type, data, times
        As `score` takes them.
    hosted : HostedModel
    body : bytes
        As the client sent it.

    Raises
    ------
    RequestError, FeatureError, UnansweredError
        As `score` does.
    ModelUnavailableError
        That process has ended, or does not answer.
    """
    frame = rows_frame(_parsed(loaded, content_type, data))
    decoded, held = time.perf_counter(), _identifiers(loaded, frame)
    said, table = hosted.invocations(content_type, body), _table(loaded, frame)
    features = loaded.model.features
    if said.failure == "schema" and features is not None:
        features.check(frame)  # names the features that do not fit
    if said.failure == "schema":
        raise RequestError(422, _NO_FIT)
    if said.failure == "body" or (said.failure is None and said.status >= 400):
        raise unreadable(_media_type(content_type))
    try:
        if said.failure is not None:
            raise ScoringError(f"the model raised {said.error}") from HostedError(f"\n{said.trace}")
        answered = without_nan(said.body)
        decisions = pyfunc_decisions(_predictions(answered), loaded.model.thresholds)
    except ScoringError as e:
        raise UnansweredError(Failure(e, None, loaded, table, times.began, decoded, None, held)) from None
    prediction = Prediction(
        *(None, loaded, table, decisions, times.began, decoded, None, held), entered=times.entered, found=times.found
    )
    prediction.encoded = time.perf_counter()
    return answered, prediction


def _parsed(loaded: LoadedModel, content_type: str, data: bytes | dict[str, Any]) -> Any:
    """A body as MLflow's scoring server reads it."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server

    schema, sent = loaded.input_schema, _media_type(content_type)
    try:
        if sent == CSV and isinstance(data, bytes):
            return scoring_server.parse_csv_input(StringIO(data.decode()), schema)
        if sent == PARQUET and isinstance(data, bytes):
            return scoring_server.parse_parquet_input(BytesIO(data))
        return scoring_server._parse_json_data(data, served_pyfunc.metadata_of(loaded.folder), schema).data
    except MlflowException:
        raise unreadable(sent) from None


def _predictions(answered: bytes) -> Any:
    """What an answer of MLflow's scoring server says of the rows.

    Raises
    ------
    ScoringError
        It is none.
    """
    try:
        said = json.loads(answered)
    except (ValueError, RecursionError):
        raise ScoringError("the model's process answered something that is not JSON") from None
    return said.get("predictions", said) if isinstance(said, dict) else said


class _Model:
    """A model as MLflow's scoring code sees it, for one request; keeps what the model was asked and what it answered.

    MLflow replaces an exception of the model by one of its own, and of a model of ours passes on a DataFrame only.
    """

    def __init__(self, loaded: LoadedModel, times: Times) -> None:
        self.loaded, self.times, self.metadata = loaded, times, loaded.pyfunc.metadata
        self.prediction: Prediction | None = None
        self.failure: Failure | None = None
        self.error: Exception | None = None

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """As `PyFuncModel.predict`."""
        from mlflow.pyfunc import PyFuncModel

        is_own, decoded = self.loaded.model.manifest is not None, time.perf_counter()
        try:
            if is_own:
                return PyFuncModel(self.metadata, _Implementation(self)).predict(data, params=params)
            answered = self.loaded.pyfunc.predict(numbered_as(self.metadata.get_input_schema(), data), params=params)
        except Exception as e:
            self.error = self._mended(e, data)
            if not is_own and not isinstance(self.error, RequestError | FeatureError):
                self.fail(e, _table(self.loaded, rows_frame(data)), rows_frame(data), decoded)
            if self.failure is not None:
                self.failure.error = self.error
            raise
        decisions = pyfunc_decisions(answered, self.loaded.model.thresholds)
        self.answer(decisions, _table(self.loaded, rows_frame(data)), rows_frame(data), decoded)
        return answered

    def fail(self, error: Exception, table: Table, frame: pd.DataFrame, decoded: float) -> None:
        """Remember what the model raised."""
        t = self.times
        self.failure = Failure(
            error, None, self.loaded, table, t.began, decoded, None, _identifiers(self.loaded, frame)
        )

    def answer(self, decisions: Decisions, table: Table, frame: pd.DataFrame, decoded: float) -> None:
        """Remember what the model answered."""
        t = self.times
        self.prediction = Prediction(
            *(None, self.loaded, table, decisions, t.began, decoded, None, _identifiers(self.loaded, frame)),
            entered=t.entered,
            found=t.found,
        )

    def _mended(self, error: Exception, data: Any) -> Exception:
        """What the client is told: MLflow's refusal of a table quotes the rows, ours names the features."""
        from mlflow.exceptions import MlflowException

        features = self.loaded.model.features
        if isinstance(error, MlflowException):
            if features is not None and hasattr(data, "columns"):
                try:
                    features.check(data)
                except FeatureError as ours:
                    return ours
            return RequestError(422, _NO_FIT)
        if isinstance(error, FinPyfuncError):
            return error
        failed = ScoringError(f"the model raised {type(error).__name__}")
        failed.__cause__ = error
        return failed


class _Implementation:
    """A model of ours, as a PyFuncModel asks it for the rows whose schema it has enforced."""

    def __init__(self, model: _Model) -> None:
        self._model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """As `Classifier.predict`."""
        classifier = self._model.loaded.model
        table = classifier.check(model_input)
        decoded = time.perf_counter()
        try:
            decisions = classifier.decide_table(table)
        except Exception as e:
            self._model.fail(e, table, model_input, decoded)
            raise
        self._model.answer(decisions, table, model_input, decoded)
        return decisions.frame(bool((params or {}).get("return_proba", True)), model_input.index)


def pyfunc_decisions(answered: Any, thresholds: Thresholds) -> Decisions:
    """What a model that is not ours answered to MLflow, as labels; anything else as its JSON text."""
    return Decisions(scores_of_any(answered), thresholds, PyfuncBackend.name)


def without_nan(body: bytes) -> bytes:
    """The same answer as valid JSON: a number that is not finite becomes null."""
    if b"NaN" not in body and b"Infinity" not in body:
        return body
    try:
        return json.dumps(_nulled(json.loads(body)), allow_nan=False).encode()
    except (ValueError, RecursionError):
        raise ScoringError("the model answered something that is not JSON") from None


def _nulled(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_nulled(item) for item in value]
    if isinstance(value, dict):
        return {key: _nulled(item) for key, item in value.items()}
    return value


def _table(loaded: LoadedModel, frame: pd.DataFrame) -> Table:
    """Rows as `/predict` would score them, for the observers; MLflow's own where `/predict` would refuse them."""
    features = loaded.model.features
    if features is None:
        return frame
    try:
        return features.check(frame)
    except FeatureError:
        named = frame.reindex(columns=features.names)
        return named.astype(np.float64) if features.is_numeric else named


def _identifiers(loaded: LoadedModel, frame: pd.DataFrame) -> dict[str, Sequence[Any]]:
    features = loaded.model.features
    names = () if features is None else features.identifiers
    return {name: json_values(frame[name]) for name in names if name in frame}


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
