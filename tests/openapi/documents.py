"""The document of a server without a default model, and of one whose model has a feature of every type."""

from __future__ import annotations

from typing import Any

import msgspec

from fin_pyfunc.serving import openapi_examples
from fin_pyfunc.serving.openapi import openapi
from fin_pyfunc.serving.schemas import ModelInfo

TYPES = {"number": 1.1, "integer": 3, "boolean": True, "string": "EBS", "category": "EU", "any": None}


def described() -> ModelInfo:
    """A model of every type of feature, named by a URI that callers may send."""
    features = [
        openapi_examples.FEATURE | {"name": f"a {kind}", "type": kind, "categories": ["EU", 1, True]} for kind in TYPES
    ]
    example = {f"a {kind}": value for kind, value in TYPES.items()}
    info = openapi_examples.INFO | {
        "model_uri": "models:/eurusd_rf@champion",
        "features": features,
        "example": {"features": example, "prediction": -1, "probabilities": {"-1": 0.7, "0": 0.2, "1": 0.1}},
    }
    return msgspec.convert(info, ModelInfo)


def documents() -> dict[str, dict[str, Any]]:
    """By what the server's default model is, the document as a client reads it."""
    info = described()
    without = msgspec.structs.replace(info, example=None)
    models = {"no model": None, "a model": info, "a model without an example": without}
    return {name: msgspec.json.decode(msgspec.json.encode(openapi("1.2.3", of))) for name, of in models.items()}
