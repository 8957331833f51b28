"""The routes for operators, as /openapi.json describes them."""

from __future__ import annotations

from fin_pyfunc.serving.motion.schemas import (
    LoadedModels,
    ShadowRequest,
    ShadowState,
    StartRequest,
    StopList,
    StopRequest,
)
from fin_pyfunc.serving.openapi_parts import GUARDED, Operation, json_content

ADMIN_TYPES = (LoadedModels, StopRequest, StartRequest, StopList, ShadowRequest, ShadowState)

_ID = "models:/m-0123456789abcdef0123456789abcdef"
_STOP = {"name": "eurusd_rf", "reason": "Its limits were breached: ask the desk."}
_STOPPED = [_STOP | {"since": "2026-03-02T09:30:00+00:00", "by": "5f2b8c1d9e3a", "model_ids": [_ID]}]
_SHADOW = {"model_uri": "models:/eurusd_rf@challenger", "share": 0.5, "of": None}
_SEEN = _SHADOW | {
    "model_id": "models:/m-fedcba9876543210fedcba9876543210",
    "problem": None,
    "agreed": 990,
    "differed": {"1 -> 0": 10},
    "dropped": 0,
    "failed": 0,
    "waiting": 3,
    "max_difference": 0.21,
    "mean_difference": 0.013,
}
_LOADED = {
    "model_id": _ID,
    "run_id": "0123456789abcdef0123456789abcdef",
    "model_uris": ["models:/eurusd_rf@champion"],
    "is_default": True,
    "estimator": "sklearn.ensemble._forest.RandomForestClassifier",
    "backends": ["onnx", "native"],
    "plan": [{"from_rows": 1, "backend": "onnx"}],
    "bytes": 1234567,
    "hits": 1000,
    "loaded_at": "2026-03-02T09:00:00.000+00:00",
    "stopped": None,
    "pid": None,
    "outage": None,
}
_EVERYTHING = {"worker": 4711, "models": [_LOADED], "stopped": [], "kept": True, "rejected": [], "shadow": _SEEN}
_TAKING = (*GUARDED, 413, 415, 422)

ADMIN_OPERATIONS = (
    Operation(
        "get",
        "/admin/models",
        "Operators",
        "What is loaded",
        "The models in the memory of the worker that answers, what is stopped, versions that stay out and why, and the "
        "shadow with its counts so far.",
        "What the worker has in memory.",
        json_content(LoadedModels, {"One model": _EVERYTHING}),
        errors=GUARDED,
    ),
    Operation(
        "post",
        "/admin/models/stop",
        "Operators",
        "Stop a model",
        "Everything that the name leads to, however it is asked for, is answered 503 with the reason by every worker, "
        "from before this is answered on; a request under way then is one of them. With `admin.state_file` it outlives "
        "the server.",
        "Everything that is stopped now.",
        json_content(StopList, {"One stop": {"stopped": _STOPPED, "kept": True}}),
        errors=_TAKING,
        body=json_content(StopRequest, {"A registered model": _STOP}),
    ),
    Operation(
        "post",
        "/admin/models/start",
        "Operators",
        "Let a model answer again",
        "The name is the one that it was stopped by.",
        "Everything that is still stopped.",
        json_content(StopList, {"Nothing": {"stopped": [], "kept": True}}),
        errors=(*_TAKING, 404),
        body=json_content(StartRequest, {"A registered model": {"name": "eurusd_rf"}}),
    ),
    Operation(
        "post",
        "/admin/shadow",
        "Operators",
        "Put a model in the shadow",
        "From then on it sees a share of the requests after they have been answered, in every worker, until the server "
        "ends or its settings of the shadow are changed; `model_uri` null is none.",
        "The shadow of the worker that answers.",
        json_content(ShadowState, {"Half of the requests": _SEEN}),
        errors=(*_TAKING, 404),
        body=json_content(ShadowRequest, {"Half of the requests": _SHADOW}),
    ),
)
