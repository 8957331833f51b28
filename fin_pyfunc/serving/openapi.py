"""/openapi.json, made from the types that decode the requests: one table of routes and its helpers."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

import msgspec

from fin_pyfunc.serving import openapi_examples as examples
from fin_pyfunc.serving.content_types import CSV, PARQUET
from fin_pyfunc.serving.motion.openapi import ADMIN_OPERATIONS, ADMIN_TYPES
from fin_pyfunc.serving.openapi_model import show_model
from fin_pyfunc.serving.openapi_parts import (
    ANY,
    BINARY,
    ERRORS,
    GUARDED,
    HEADERS,
    LINEAGE,
    REF,
    SCORING,
    SECURITY,
    Content,
    Json,
    Operation,
    examples_of,
    json_content,
    query,
    table_content,
)
from fin_pyfunc.serving.schemas import (
    BatchRequest,
    BatchResponse,
    Error,
    Health,
    ModelInfo,
    ModelList,
    PredictRequest,
    PredictResponse,
    Root,
)

BODIES = (PredictRequest, PredictResponse, BatchRequest, BatchResponse, Health, ModelList, ModelInfo, Error, Root)
TYPES = (*BODIES, *ADMIN_TYPES)

TAGS = {
    "Prediction": "The class of one row or of many, with its probability and confidence.",
    "Models": "Which models can be asked.",
    "Operators": "What is loaded, the kill switch and the shadow: for a credential with the scope `admin`, or "
    "over the server's admin socket.",
    "Health": "For load balancers and orchestrators.",
    "MLflow": "MLflow's own scoring protocol, for the server's default model.",
    "About": "Where to go from here.",
}

MODEL_URI_SCHEMA: Json = {"type": "string", "examples": [examples.RUN["model_uri"]]}

#: MLflow's own bodies, which MLflow decodes and encodes.
INVOCATIONS_SCHEMA: Json = {
    "type": "object",
    "properties": {
        "dataframe_split": {"type": "object", "description": "`columns`, `data` and, optionally, `index`."},
        "dataframe_records": {"type": "array", "items": {"type": "object"}},
        "instances": {"description": "Rows as TensorFlow Serving takes them."},
        "inputs": {"description": "Columns as TensorFlow Serving takes them."},
        "params": {"type": "object", "description": "Inference parameters of the model's signature."},
    },
    "oneOf": [{"required": [key]} for key in ("dataframe_split", "dataframe_records", "instances", "inputs")],
}
ANSWER_SCHEMA: Json = {
    "type": "object",
    "properties": {"predictions": {"type": "array", "items": {}}},
    "required": ["predictions"],
}

HEALTH = json_content(Health, examples.HEALTH_EXAMPLES)
UNHEALTHY = {503: "Nothing can be scored."}
NOT_READY = {503: "The default model has not scored its warm-up row yet, or the server is draining."}
PING: Content = {"application/json": {"schema": {"type": "string"}, "example": "\n"}}

OPERATIONS = (
    Operation(
        "post",
        "/predict",
        "Prediction",
        "Classify one row",
        "The class of one row of features. `confidence` is worked out from the probability of the predicted class "
        "whether or not probabilities are asked for.",
        "The predicted class.",
        json_content(PredictResponse, examples.PREDICTED),
        errors=SCORING,
        body=json_content(PredictRequest, examples.PREDICT),
        headers=LINEAGE,
    ),
    Operation(
        "post",
        "/predict/batch",
        "Prediction",
        "Classify many rows",
        "All or nothing: one bad row refuses the batch, and every bad row is named by its index. The answer for a row "
        "never depends on the rows beside it. Rows come as JSON, or, faster, as a table with a column a feature: "
        "an Arrow IPC stream, Parquet, or CSV (UTF-8, a header line, an empty cell is null). Then `model_uri` and "
        "`return_proba` go in the query string. `Accept` says what to answer in, whichever the rows came as.",
        "The predicted class of each row, in the order of the request. A table has the identifiers that were sent, "
        "`prediction` and `confidence`, and with `return_proba` also `probability` and one `probability_<label>` a "
        "class.",
        {**json_content(BatchResponse, examples.BATCHED), **table_content(examples.BATCHED_CSV)},
        errors=(*SCORING, 406),
        body={**json_content(BatchRequest, examples.BATCH), **table_content(examples.CSV)},
        parameters=(
            query(
                "model_uri",
                "The model to ask, where the body is a table. Default: the server's default model.",
                MODEL_URI_SCHEMA,
            ),
            query(
                "return_proba",
                "Answer with probabilities, where the body is a table.",
                {"type": "boolean", "default": False},
            ),
        ),
        headers=LINEAGE,
    ),
    Operation(
        "get",
        "/models",
        "Models",
        "List the logged models",
        "One entry a run that has a logged model, newest first. Tags that MLflow sets for itself are left out.",
        "The runs of the experiment that have a model.",
        json_content(ModelList, examples.MODELS),
        errors=(*GUARDED, 404, 422, 504),
        parameters=(
            query(
                "experiment_name",
                "The experiment to list. Default: the one the server is configured with.",
                {"type": "string", "examples": ["financial_ml"]},
            ),
            query(
                "limit",
                "How many entries at most.",
                {"type": "integer", "minimum": 1, "maximum": 1000, "default": 100},
            ),
            query(
                "names",
                "Add the key `registered`: what each run's models are registered as.",
                {"type": "boolean", "default": False},
            ),
        ),
    ),
    Operation(
        "get",
        "/models/info",
        "Models",
        "Describe a model",
        "What the model takes (features in training order, their types, nulls, ranges and categories), what it answers "
        "(classes, thresholds of the confidence), what computes it, and where it came from. For those who may ask the "
        "model: it is loaded as `/predict` loads it.",
        "The model.",
        json_content(ModelInfo, {"The model of a run": examples.INFO}),
        errors=(*GUARDED, 404, 422, 500, 504),
        parameters=(query("model_uri", "The model. Default: the server's default model.", MODEL_URI_SCHEMA),),
        headers=LINEAGE[:3],
    ),
    Operation(
        "get",
        "/health",
        "Health",
        "Whether this worker can score",
        "`healthy`: can score, and MLflow answers. `degraded`: MLflow does not answer, but at least one model is in "
        "memory and scores. `unhealthy`: nothing can be scored. It never waits for MLflow. With authentication on, a "
        "caller without a valid credential is told the status only, here and below.",
        "Healthy or degraded.",
        HEALTH,
        also=UNHEALTHY,
    ),
    Operation(
        "get",
        "/health/live",
        "Health",
        "Whether the process is alive",
        "200 as long as the event loop turns.",
        "Alive.",
        HEALTH,
    ),
    Operation(
        "get",
        "/health/ready",
        "Health",
        "Whether to send requests here",
        "200 once the default model, if there is one, has scored its warm-up row.",
        "Ready.",
        HEALTH,
        also=NOT_READY,
    ),
    Operation(
        "post",
        "/invocations",
        "MLflow",
        "Score rows in MLflow's own protocol",
        "Rows for the default model as JSON (`dataframe_split`, `dataframe_records`, `instances` or `inputs`), "
        "CSV with a header line, or Parquet. `params` holds inference parameters such as `return_proba`.",
        "One record a row.",
        {"application/json": {"schema": ANSWER_SCHEMA, "example": examples.ANSWER}},
        errors=SCORING,
        body={
            "application/json": {"schema": INVOCATIONS_SCHEMA} | examples_of(examples.INVOCATIONS),
            CSV: {"schema": {"type": "string"}, "example": examples.CSV},
            PARQUET: BINARY,
        },
    ),
    Operation(
        "get",
        "/ping",
        "MLflow",
        "Whether the default model is loaded",
        "As MLflow answers it: an empty line.",
        "Loaded.",
        PING,
        errors=(404,),
    ),
    Operation(
        "head",
        "/ping",
        "MLflow",
        "Whether the default model is loaded, without a body",
        "The status of `GET /ping`.",
        "Loaded.",
        {},
    ),
    Operation(
        "get",
        "/version",
        "MLflow",
        "MLflow's version",
        "As MLflow answers it: the bare version number.",
        "The version of MLflow that serves.",
        {"application/json": {"schema": {"type": "string"}, "example": "3.17.2"}},
        errors=(401,),
    ),
    Operation(
        "get",
        "/metrics",
        "About",
        "What was counted, for Prometheus",
        "The numbers of all workers, in Prometheus's text format or, if `Accept` asks for it, in OpenMetrics; "
        "docs/operations.md lists them. There is no such route while `metrics.enabled` is false.",
        "Everything that was counted since the server started.",
        {
            "text/plain": {
                "schema": {"type": "string"},
                "example": "# TYPE fin_pyfunc_requests_total counter\n"
                'fin_pyfunc_requests_total{route="/predict",status="200",model="models:/m-0123"} 1.0\n',
            }
        },
        errors=(401, 403),
    ),
    Operation(
        "get",
        "/",
        "About",
        "Where to go from here",
        "The server's version and the paths of its documentation and health.",
        "The server's name card.",
        json_content(Root, {"Root": examples.ROOT}),
    ),
    *ADMIN_OPERATIONS,
)


def openapi(version: str, info: ModelInfo | None = None) -> Json:
    """Describe the HTTP API.

    Parameters
    ----------
    version : str
        Version of the server, for ``info.version``.
    info : ModelInfo, optional
        The default model, whose examples are shown; default the deployment guide's.

    Returns
    -------
    dict
        An OpenAPI 3.1 document, ready to be encoded as JSON; a new one each call.
    """
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _operation(operation)
    made: Json = {
        "openapi": "3.1.0",
        "info": {
            "title": "fin-pyfunc",
            "version": version,
            "summary": "Classifiers logged with MLflow, asked over HTTP.",
            "description": "Every error is `application/json` with a `detail` of one sentence that says what is wrong "
            "and what to do. A path that is not listed here is answered 404, a method that is not listed 405.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        # relative to this document, so that it holds behind a proxy's prefix too
        "servers": [{"url": ".", "description": "This server"}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": _schemas(),
            "responses": {str(status): _error(status) for status in ERRORS},
            "headers": {name: _header(*about) for name, about in HEADERS.items()},
            "parameters": {"X-Request-ID": _request_id()},
            "securitySchemes": SECURITY,
        },
    }
    made = deepcopy(made)  # some of its parts are shared by all documents, or stand in it twice
    if info is not None:
        show_model(made, info)
    return made


def _schemas() -> Json:
    """The types' schemas, with defaults in words: generators take a key that has a default for one that is required."""
    schemas = msgspec.json.schema_components(TYPES, ref_template=REF)[1]
    for schema in schemas.values():
        for about in schema["properties"].values():
            if (default := about.pop("default", None)) is not None:
                about["description"] = f"{about.get('description', '')} Default: {json.dumps(default)}.".strip()
    return schemas


