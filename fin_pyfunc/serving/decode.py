"""One typed decode of a request body; whatever is wrong with it, one sentence that names the key."""

from __future__ import annotations

import json
import math
import re
from difflib import get_close_matches
from typing import TypeVar

import msgspec

from fin_pyfunc.model.errors import FeatureError, Problem
from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.schemas import BatchRequest, PredictRequest

T = TypeVar("T", PredictRequest, BatchRequest)

predict_decoder = msgspec.json.Decoder(PredictRequest)
batch_decoder = msgspec.json.Decoder(BatchRequest)

_PATH = re.compile(r" - at `(?P<path>[^`]*)`$")
_KEY = re.compile(r"`(?P<key>[^`]*)`")
#: msgspec's names of JSON types, as the contract words them.
_TYPES = {
    "int": "an integer", "float": "a number", "str": "text", "bool": "true or false", "object": "an object",
    "array": "a list", "null": "null",
}  # fmt: skip


def decode(body: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode a body.

    Raises
    ------
    RequestError
        422: malformed JSON, or a missing, unknown or mistyped key.
    FeatureError
        422: a feature whose value is no number, text, boolean or null (a list, NaN, 1e999).
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as e:
        _refuse_features(body)
        raise RequestError(422, _sentence(str(e), decoder.type)) from None
    except (msgspec.DecodeError, UnicodeDecodeError):
        _refuse_features(body)  # Python's own json writes NaN and Infinity, which JSON does not have
        raise RequestError(
            422, "The body is not valid JSON: send one JSON object, without NaN, Infinity, comments or trailing commas."
        ) from None
    except RecursionError:
        raise RequestError(
            422, "The body is nested too deeply: features are numbers, text, booleans or null."
        ) from None


def _refuse_features(body: bytes) -> None:
    """Name the features that made a body unreadable, where a more lenient reader can tell."""
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
        raise FeatureError(problems)


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
