"""One typed decode of a request body; whatever is wrong with it, one sentence that names the key."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, TypeVar

import msgspec

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import FeatureError, Problem
from fin_pyfunc.model.features import Row, Table
from fin_pyfunc.serving.content_types import NOT_UTF_8, refuse_utf_16
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.json_keys import require_unique, require_unique_rows
from fin_pyfunc.serving.schemas import BatchRequest, PredictRequest

T = TypeVar("T", PredictRequest, BatchRequest)

_predict_decoder = msgspec.json.Decoder(PredictRequest)
_batch_decoder = msgspec.json.Decoder(BatchRequest)


class Envelope(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True, gc=False):
    """A request whose row is still JSON: how to read it depends on the model, which is named beside it."""

    features: msgspec.Raw
    model_uri: str | None = None
    return_proba: bool = False


class BatchEnvelope(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True, gc=False):
    """A request whose rows are still JSON."""

    features_list: msgspec.Raw
    model_uri: str | None = None
    return_proba: bool = False


_envelope = msgspec.json.Decoder(Envelope).decode
_batch_envelope = msgspec.json.Decoder(BatchEnvelope).decode
_raw_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_any_rows = msgspec.json.Decoder(list[Any]).decode

_PATH = re.compile(r" - at `(?P<path>[^`]*)`$")
_KEY = re.compile(r"`(?P<key>[^`]*)`")
#: msgspec's names of JSON types, as the contract words them.
_TYPES = {
    "int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "object": "an object",
    "array": "a list", "null": "null",
}  # fmt: skip


def open_envelope(body: bytes) -> Envelope:
    """Everything of a `/predict` body but its row.

    Raises
    ------
    RequestError, FeatureError
        As `_decode`.
    """
    body = _without_mark(body)
    try:
        envelope = _envelope(body)
        if body.count(b":") - bytes(envelope.features).count(b":") != _separators(envelope):
            require_unique(body)
        return envelope
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        request = _decode(body, _predict_decoder)  # which says what is wrong
        return Envelope(
            features=msgspec.Raw(msgspec.json.encode(request.features)),
            model_uri=request.model_uri,
            return_proba=request.return_proba,
        )


def open_batch_envelope(body: bytes) -> BatchEnvelope:
    """Everything of a `/predict/batch` body but its rows; raises as `open_envelope`."""
    body = _without_mark(body)
    try:
        envelope = _batch_envelope(body)
        if body.count(b":") - bytes(envelope.features_list).count(b":") != _separators(envelope):
            require_unique(body)
        return envelope
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        request = _decode(body, _batch_decoder)
        return BatchEnvelope(
            features_list=msgspec.Raw(msgspec.json.encode(request.features_list)),
            model_uri=request.model_uri,
            return_proba=request.return_proba,
        )


def _without_mark(body: bytes) -> bytes:
    """A text without the byte-order mark that some editors and .NET put before UTF-8; no JSON begins so."""
    return body[3:] if body[:3] == codecs.BOM_UTF8 else body


def _separators(envelope: Envelope | BatchEnvelope) -> int:
    """The colons outside the rows of a body that has each key once, and none that says what its default is."""
    uri = envelope.model_uri
    return 1 + envelope.return_proba + (0 if uri is None else 1 + uri.count(":"))


def read_row(envelope: Envelope, model: Classifier, max_keys: int) -> Table:
    """The row of a request as its model scores it.

    Parameters
    ----------
    envelope : Envelope
    model : Classifier
    max_keys : int
        Keys that it may have, as `most_keys` takes it.

    Returns
    -------
    ndarray of shape (1, n_features) or DataFrame

    Raises
    ------
    RequestError
        422: it is no object, or has too many keys.
    FeatureError
        A feature of it is refused, or named more than once.
    """
    spec = model.features
    row = bytes(envelope.features)
    if spec is None or spec.reader is None or row.count(b":") != spec.reader.colons:
        require_unique_rows([row], most_keys(model, max_keys))
    if spec is not None and spec.reader is not None and (matrix := spec.reader.one(row)) is not None:
        return matrix
    features = _decode(_rebuilt(b"features", row), _predict_decoder, model).features
    return model.table(_bounded(model, [features], max_keys))


def read_rows(envelope: BatchEnvelope, model: Classifier, max_rows: int, max_keys: int) -> Table:
    """The rows of a request as their model scores them; as `read_row`.

    Raises
    ------
    RequestError
        413: there are more than `max_rows`; 422: there is none, or one is no object.
    FeatureError
    """
    spec, body = model.features, bytes(envelope.features_list)
    if spec is not None and spec.reader is not None:
        rows = spec.reader.many(body)
        if rows is not None and 0 < len(rows) <= max_rows:
            if body.count(b":") != len(rows) * spec.reader.colons:
                require_unique_rows(map(bytes, _raw_rows(body)), most_keys(model, max_keys))
            return rows
    try:
        raw = _raw_rows(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raw = []  # the next step says what is wrong
    if len(raw) > max_rows:
        raise too_many_rows(max_rows)
    require_unique_rows(map(bytes, raw), most_keys(model, max_keys))
    return model.table(
        _bounded(model, _decode(_rebuilt(b"features_list", body), _batch_decoder, model).features_list, max_keys)
    )


def _bounded(model: Classifier, rows: Sequence[Row], max_keys: int) -> Sequence[Row]:
    """Rows that are lists have as many columns as they have values; objects are counted by their keys."""
    if model.features is None and len(rows[0]) > max_keys:
        raise too_many_columns(max_keys)
    return rows


def read_row_identifiers(rows: msgspec.Raw, model: Classifier) -> dict[str, list[Any]]:
    """The identifiers of rows that `read_rows` has taken: name to one JSON value a row, of those that any row has."""
    names = [] if model.features is None else model.features.identifiers
    # a row that is no object has no identifiers
    listed = [row if isinstance(row, dict) else {} for row in _any_rows(rows)] if names else []
    return {name: [row.get(name) for row in listed] for name in names if any(name in row for row in listed)}


def most_keys(model: Classifier, max_keys: int) -> int:
    """How many keys a row of a model may have: `max_keys`, or twice as many as it has features, if that is more."""
    return max_keys if model.features is None else max(max_keys, 2 * len(model.features.names))


def too_many_rows(max_rows: int) -> RequestError:
    """The batch is larger than the server takes."""
    return RequestError(
        413,
        f"The batch has more rows than this server takes ({max_rows}): send it in parts, "
        "or raise deployment.api.limits.max_batch_rows.",
    )


def too_many_columns(max_columns: int) -> RequestError:
    """The table has more columns than the server takes."""
    return RequestError(
        422,
        f"The table has more columns than this server takes ({max_columns}): send the model's features only, or raise "
        "deployment.api.limits.max_row_keys.",
    )


def _rebuilt(key: bytes, value: bytes) -> bytes:
    return b'{"' + key + b'":' + value + b"}"


def _decode(body: bytes, decoder: msgspec.json.Decoder[T], model: Classifier | None = None) -> T:
    """Decode a body.

    Parameters
    ----------
    body : bytes
    decoder : msgspec.json.Decoder
    model : Classifier, optional
        What else is wrong with the rows by its features is said together with what cannot be read.

    Raises
    ------
    RequestError
        422: malformed JSON, or a missing, unknown or mistyped key. 415: it is UTF-16 or UTF-32.
    FeatureError
        422: a feature whose value is no number, text, boolean or null (a list, NaN, 1e999).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as e:
        _refuse_features(body, model)
        raise RequestError(422, _sentence(str(e), decoder.type)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        refuse_utf_16(body)
        _refuse_features(body, model)  # Python's own json writes NaN and Infinity, which JSON does not have
        if not _is_utf_8(body):
            raise RequestError(422, NOT_UTF_8) from None
        raise RequestError(
            422, "The body is not valid JSON: send one JSON object, without NaN, Infinity, comments or trailing commas."
        ) from None
    except RecursionError:
        raise RequestError(
            422, "The body is nested too deeply: features are numbers, text, booleans or null."
        ) from None


def _is_utf_8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _refuse_features(body: bytes, model: Classifier | None) -> None:
    """Name the features that made a body unreadable, where a more lenient reader can tell, and what else is wrong."""
    try:
        loose = json.loads(body)
        rows = loose["features_list"] if "features_list" in loose else [loose["features"]]
        problems = [
            Problem(i, name, problem)
            for i, row in enumerate(rows)
            for name, value in row.items()
            if (problem := _unreadable(value)) is not None
        ]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return
    if problems:
        raise _with_others(problems, rows, model)


def _with_others(problems: list[Problem], rows: list[Any], model: Classifier | None) -> FeatureError:
    """The error that names features that cannot be read, and what is wrong with the others, in the rows' order."""
    if model is None or model.features is None:
        return FeatureError(problems)
    try:
        model.table(rows)
    except FeatureError as e:
        unreadable = {(problem.row, problem.feature) for problem in problems}
        others = [problem for problem in e.problems if (problem.row, problem.feature) not in unreadable]
        total = max(e.total, len(problems) + len(others))
        found = sorted([*problems, *others], key=lambda problem: problem.row)
        return FeatureError(found, total, {*e.rows, *(problem.row for problem in problems)}, misspelt=e.misspelt)
    except Exception:  # rows that no JSON of the protocol makes
        return FeatureError(problems)
    return FeatureError(problems)


def _unreadable(value: object) -> str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "infinite or too large for float64"
    if isinstance(value, dict | list):
        return f"must be a number, text, boolean or null, not {'a list' if isinstance(value, list) else 'an object'}"
    return None


def _sentence(message: str, expected: type[msgspec.Struct]) -> str:
    """Msgspec's message in the contract's words: it may name keys, never values."""
    keys = ", ".join(f"'{name}'" for name in expected.__struct_fields__)
    match = _PATH.search(message)
    where = _place(match["path"]) if match else "the body"
    what = _PATH.sub("", message)
    if unknown := re.fullmatch(r"Object contains unknown field `(.*)`", what, re.S):
        close = get_close_matches(unknown[1], expected.__struct_fields__, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "."
        return f"The body has a key that this route does not know: it takes {keys}{hint}"
    if missing := re.fullmatch(r"Object missing required field `([^`]*)`", what):
        return f"The body lacks the key '{missing[1]}': it takes {keys}."
    if wrong := re.fullmatch(r"Expected `([^`]*)`, got `([^`]*)`", what):
        wanted = " or ".join(_TYPES.get(name, name) for name in wrong[1].split(" | "))
        return f"{where[0].upper()}{where[1:]} must be {wanted}, not {_TYPES.get(wrong[2], wrong[2])}."
    if "of length" in what:
        return f"{where[0].upper()}{where[1:]} must hold at least one row."
    return f"{where[0].upper()}{where[1:]} cannot be read: see the types in /docs."


def _place(path: str) -> str:
    """A path such as `$.features_list[3].x` in words; `[...]` stands for a key that msgspec does not name."""
    if path == "$":
        return "the body"
    top = re.match(r"\$\.(\w+)(?:\[(\d+)\])?(.*)", path)
    if top is None:
        return "the body"
    row = f" (row {top[2]})" if top[2] else ""
    return f"a value in '{top[1]}'{row}" if "[...]" in top[3] else f"'{top[1]}'{row}"