def _operation(op: Operation) -> Json:
    headers = {name: _ref("headers", name) for name in op.headers}
    answers = {200: op.answer, **op.also}
    responses: Json = {str(status): _answer(text, headers, op.content) for status, text in answers.items()}
    responses |= {str(status): _ref("responses", str(status)) for status in op.errors}
    described: Json = {
        "operationId": _operation_id(op),
        "tags": [op.tag],
        "summary": op.summary,
        "description": op.description,
        "parameters": [*op.parameters, _ref("parameters", "X-Request-ID")],
    }
    # where authentication is off, no route wants a credential
    described["security"] = [{}, *({name: []} for name in SECURITY)] if 401 in op.errors else []
    if op.body is not None:
        described["requestBody"] = {"required": True, "content": dict(op.body)}
    return described | {"responses": dict(sorted(responses.items()))}


def _operation_id(op: Operation) -> str:
    return "_".join([op.method, *(part for part in op.path.split("/") if part)] if op.path != "/" else ["get", "root"])


def _answer(text: str, headers: Json, content: Content) -> Json:
    return {"description": text, "headers": headers} | ({"content": dict(content)} if content else {})


def _error(status: int) -> Json:
    names = ("X-Request-ID", "Retry-After") if status in ANY else ("X-Request-ID",)
    return _answer(
        ERRORS[status],
        {name: _ref("headers", name) for name in names},
        json_content(Error, examples.REFUSALS[status]),
    )


def _header(description: str, example: Any) -> Json:
    kind = "integer" if isinstance(example, int) else "string"
    return {"description": description, "schema": {"type": kind}, "example": example}


def _request_id() -> Json:
    return {
        "name": "X-Request-ID",
        "in": "header",
        "description": "The caller's id for this request: it comes back, and finds a request that failed in the log.",
        "schema": {"type": "string"},
    }


def _ref(kind: str, name: str) -> Json:
    return {"$ref": f"#/components/{kind}/{name}"}
