"""What /openapi.json is put together from: one operation, and the content of bodies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from fin_pyfunc.serving.content_types import ARROW, CSV, PARQUET

Json = dict[str, Any]

REF = "#/components/schemas/{name}"
ANY = (429, 503)
GUARDED = (401, 403, *ANY)
SCORING = (*GUARDED, 404, 413, 415, 422, 500, 504)

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
    return {ARROW: {}, PARQUET: {}, CSV: {"schema": {"type": "string"}, "example": csv}}


def examples_of(shown: Mapping[str, Any]) -> Json:
    if len(shown) == 1:
        return {"example": next(iter(shown.values()))}
    named = {title.lower().replace(" ", "-"): {"summary": title, "value": value} for title, value in shown.items()}
    return {"examples": named}


def query(name: str, description: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "description": description, "schema": schema}
