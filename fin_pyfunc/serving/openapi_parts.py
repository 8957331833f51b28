"""What /openapi.json is put together from: one operation, and the content of bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from fin_pyfunc.serving.content_types import ARROW, CSV, PARQUET

Json = dict[str, Any]

#: A body that is no text.
BINARY: Json = {"schema": {"type": "string", "format": "binary"}}
REF = "#/components/schemas/{name}"
ANY = (429, 503)
GUARDED = (401, 403, *ANY)
SCORING = (*GUARDED, 404, 413, 415, 422, 500, 504)

#: With authentication on; without it, no route asks for one.
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "An API key or a JWT as `Authorization: Bearer …`."},
    "api-key": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "An API key in a header of its own.",
    },
}

ERRORS = {
    401: "No credential, or a wrong one.",
    403: "A model URI or an action that the policy does not allow.",
    404: "No such model, version, alias, run, experiment or route.",
    406: "None of the content types in `Accept` is one that the route answers in.",
    413: "The body or the batch is too large.",
    415: "The content type is not one that the route takes.",
    422: "Malformed JSON; a missing, unknown or mistyped key; a parameter out of its range; a feature that is missing, "
    "null where training had none, of the wrong type, NaN or infinite.",
    429: "The rate limit is reached; `Retry-After` says for how long.",
    500: "The estimator itself raised; the id in `X-Request-ID` finds the trace in the log.",
    503: "Not ready, draining, overloaded (with `Retry-After`), or MLflow is needed and does not answer.",
    504: "The request's time limit passed.",
}

HEADERS = {
    "X-Request-ID": (
        "The request's id: the caller's own, if it was sent and well formed.",
        "4f1c2d3e5b6a47988f0e1d2c3b4a5968",
    ),
    "X-Model-URI": ("The model that was asked.", "runs:/abc123def456/model"),
    "X-Model-ID": ("The immutable thing that the URI resolved to.", "models:/m-0123456789abcdef0123456789abcdef"),
    "X-Model-Backend": ("What computed the answer.", "native"),
    "Retry-After": ("Seconds to wait before asking again.", 1),
}
LINEAGE = ("X-Request-ID", "X-Model-URI", "X-Model-ID", "X-Model-Backend")

Content = Mapping[str, Json]


class Operation(NamedTuple):
    """One method of one path."""

    method: str
    path: str
    tag: str
    summary: str
    description: str
    answer: str
    content: Content
    errors: tuple[int, ...] = ()
    body: Content | None = None
    parameters: tuple[Json, ...] = ()
    headers: tuple[str, ...] = ("X-Request-ID",)
    #: Statuses that carry the same body as 200.
    also: Mapping[int, str] = {}


def json_content(kind: type[msgspec.Struct], shown: Mapping[str, Any]) -> Content:
    """Content of a JSON body of one of the schemas, with examples by their summary."""
    return {"application/json": {"schema": {"$ref": REF.format(name=kind.__name__)}} | examples_of(shown)}


def table_content(csv: str) -> Content:
    """Content of a body that is a table; only CSV can be shown."""
    return {ARROW: BINARY, PARQUET: BINARY, CSV: {"schema": {"type": "string"}, "example": csv}}


def examples_of(shown: Mapping[str, Any]) -> Json:
    if len(shown) == 1:
        return {"example": next(iter(shown.values()))}
    named = {title.lower().replace(" ", "-"): {"summary": title, "value": value} for title, value in shown.items()}
    return {"examples": named}


def query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}
