"""The bare one: an ASGI application that decodes, runs the forest in ONNX Runtime and encodes, and checks nothing.

It takes the features in the order they come in, trusts that all are numbers, and answers the four keys that
``POST /predict`` answers. What `fin-pyfunc serve` does more than this, it pays for. Needs ``BENCH_ONNX``, the file of
a float32 graph with the classes 0, 1, 2, …
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.models import onnx_session

_session = onnx_session(Path(os.environ["BENCH_ONNX"]))
_input, _outputs = _session.get_inputs()[0].name, [_session.get_outputs()[1].name]


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer any POST."""
    if scope["type"] != "http":
        raise RuntimeError("this application takes HTTP only")  # uvicorn then goes on without a lifespan
    message = await receive()
    body = message["body"]
    while message.get("more_body"):
        message = await receive()
        body += message["body"]
    row = np.array([list(orjson.loads(body)["features"].values())], dtype=np.float32)
    scores = _session.run(_outputs, {_input: row})[0][0].tolist()
    top = max(scores)
    answer = orjson.dumps(
        {
            "prediction": scores.index(top),
            "probability": None,
            "probabilities": None,
            "confidence": "high" if top >= 0.8 else "medium" if top >= 0.6 else "low",
        }
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
