"""Calls and answers as bytes, for both clients: what is sent, and what an answer means. No network here."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from fin_pyfunc.client.answers import FeatureInfo, Health, ModelEntry, ModelInfo, Prediction
from fin_pyfunc.client.errors import AnswerError, RejectedError, of_answer
from fin_pyfunc.client.rows import frame_rows, plain

if TYPE_CHECKING:
    import pandas as pd

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
_Answer = TypeVar("_Answer", Prediction, Health, ModelEntry, ModelInfo, FeatureInfo)


class Call(NamedTuple):
    """One request. `first_row` is where its first row is in the caller's DataFrame."""

    method: str
    path: str
    headers: dict[str, str]
    params: dict[str, str]
    body: bytes | None = None
    first_row: int = 0


class Reply(NamedTuple):
    """What came back; the headers' names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def base_url(url: str) -> str:
    """The server's URL without its last slash.

    Raises
    ------
    ValueError
        It is no http or https URL, or holds a user or a password.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("The server's URL is to look like http://127.0.0.1:8000, without a query.")
    if parts.username or parts.password:
        raise ValueError("The server's URL is not to hold a user or a password: pass api_key=… instead.")
    return url.rstrip("/")


def get(path: str, params: Mapping[str, str] | None = None) -> Call:
    """A question without a body."""
    return Call("GET", path, _headers(JSON), dict(params or {}))


def one(features: Mapping[str, Any], model_uri: str | None, return_proba: bool) -> Call:
    """`/predict` of one row."""
    body = {"features": {name: plain(name, value) for name, value in features.items()}, "return_proba": return_proba}
    return _json("/predict", body, model_uri)


def batch(
    rows: pd.DataFrame | Sequence[Mapping[str, Any]], first: int, model_uri: str | None, return_proba: bool, arrow: bool
) -> Call:
    """`/predict/batch` of some rows, which begin at row `first` of the caller's: a DataFrame as Arrow, if that is
    asked for and Arrow has a type for each column; all else as JSON.
    """
    if not arrow or not hasattr(rows, "iloc"):
        return _batch_of_json(rows, first, model_uri)
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    try:
        table = pa.Table.from_pandas(rows, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError):  # a column of several types: the server names what is wrong
        return _batch_of_json(rows, first, model_uri)
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    params = {"return_proba": "true" if return_proba else "false"}
    if model_uri is not None:
        params["model_uri"] = model_uri
    headers = {**_headers(ARROW), "Content-Type": ARROW}
    return Call("POST", "/predict/batch", headers, params, sink.getvalue().to_pybytes(), first)


def _batch_of_json(rows: Any, first: int, model_uri: str | None) -> Call:
    listed = frame_rows(rows) if hasattr(rows, "iloc") else rows
    cells = [{name: plain(name, value) for name, value in row.items()} for row in listed]
    # without probabilities JSON has no confidences either
    return _json("/predict/batch", {"features_list": cells, "return_proba": True}, model_uri)._replace(first_row=first)


def has_arrow() -> bool:
    """Whether tables can be sent from here."""
    return find_spec("pyarrow") is not None


def refuses_arrow(error: AnswerError) -> bool:
    """Whether the server takes no tables (an older one, or one behind a proxy that wants JSON)."""
    return isinstance(error, RejectedError) and error.status in (406, 415)


def checked(reply: Reply, call: Call) -> Reply:
    """The reply itself, where it is an answer.

    Raises
    ------
    AnswerError
    """
    if reply.status == 200:
        return reply
    request_id = reply.headers.get("x-request-id", call.headers["X-Request-ID"])
    body, wait = _parsed(reply.body), retry_after(reply)
    raise of_answer(reply.status, body, request_id=request_id, retry_after=wait, first_row=call.first_row)


def retry_after(reply: Reply) -> float | None:
    """Seconds that the server asks to wait; a date, which ours never sends, counts as nothing said."""
    try:
        return max(0.0, float(reply.headers.get("retry-after", "")))
    except ValueError:
        return None


def models_call(experiment_name: str | None, limit: int) -> Call:
    """`/models` of one experiment."""
    named = {} if experiment_name is None else {"experiment_name": experiment_name}
    return get("/models", {**named, "limit": str(limit)})


