"""Keys that a JSON object names more than once, of which decoders silently take one; and rows with too many keys."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np

from fin_pyfunc.model.errors import MAX_PROBLEMS, FeatureError, Problem
from fin_pyfunc.serving.errors import RequestError

_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_TOO_DEEP = "The body is nested too deeply: features are numbers, text, booleans or null."
#: How many times as many different keys all objects of one body may have as one may: rows have the same ones.
_DIFFERENT = 4
#: Beyond this, a body's columns are counted before it is decoded.
_LARGE_BYTES = 262_144
_TWICE = "The body names a key more than once: send each key once."


def require_unique(body: bytes) -> None:
    """Refuse a JSON object whose own keys are not each there once; what its values hold is not looked at.

    A key is followed by a colon, so with as many colons outside the values as there are different keys, each is there
    once.

    Raises
    ------
    RequestError
        422.
    """
    values = _object(body)
    if body.count(b":") - sum(bytes(value).count(b":") for value in values.values()) != len(values):
        raise RequestError(422, _TWICE)


def require_unique_rows(rows: Iterable[bytes], max_keys: int) -> None:
    """Refuse rows that name a key more than once, or more keys than there may be.

    Parameters
    ----------
    rows : iterable of bytes
        JSON; one that is no object is left to whoever reads it.
    max_keys : int

    Raises
    ------
    RequestError, FeatureError
        422.
    """
    problems: list[Problem] = []
    for i, row in enumerate(rows):
        if len(problems) <= MAX_PROBLEMS:
            problems += [Problem(i, name, "given more than once") for name in _doubled(row, max_keys)]
    if problems:
        raise FeatureError(problems)


def decode_unique(body: bytes, max_keys: int) -> Any:
    """Decode JSON as `json.loads` does, unless any object in it names a key twice or has too many keys.

    Raises
    ------
    RequestError
        422; also where it is nested too deeply.
    ValueError
        It is not JSON.
    """
    if len(body) > _LARGE_BYTES:
        _require_few_columns(body, max_keys)
    pairs = _Pairs(max_keys)
    try:
        decoded = json.loads(body, object_pairs_hook=pairs)
    except RecursionError:
        raise RequestError(422, _TOO_DEEP) from None
    if pairs.doubled:
        raise RequestError(422, _TWICE)
    return decoded


def _require_few_columns(body: bytes, max_keys: int) -> None:
    """Count the keys of an object and of its members without decoding their values.

    A list for each of 200,000 columns would have the garbage collector go through all of the process time and again.
    """
    with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # whoever decodes it says what is wrong
        members = _object(body)
        for raw in (body, *map(bytes, members.values())):
            if raw.count(b":") >= max_keys and raw.lstrip().startswith(b"{") and len(_object(raw)) > max_keys:
                raise _too_many(max_keys)


class _Pairs:
    """Makes a dict of an object's pairs, and notes keys that are given twice."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys, self._names, self.doubled = max_keys, set[str](), list[str]()

    def __call__(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        self._names.update(made)
        if len(pairs) > self._max_keys or len(self._names) > _DIFFERENT * self._max_keys:
            raise _too_many(self._max_keys)
        if len(made) < len(pairs) and len(self.doubled) <= MAX_PROBLEMS:
            counts = Counter(name for name, _ in pairs)
            self.doubled += [name for name, n in counts.items() if n > 1 and name not in self.doubled]
            del self.doubled[MAX_PROBLEMS + 1 :]
        return made


def _doubled(row: bytes, max_keys: int) -> list[str]:
    """The keys that a row names more than once: told by counting, and read one by one only where that is not enough."""
    colons = row.count(b":")
    # colons within texts, such as those of a time, are no keys
    if is_exact := colons > max_keys:
        colons = _colons_outside_texts(row)
    if colons > max_keys:
        raise _too_many(max_keys)
    try:
        different = len(_object(row))
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return []
    except RecursionError:
        raise RequestError(422, _TOO_DEEP) from None
    if different == colons or (not is_exact and different == _colons_outside_texts(row)):
        return []
    pairs = _Pairs(max_keys)
    try:
        json.loads(row, object_pairs_hook=pairs)
    except RecursionError:
        raise RequestError(422, _TOO_DEEP) from None
    except ValueError:
        return []
    return pairs.doubled


def _colons_outside_texts(row: bytes) -> int:
    """How many of a JSON value's colons follow a key: those with an even number of quotes before them."""
    if b"\\" in row:
        row = row.replace(b"\\\\", b"").replace(b'\\"', b"")  # now each quote begins or ends a text
    read = np.frombuffer(row, np.uint8)
    quotes = np.cumsum(read == ord('"'), dtype=np.uint8)  # which may begin anew at 0: only whether it is odd counts
    return int(np.count_nonzero((read == ord(":")) & (quotes & 1 == 0)))


def _too_many(max_keys: int) -> RequestError:
    return RequestError(
        422,
        f"A row has more keys than this server takes ({max_keys}): send the model's features only, "
        "or raise deployment.api.limits.max_row_keys.",
    )
