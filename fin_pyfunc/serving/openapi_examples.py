"""What /openapi.json shows of bodies: the guide's own JSON, and the demo model's."""

from __future__ import annotations

from typing import Any

from fin_pyfunc._version import __version__

Json = dict[str, Any]

#: The guide's bars; DEMO is one with every feature of the demo model.
BARS = [
    {"bar_id": 12345, "bidPrice": 1.1, "askPrice": 1.1005},
    {"bar_id": 12346, "bidPrice": 1.1001, "askPrice": 1.1006},
]
BAR = BARS[0] | {"spread": 0.0005, "return_1": 0.001, "return_5": 0.002}
DEMO = {"bar_id": 12345, "bidPrice": 1.1, "askPrice": 1.10012, "spread": 0.00012, "return_1": 0.00002}
DEMO |= {"return_5": -0.0001, "order_flow_imbalance": 0.31, "volatility_20": 0.00011, "momentum_20": 0.0003}
RUN = {"model_uri": "runs:/abc123def456/model"}
CHAMPION = {"model_uri": "models:/eurusd_rf@champion"}
PREDICT = {
    "The demo model": CHAMPION | {"features": DEMO, "return_proba": True},
    "The model of a run": RUN | {"features": BAR, "return_proba": True},
    "The default model": {"features": DEMO},
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
    "The demo model": CHAMPION | {"features_list": [DEMO, DEMO | {"bar_id": 12346}], "return_proba": True},
    "The model of a run": RUN | {"features_list": BARS, "return_proba": False},
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
    "prediction,probability,confidence,probability_-1,probability_0,probability_1\n"
    "1,0.85,high,0.05,0.1,0.85\n-1,0.62,medium,0.62,0.2,0.18\n"
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
ROOT = {"message": "fin_pyfunc serves MLflow classifiers", "version": __version__, "docs": "/docs", "health": "/health"}
CSV = ",".join(DEMO) + "\n" + ",".join(map(str, DEMO.values())) + "\n"
INVOCATIONS = {
    "Split": {
        "dataframe_split": {"columns": list(DEMO), "data": [list(DEMO.values())]},
        "params": {"return_proba": True},
    },
    "Records": {"dataframe_records": [DEMO]},
}
ANSWER = {"predictions": [{"prediction": 1, "probability": 0.85, "confidence": "high"}]}
#: A sentence as each status would carry it.
REFUSALS: dict[int, dict[str, Json]] = {
    401: {"No credential": {"detail": "This request has no credential; send an API key."}},
    403: {"Not allowed": {"detail": "This server does not load models of this kind; ask its operator to allow it."}},
    404: {"No such model": {"detail": "There is no such model version; list the models with GET /models."}},
    405: {"Wrong method": {"detail": "This route does not take this method; it takes POST."}},
    406: {"Accept": {"detail": "None of the content types in 'Accept' is one of this route's; ask for text/csv."}},
    413: {"Too large": {"detail": "The batch has more rows than this server takes; send it in parts."}},
    415: {"Content type": {"detail": "The content type is not one of this route; send application/json."}},
    422: {
        "Feature missing": {
            "detail": "Refused: feature 'spread' is missing; 'fin-pyfunc inspect' shows what the model takes.",
            "errors": [{"row": 0, "feature": "spread", "problem": "missing"}],
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