def prediction(reply: Reply) -> Prediction:
    """The answer of `/predict`."""
    lineage = {
        "request_id": reply.headers.get("x-request-id", ""),
        "model_id": reply.headers.get("x-model-id", ""),
        "backend": reply.headers.get("x-model-backend", ""),
    }
    return _read(Prediction, {**_known(reply), **lineage})


def health(reply: Reply) -> Health:
    """The answer of `/health`; 503 is one, too."""
    return _read(Health, _known(reply))


def models(reply: Reply) -> list[ModelEntry]:
    """The answer of `/models`."""
    return [_read(ModelEntry, entry) for entry in _known(reply)["models"]]


def info_call(model_uri: str | None) -> Call:
    """`/models/info` of one model."""
    return get("/models/info", {} if model_uri is None else {"model_uri": model_uri})


def info(reply: Reply) -> ModelInfo:
    """The answer of `/models/info`."""
    body = _known(reply)
    if body.get("features") is not None:
        body["features"] = [_read(FeatureInfo, each) for each in body["features"]]
    return _read(ModelInfo, body)


def index_of(rows: pd.DataFrame | Sequence[Mapping[str, Any]], first: int) -> pd.Index:
    """The index of the answers to some rows: a DataFrame's own, else their numbers."""
    import pandas as pd

    own: pd.Index | None = getattr(rows, "index", None) if hasattr(rows, "iloc") else None
    return pd.RangeIndex(first, first + len(rows)) if own is None else own


def frame_of(reply: Reply, index: pd.Index, return_proba: bool) -> pd.DataFrame:
    """The answer of `/predict/batch`, the same columns whether it came as Arrow or as JSON."""
    import pandas as pd

    if reply.headers.get("content-type", "").partition(";")[0] == ARROW:
        import pyarrow as pa

        with pa.ipc.open_stream(io.BytesIO(reply.body)) as stream:
            table = stream.read_all()
        names = table.column_names  # before the answers are identifiers, which the caller has
        frame: pd.DataFrame = table.select(names[names.index("prediction") :]).to_pandas()
        return frame.set_axis(index)
    body = _known(reply)
    distributions = body["probabilities"] if return_proba else None
    columns: dict[str, Any] = {"prediction": body["predictions"]}
    if distributions:
        columns["probability"] = [max(row.values()) for row in distributions]
    columns["confidence"] = body["confidences"]
    if distributions:
        columns |= {f"probability_{name}": [row[name] for row in distributions] for name in distributions[0]}
    return pd.DataFrame(columns, index=index)


def joined(pieces: list[pd.DataFrame], replies: list[Reply]) -> pd.DataFrame:
    """All the answers; `attrs` says which models and requests they came from."""
    import pandas as pd

    whole = pieces[0] if len(pieces) == 1 else pd.concat(pieces)
    whole.attrs["model_ids"] = sorted({reply.headers.get("x-model-id", "") for reply in replies})
    whole.attrs["request_ids"] = [reply.headers.get("x-request-id", "") for reply in replies]
    return whole


def _json(path: str, body: dict[str, Any], model_uri: str | None) -> Call:
    if model_uri is not None:
        body["model_uri"] = model_uri
    # NaN is no JSON: the server says what is wrong with a null
    data = json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
    return Call("POST", path, {**_headers(JSON), "Content-Type": JSON}, {}, data)


def _headers(accept: str) -> dict[str, str]:
    return {"Accept": accept, "X-Request-ID": uuid.uuid4().hex}


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _known(reply: Reply) -> dict[str, Any]:
    body = _parsed(reply.body)
    if not isinstance(body, dict):
        raise of_answer(reply.status, None, request_id="", retry_after=None, first_row=0)
    return body


def _read(kind: type[_Answer], body: Mapping[str, Any]) -> _Answer:
    """What is known of an answer; a newer server may say more."""
    try:
        return kind(**{field.name: body[field.name] for field in fields(kind) if field.name in body})
    except TypeError as e:  # one is missing that has no default
        raise of_answer(200, None, request_id="", retry_after=None, first_row=0) from e
