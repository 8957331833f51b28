"""Score one request to `/invocations` with MLflow's own code: its parser, its schema enforcement, its JSON encoder."""

from __future__ import annotations

import json
import logging
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
from fin_pyfunc.model.features import FeatureSpec, Table
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

logger = logging.getLogger("fin_pyfunc.server")

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
        In lower case and without parameters.
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
            raise unreadable(content_type) from None
        if model.failure is None:
            raise model.error from model.error.__cause__
        raise UnansweredError(model.failure) from None
    if answered.status >= 400 or model.prediction is None:  # parameters of the content type that it does not know
        raise unreadable(content_type)
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
    parsed, decoded = _parsed(loaded, content_type, data), time.perf_counter()
    said, seen = hosted.invocations(content_type, body), _Seen.of(loaded, parsed)
    if said.failure == "schema":
        raise _misfit(loaded, parsed)
    if said.failure == "body" or (said.failure is None and said.status >= 400):
        raise unreadable(content_type)
    try:
        if said.failure is not None:
            raise ScoringError(f"the model raised {said.error}") from HostedError(f"\n{said.trace}")
        answered = without_nan(said.body)
        predictions = _predictions(answered)
    except ScoringError as e:
        raise UnansweredError(seen.failure(e, loaded, times, decoded)) from None
    prediction = seen.prediction(_decided(loaded, predictions), loaded, times, decoded)
    prediction.encoded = time.perf_counter()
    return answered, prediction


def _parsed(loaded: LoadedModel, content_type: str, data: bytes | dict[str, Any]) -> Any:
    """A body as MLflow's scoring server reads it; None where at most the model's own process can read it."""
    from mlflow.pyfunc import scoring_server

    schema = loaded.input_schema
    try:
        if content_type == CSV and isinstance(data, bytes):
            return scoring_server.parse_csv_input(StringIO(data.decode()), schema)
        if content_type == PARQUET and isinstance(data, bytes):
            return scoring_server.parse_parquet_input(BytesIO(data))
        return scoring_server._parse_json_data(data, served_pyfunc.metadata_of(loaded.folder), schema).data
    except Exception:  # that process says whether it is wrong
        return None


def _misfit(loaded: LoadedModel, data: Any) -> Exception:
    """What a client is told whose rows do not fit: MLflow's refusal quotes the rows, ours names the features."""
    features = loaded.model.features
    if features is not None and (isinstance(data, dict) or hasattr(data, "columns")):
        try:
            features.check(rows_frame(data))
        except FeatureError as ours:
            return ours
        except Exception as e:
            logger.debug("what was sent is no table at all (%s)", type(e).__name__)
    return RequestError(422, _NO_FIT)


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
                self.failure = _Seen.of(self.loaded, data).failure(e, self.loaded, self.times, decoded)
            if self.failure is not None:
                self.failure.error = self.error
            raise
        if not is_own:
            decisions = _decided(self.loaded, answered)
            self.prediction = _Seen.of(self.loaded, data).prediction(decisions, self.loaded, self.times, decoded)
        return answered

    def _mended(self, error: Exception, data: Any) -> Exception:
        """What the client is told."""
        from mlflow.exceptions import MlflowException

        if isinstance(error, MlflowException):
            return _misfit(self.loaded, data)
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
        decoded, asked = time.perf_counter(), self._model
        seen = _Seen(table, _identifiers(asked.loaded, model_input))
        try:
            decisions = classifier.decide_table(table)
        except Exception as e:
            asked.failure = seen.failure(e, asked.loaded, asked.times, decoded)
            raise
        asked.prediction = seen.prediction(decisions, asked.loaded, asked.times, decoded)
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


class _Seen(NamedTuple):
    """What was sent to a model, as observers take it.

    Parameters
    ----------
    table : ndarray of shape (n_rows, n_features) or DataFrame
        Rows as `/predict` would score them; as MLflow read them, where `/predict` would refuse them.
    identifiers : dict of str to sequence
    """

    table: Table
    identifiers: dict[str, Sequence[Any]]

    @classmethod
    def of(cls, loaded: LoadedModel, data: Any) -> _Seen:
        """Whatever MLflow gave a model; of what is no table at all one empty row, since no observer fails a request."""
        import pandas as pd

        features = loaded.model.features
        try:
            frame = rows_frame(data)
            return cls(frame if features is None else _checked(features, frame), _identifiers(loaded, frame))
        except Exception as e:
            logger.debug("observers do not see what was sent to the model (%s)", type(e).__name__)
            names = ["input"] if features is None else features.names
            return cls(pd.DataFrame(index=range(1), columns=names, dtype=object), {})

    def prediction(self, decisions: Decisions, loaded: LoadedModel, times: Times, decoded: float) -> Prediction:
        """What the model answered."""
        asked = (None, loaded, self.table, decisions, times.began, decoded, None, self.identifiers)
        return Prediction(*asked, entered=times.entered, found=times.found)

    def failure(self, error: Exception, loaded: LoadedModel, times: Times, decoded: float) -> Failure:
        """What the model raised."""
        return Failure(error, None, loaded, self.table, times.began, decoded, None, self.identifiers)


def _checked(features: FeatureSpec, frame: pd.DataFrame) -> Table:
    try:
        return features.check(frame)
    except FeatureError:
        named = frame.reindex(columns=features.names)
        return named.astype(np.float64) if features.is_numeric else named


def _decided(loaded: LoadedModel, answered: Any) -> Decisions:
    """What a model answered, for observers; of what is no answer of a classifier at least its type."""
    try:
        return pyfunc_decisions(answered, loaded.model.thresholds)
    except Exception as e:
        logger.debug("observers do not see what the model answered (%s)", type(e).__name__)
        return pyfunc_decisions([type(answered).__name__], loaded.model.thresholds)


def _identifiers(loaded: LoadedModel, frame: pd.DataFrame) -> dict[str, Sequence[Any]]:
    features = loaded.model.features
    names = () if features is None else features.identifiers
    return {name: json_values(frame[name]) for name in names if name in frame}
