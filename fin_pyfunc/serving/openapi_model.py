"""Examples of /openapi.json for one model: requests that this server answers, and answers that the model gives."""

from __future__ import annotations

import json
from typing import Any

from fin_pyfunc.model.decision import Thresholds, label_names
from fin_pyfunc.serving.content_types import CSV, JSON
from fin_pyfunc.serving.openapi_parts import Json, examples_of
from fin_pyfunc.serving.schemas import ExampleInfo, FeatureInfo, ModelInfo

#: A value that a feature of each type takes, where the model has no example.
_VALUES: dict[str, Any] = {"number": 0.0, "integer": 0, "boolean": False, "string": "text", "any": 0.0}
_VALUES |= {"datetime": "2026-03-02T09:30:00"}


def show_model(document: Json, info: ModelInfo) -> None:
    """Put a model's own examples in the place of the general ones.

    Parameters
    ----------
    document : dict
        An OpenAPI document as `fin_pyfunc.serving.openapi` makes it; changed in place.
    info : ModelInfo
        The server's default model. One that says nothing of its features leaves the document as it is.
    """
    if info.features is None:
        return
    row = dict.fromkeys(info.identifiers, 1) | _row(info.features, info.example)
    requests: Json = {"The default model": {"return_proba": True}}
    if info.model_uri.startswith(("models:/", "runs:/")):  # a local path is the operator's, and no client may send it
        requests["The same model by its URI"] = {"model_uri": info.model_uri}
        for schema in _uri_schemas(document):
            schema["examples"] = [info.model_uri]
    paths, components = document["paths"], document["components"]
    predict, batch = paths["/predict"]["post"], paths["/predict/batch"]["post"]
    _show(predict["requestBody"], {title: {**of, "features": row} for title, of in requests.items()})
    _show(batch["requestBody"], {title: {**of, "features_list": [row]} for title, of in requests.items()})
    sent = f"{_csv(row)}\n{_csv(row.values())}\n"
    invocations = paths["/invocations"]["post"]
    for body in (batch["requestBody"], invocations["requestBody"]):
        body["content"][CSV]["example"] = sent
    split = {"columns": list(row), "data": [list(row.values())]}
    _show(invocations["requestBody"], {"Split": {"dataframe_split": split}, "Records": {"dataframe_records": [row]}})
    _show(paths["/models/info"]["get"]["responses"]["200"], {"The default model": info})
    components["schemas"]["PredictRequest"]["properties"]["features"]["examples"] = [row]
    for name, value in (("URI", info.model_uri), ("ID", info.model_id), ("Backend", info.backend)):
        components["headers"][f"X-Model-{name}"]["example"] = value
    if info.example is not None:
        _show_answers(document, info, row)


def _show_answers(document: Json, info: ModelInfo, row: Json) -> None:
    assert info.example is not None  # noqa: S101 - for the type checker
    label, p = info.example.prediction, info.example.probabilities
    probability = None if p is None else p[label_names([label])[0]]
    thresholds = Thresholds(high=info.thresholds.high, medium=info.thresholds.medium)
    confidence = "unknown" if probability is None else thresholds.confidence(probability)
    answer = {"prediction": label, "probability": probability, "probabilities": p, "confidence": confidence}
    without = {**answer, "probability": None, "probabilities": None}
    paths = document["paths"]
    shown = {"With probabilities": answer, "Without probabilities": without}
    _show(paths["/predict"]["post"]["responses"]["200"], shown)
    distributions = None if p is None else [p]
    many = {"predictions": [label], "probabilities": distributions, "count": 1, "confidences": [confidence]}
    batch = paths["/predict/batch"]["post"]["responses"]["200"]
    _show(batch, {"With probabilities": many})
    table = {name: row[name] for name in info.identifiers} | _record(answer)
    batch["content"][CSV]["example"] = f"{_csv(table)}\n{_csv(table.values())}\n"
    _show(paths["/invocations"]["post"]["responses"]["200"], {"One row": {"predictions": [_record(answer)]}})


def _record(answer: Json) -> Json:
    """An answer as one row of a table."""
    p: dict[str, float] | None = answer["probabilities"]
    if p is None:
        return {name: answer[name] for name in ("prediction", "confidence")}
    record = {name: answer[name] for name in ("prediction", "probability", "confidence")}
    return record | {f"probability_{name}": value for name, value in p.items()}


def _row(features: list[FeatureInfo], example: ExampleInfo | None) -> Json:
    if example is not None:
        return example.features
    return {each.name: each.categories[0] if each.categories else _VALUES.get(each.type) for each in features}


def _show(described: Json, shown: Json) -> None:
    content = described["content"][JSON]
    described["content"][JSON] = {"schema": content["schema"]} | examples_of(shown)


def _uri_schemas(document: Json) -> list[Json]:
    """Schemas of a model's URI, in bodies and in query strings."""
    bodies = [document["components"]["schemas"][name]["properties"] for name in ("PredictRequest", "BatchRequest")]
    operations = [document["paths"]["/predict/batch"]["post"], document["paths"]["/models/info"]["get"]]
    parameters = [each for operation in operations for each in operation["parameters"]]
    found: list[Json] = [body["model_uri"] for body in bodies]
    return found + [each["schema"] for each in parameters if each.get("name") == "model_uri"]


def _csv(values: Any) -> str:
    cells = ("" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values)
    return ",".join(f'"{cell.replace(chr(34), chr(34) * 2)}"' if set(cell) & set(',"\r\n') else cell for cell in cells)
