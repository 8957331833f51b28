"""What a request to `/predict/batch` brings and what it wants back: its content type, `Accept` and query string."""

from __future__ import annotations

import codecs
import re
from urllib.parse import parse_qsl

from starlette.types import Scope

from fin_pyfunc.serving.errors import RequestError
from fin_pyfunc.serving.http import header

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
PARQUET = "application/vnd.apache.parquet"
CSV = "text/csv"
#: What carries rows as a table: in the body of a request, or of an answer.
TABLE_TYPES = (ARROW, PARQUET, CSV)
BATCH_TYPES = (JSON, *TABLE_TYPES)
#: RFC 9110, 12.4.2: a weight from 0 to 1 with at most three decimals.
_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
#: How UTF-8 is called, and its part that has one byte a character.
_UTF_8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})
NOT_UTF_8 = "The body is not UTF-8, the one encoding that text is read in here: encode it as UTF-8."
_BOOLEANS = {"true": True, "false": False}


def media_type(scope: Scope) -> str:
    """The content type of a request in lower case, without parameters; empty where it has none.

    Raises
    ------
    RequestError
        415: its parameter `charset` is not UTF-8.
    """
    sent = header(scope, b"content-type") or b""
    if sent == b"application/json":
        return JSON
    if any(name == "charset" and value not in _UTF_8 for name, value in parameters(scope)):
        raise RequestError(415, NOT_UTF_8)
    return sent.partition(b";")[0].strip().lower().decode("latin-1")


def parameters(scope: Scope) -> list[tuple[str, str]]:
    """Names and values of the parameters of a request's content type, in lower case."""
    _, *parts = (header(scope, b"content-type") or b"").decode("latin-1").lower().split(";")
    pairs = (part.partition("=") for part in parts if part.strip())
    return [(name.strip(), value.strip().strip('"')) for name, _, value in pairs]


def require_json(scope: Scope) -> None:
    """Refuse a body that does not say it is JSON."""
    if media_type(scope) != JSON:
        raise RequestError(415, "The body must be JSON: send it with the header 'Content-Type: application/json'.")


def refuse_utf_16(body: bytes) -> None:
    """Refuse a text in UTF-16 or UTF-32, as far as its first characters tell.

    Raises
    ------
    RequestError
        415.
    """
    if b"\0" in body[:4] or body.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise RequestError(415, NOT_UTF_8)


def accepted(scope: Scope) -> str:
    """The content type to answer in.

    The one that `Accept` gives the greatest weight; among equals one that it names goes before one that a wildcard
    lets in, then JSON before the others. Without the header: JSON.

    Raises
    ------
    RequestError
        406: it takes none of those there are.
    """
    sent = b",".join(value for key, value in scope["headers"] if key == b"accept").decode("latin-1").lower()
    if not sent.strip(" ,"):
        return JSON
    ranges = dict(_weighed(part) for part in sent.split(","))
    best, chosen = (0.0, 0), None
    for kind in BATCH_TYPES:
        # the most specific range that fits decides, however it is weighed (RFC 9110, 12.5.1)
        fitting = (kind, f"{kind.partition('/')[0]}/*", "*/*")
        weight, exact = next(((ranges[name], -i) for i, name in enumerate(fitting) if name in ranges), (0.0, 0))
        if weight and (chosen is None or (weight, exact) > best):
            best, chosen = (weight, exact), kind
    if chosen is None:
        raise RequestError(406, f"None of the content types in 'Accept' is one of this route's: {_listed()}.")
    return chosen


def query(scope: Scope) -> tuple[str | None, bool]:
    """`model_uri` and `return_proba` of the query string, where the body is a table and has no room for them.

    Raises
    ------
    RequestError
        422: another key, one there more than once, or a `return_proba` that is neither true nor false.
    """
    try:
        pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    except ValueError:
        pairs = [("", "")]  # more fields than Python reads, or not UTF-8
    values = dict(pairs)
    if set(values) - {"model_uri", "return_proba"} or len(values) < len(pairs):
        raise RequestError(
            422,
            "This route takes the query parameters 'model_uri' and 'return_proba' only, each at most once, and where "
            "the body is JSON it holds them itself.",
        )
    # Python's own str(True) is what its HTTP clients send
    return_proba = _BOOLEANS.get(values.get("return_proba", "false").lower())
    if return_proba is None:
        raise RequestError(422, "The query parameter 'return_proba' must be true or false.")
    return values.get("model_uri"), return_proba


def refuse_model_in_query(scope: Scope, instead: str) -> None:
    """Refuse a model that is named where it would be ignored, and another one answer; and `return_proba` there.

    Raises
    ------
    RequestError
        422: the query string has the key `model_uri` or `return_proba`.
    """
    sent = scope.get("query_string")
    if sent and b"model_uri" in sent:
        raise RequestError(422, f"This request names its model in the query string, where it is not read: {instead}.")
    if sent and b"return_proba" in sent:
        raise RequestError(
            422,
            "This request has 'return_proba' in the query string, where it is not read: put it into the JSON body, as "
            "the key 'return_proba' (in 'params' for /invocations).",
        )


def unsupported() -> RequestError:
    """The 415 that names the content types there are."""
    return RequestError(415, f"Send the rows with one of the content types {_listed()}.")


def _listed() -> str:
    return f"{', '.join(BATCH_TYPES[:-1])} or {BATCH_TYPES[-1]}"


def _weighed(part: str) -> tuple[str, float]:
    """One range of an `Accept` header and its weight; one whose weight cannot be read counts for nothing."""
    name, *parameters = (word.strip() for word in part.split(";"))
    weights = [word.partition("=")[2].strip() for word in parameters if word.partition("=")[0].strip() == "q"]
    if not weights:
        return name, 1.0
    return name, float(weights[0]) if _WEIGHT.fullmatch(weights[0]) else 0.0
