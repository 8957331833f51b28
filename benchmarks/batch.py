"""Point 3: 5,000 rows in one request, as JSON, an Arrow stream, Parquet and CSV."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.blocks import median_seconds
from benchmarks.contenders import MLFLOW, OURS, compact, serving
from benchmarks.drive import median_latency
from benchmarks.http_client import ask, request
from benchmarks.models import Models
from benchmarks.row import Row, ratios
from benchmarks.servers import Running

ROWS = 5000
ARROW, PARQUET, CSV = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet", "text/csv"
#: Requests, or calls in this process, whose median is one round.
CALLS = 7
PARSE, ESTIMATOR = "orjson parses the JSON", "the estimator's own predict_proba on the matrix"
MLSERVER = "MLServer, a flat array as JSON"


class Way(NamedTuple):
    """One way to ask: the server, the whole request, and what reads the classes out of the answer's body."""

    server: str
    sent: bytes
    labels: Callable[[bytes], list[Any]]


def measure(bench: Bench) -> list[Row]:
    """Every way in turn over one connection, and in between what the estimator itself takes in this process."""
    models = bench.models
    ways = _ways(models)
    calls = _calls(models)
    rows, expected = models.records(), models.expected("forest")
    with contextlib.ExitStack() as stack:
        servers: dict[str, Running] = {}
        chosen = [contenders.ours(models.ours["forest"]), contenders.mlflow(models.theirs["forest"])]
        for contender in [*chosen, *_mlserver(bench, ways)]:
            print(f"  starting {contender.name}", flush=True)
            servers[contender.name] = stack.enter_context(serving(contender, models, rows, expected))
        labels = models.expected("forest", ROWS)
        refused = {name: _refusal(servers[way.server].port, way, labels) for name, way in ways.items()}
        found: dict[str, list[float]] = {name: [] for name in (*calls, *ways)}
        for i in range(bench.rounds):
            print(f"  round {i + 1} of {bench.rounds}", flush=True)
            for name in turn([*calls, *(name for name in ways if not refused[name])], i):
                if name in calls:
                    found[name].append(median_seconds(calls[name], CALLS) * 1e3)
                else:
                    found[name].append(median_latency(servers[ways[name].server].port, ways[name].sent, CALLS))
    return _rows(found, refused)


def _calls(models: Models) -> dict[str, Callable[[], Any]]:
    """What is measured in this process."""
    import orjson

    body, matrix = compact({"features_list": models.records(ROWS)}), models.frame(ROWS).to_numpy()
    estimator = models.on_matrix("forest")
    return {PARSE: lambda: orjson.loads(body), ESTIMATOR: lambda: estimator.predict_proba(matrix)}


def _ways(models: Models) -> dict[str, Way]:
    import pandas as pd
    import pyarrow as pa
    import pyarrow.parquet

    frame, records = models.frame(ROWS), models.records(ROWS)
    table = pa.Table.from_pandas(frame, preserve_index=False)
    stream, parquet = io.BytesIO(), io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    pa.parquet.write_table(table, parquet)
    split = {"columns": list(frame.columns), "data": frame.to_numpy().tolist()}

    def json_labels(answer: bytes) -> list[Any]:
        labels: list[Any] = json.loads(answer)["predictions"]
        return labels

    def typed(body: bytes, kind: str, read: Callable[[bytes], Any]) -> Way:
        sent = request("/predict/batch", body, kind, accept=kind)
        return Way(OURS, sent, lambda answer: read(answer)["prediction"].to_numpy().tolist())

    def ours(**more: bool) -> Way:
        return Way(OURS, request("/predict/batch", compact({"features_list": records, **more})), json_labels)

    return {
        "JSON": ours(),
        "JSON with probabilities": ours(return_proba=True),
        "Arrow stream": typed(stream.getvalue(), ARROW, lambda body: pa.ipc.open_stream(body).read_all()),
        "Parquet": typed(parquet.getvalue(), PARQUET, lambda body: pa.parquet.read_table(io.BytesIO(body))),
        "CSV": typed(frame.to_csv(index=False).encode(), CSV, lambda body: pd.read_csv(io.BytesIO(body))),
        f"{MLFLOW}, JSON": Way(MLFLOW, request("/invocations", compact({"dataframe_split": split})), json_labels),
    }


def _mlserver(bench: Bench, ways: dict[str, Way]) -> list[contenders.Contender]:
    """MLServer where it is asked for, its way added to the others."""
    from benchmarks.contenders import extras

    if "mlserver" not in bench.extras:
        return []
    try:
        contender = extras.prepare("mlserver")
    except extras.NotToBeHadError as e:
        bench.left_out["mlserver"] = str(e)
        return []
    body = extras.v2_request(bench.models.frame(ROWS).to_numpy().tolist())
    ways[MLSERVER] = Way(
        contender.name, request(contender.path, body), lambda answer: json.loads(answer)["outputs"][0]["data"]
    )
    return [contender]


def _refusal(port: int, way: Way, labels: list[Any]) -> str:
    """Empty where the answer holds the estimator's classes, else what is wrong with it."""
    status, answer = ask(port, way.sent)
    if status != 200:
        return f"answered with {status}"
    got = way.labels(answer)
    wrong = sum(a != b for a, b in zip(got, labels, strict=True))
    return f"{wrong} of {len(labels)} classes are not the estimator's" if wrong else ""


def _rows(found: dict[str, list[float]], refused: dict[str, str]) -> list[Row]:
    floor = [a + b for a, b in zip(found[PARSE], found[ESTIMATOR], strict=True)]

    def against(name: str, below: list[float], what: str, limit: float) -> Row:
        values = ratios(found[name], below) if found[name] else []
        return Row(3, f"{ROWS:,} rows, {name} to {what}", "×", values, at_most=limit, note=refused[name])

    estimator = "the estimator's own time on the matrix"
    lines = [
        against("JSON", floor, "orjson's parse and the estimator's own time on the matrix", 1.25),
        against("Arrow stream", found[ESTIMATOR], estimator, 1.2),
        against("Parquet", found[ESTIMATOR], estimator, 1.2),
    ]
    if found.get(MLSERVER):
        lines.append(against("JSON", found[MLSERVER], MLSERVER, 1))
    times = {name: values for name, values in found.items() if values}
    return lines + [
        Row(3, f"{ROWS:,} rows, {name}", "ms", values, note=refused.get(name, "")) for name, values in times.items()
    ]
