"""What /openapi.json shows of bodies where it knows no model: the deployment guide's own JSON."""

from __future__ import annotations

from typing import Any

from fin_pyfunc._version import __version__

Json = dict[str, Any]

#: The deployment guide's bars.
BARS = [
    {"bar_id": 12345, "bidPrice": 1.1, "askPrice": 1.1005},
    {"bar_id": 12346, "bidPrice": 1.1001, "askPrice": 1.1006},
]
BAR = BARS[0] | {"spread": 0.0005, "return_1": 0.001, "return_5": 0.002}
RUN = {"model_uri": "runs:/abc123def456/model"}
PREDICT = {
    "The default model": {"features": BAR},
    "The model of a run": RUN | {"features": BAR, "return_proba": True},
}
SCORED = {
    "prediction": 1,
    "probability": 0.85,
    "probabilities": {"-1": 0.05, "0": 0.1, "1": 0.85},
    "confidence": "high",
}
PREDICTED = {
    "With probabilities": SCORED,
    "Without probabilities": SCORED | {"probability": None, "probabilities": None},
}
BATCH = {
    "The default model": {"features_list": BARS},
    "The model of a run": RUN | {"features_list": BARS, "return_proba": True},
}
SPREAD_OUT = [{"-1": 0.05, "0": 0.1, "1": 0.85}, {"-1": 0.62, "0": 0.2, "1": 0.18}]
BATCHED = {
    "Without probabilities": {"predictions": [1, -1], "probabilities": None, "count": 2},
    "With probabilities": {
        "predictions": [1, -1],
        "probabilities": SPREAD_OUT,
        "count": 2,
        "confidences": ["high", "medium"],
    },
}
BATCHED_CSV = (
    "bar_id,prediction,probability,confidence,probability_-1,probability_0,probability_1\n"
    "12345,1,0.85,high,0.05,0.1,0.85\n12346,-1,0.62,medium,0.62,0.2,0.18\n"
)
UP = {"status": "healthy", "mlflow_connected": True, "gpu_available": False, "cached_models": 2}
HEALTH_EXAMPLES = {
    "Healthy": UP,
    "Degraded": UP | {"status": "degraded", "mlflow_connected": False},
    "Unhealthy": UP | {"status": "unhealthy", "mlflow_connected": False, "cached_models": 0},
}
LISTED: Json = {"model_uri": "runs:/abc123/model", "run_id": "abc123", "experiment_id": "1"}
LISTED |= {
    "metrics": {"accuracy": 0.85, "sharpe_ratio": 1.5},
    "params": {"n_estimators": 200},
    "tags": {"asset": "EURUSD"},
}
MODELS = {"One run": {"models": [LISTED], "count": 1}}
FEATURE: Json = {"name": "spread", "type": "number", "dtype": "float64", "nullable": False, "optional": False}
FEATURE |= {"training_min": 0.00001, "training_max": 0.0009, "categories": None}
INFO: Json = RUN | {"model_id": "models:/m-0123456789abcdef0123456789abcdef", "run_id": "abc123def456"}
INFO |= {
    "artifact_sha256": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "created": "2026-03-02T09:00:00+00:00",
    "estimator": "sklearn.ensemble._forest.RandomForestClassifier",
    "features": [FEATURE],
    "identifiers": ["bar_id"],
    "extra": "ignore",
    "classes": [-1, 0, 1],
    "has_probabilities": True,
    "thresholds": {"high": 0.8, "medium": 0.6},
    "backend": "trees",
    "backends": ["trees", "native"],
    "example": {
        "features": {"spread": 0.0005},
        "prediction": 1,
        "probabilities": SCORED["probabilities"],
    },
}
ROOT = {"message": "fin_pyfunc serves MLflow classifiers", "version": __version__, "docs": "/docs", "health": "/health"}
CSV = "bar_id,bidPrice,askPrice\n12345,1.1,1.1005\n12346,1.1001,1.1006\n"
INVOCATIONS = {
    "Split": {
        "dataframe_split": {"columns": list(BAR), "data": [list(BAR.values())]},
        "params": {"return_proba": True},
    },
    "Records": {"dataframe_records": [BAR]},
}
ANSWER = {"predictions": [{"prediction": 1, "probability": 0.85, "confidence": "high"}]}
#: A sentence as each status would carry it.
REFUSALS: dict[int, dict[str, Json]] = {
    401: {"No credential": {"detail": "This request has no credential; send an API key."}},
    403: {"Not allowed": {"detail": "This server does not load models of this kind; ask its operator to allow it."}},
    404: {"No such model": {"detail": "There is no such model version; list the models with GET /models."}},
    406: {"Accept": {"detail": "None of the content types in 'Accept' is one of this route's; ask for text/csv."}},
    413: {"Too large": {"detail": "The batch has more rows than this server takes; send it in parts."}},
    415: {"Content type": {"detail": "The content type is not one of this route; send application/json."}},
    422: {
        "Feature missing": {
            "detail": "Refused: 'Spread' is not a feature of the model (did you mean 'spread'?); "
            "GET /models/info?model_uri=… shows what the model takes.",
            "errors": [{"row": 0, "feature": "spread", "problem": "missing", "sent": "Spread"}],
        },
        "Malformed JSON": {"detail": "The body is not JSON; send a JSON object."},
    },
    429: {"Rate limit": {"detail": "Too many requests; ask again after the time in Retry-After."}},
    500: {
        "Estimator raised": {"detail": "Prediction failed: the model raised an error; tell its owner the X-Request-ID."}
    },
    503: {"MLflow is down": {"detail": "MLflow does not answer; try again later."}},
    504: {"Time limit": {"detail": "The request took longer than this server allows; send fewer rows."}},
}
