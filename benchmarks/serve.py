"""Start-up and single-row requests of `fin-pyfunc serve` beside `mlflow models serve`, on the same forest.

    python -m benchmarks.serve

One server runs at a time, with one worker, and the client is on the same machine. Writes results/serve.md and
results/serve.json beside this file.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Hashable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.http_client import HOST, first_answer, load, request

RESULTS = Path(__file__).with_name("results")
TREES, FEATURES, CLASSES, TRAIN_ROWS = 200, 20, 3, 5000
CONNECTIONS = (1, 16)
#: Different rows that are sent in turn.
N_ROWS = 64
#: Requests before a measurement, which is of a server that has settled.
WARM_UP_SECONDS = 1.0
START_SECONDS, STOP_SECONDS = 180.0, 20.0
LIBRARIES = ("fin_pyfunc", "mlflow", "scikit-learn", "numpy", "pandas", "uvicorn", "gunicorn")


class Candidate(NamedTuple):
    """A server to measure: how it is started, and what it is asked."""

    name: str
    command: list[str]
    requests: list[bytes]


class Measured(NamedTuple):
    """One round of one server: seconds to the first answer, and by connections requests/s and latencies in ms."""

    start_up: float
    rates: dict[int, float]
    p50: dict[int, float]
    p99: dict[int, float]


def log_models(tracking_uri: str, artifacts: Path) -> tuple[str, str, list[dict[Hashable, Any]]]:
    """Fit one forest, log it both ways, and draw rows to ask about."""
    import mlflow
    import pandas as pd
    from mlflow.models import infer_signature
    from sklearn.datasets import make_classification
    from sklearn.ensemble import RandomForestClassifier

    import fin_pyfunc

    X, y = make_classification(TRAIN_ROWS, FEATURES, n_informative=10, n_classes=CLASSES, random_state=0)
    frame = pd.DataFrame(X, columns=[f"f{i}" for i in range(FEATURES)])
    forest = RandomForestClassifier(TREES, random_state=0, n_jobs=-1).fit(frame, y)
    forest.set_params(n_jobs=None)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_experiment(experiment_id=mlflow.create_experiment("benchmark", artifact_location=artifacts.as_uri()))
    with mlflow.start_run():
        ours = fin_pyfunc.log_model(forest, frame)
    with mlflow.start_run():
        theirs = mlflow.sklearn.log_model(
            forest, name="model", serialization_format="cloudpickle", signature=infer_signature(frame)
        )
    return ours.model_uri, theirs.model_uri, frame.head(N_ROWS).to_dict("records")


def candidates(ours: str, theirs: str, rows: list[dict[Hashable, Any]]) -> list[Candidate]:
    """Both servers, with one worker each."""
    python = [sys.executable, "-m"]
    return [
        Candidate(
            "fin-pyfunc serve",
            [*python, "fin_pyfunc_cli", "serve", "-m", ours, "--workers", "1", "--log-level", "warning"],
            [request("/predict", json.dumps({"features": row}).encode()) for row in rows],
        ),
        Candidate(
            "mlflow models serve",
            [*python, "mlflow", "models", "serve", "-m", theirs, "--env-manager", "local", "--workers", "1"],
            [request("/invocations", json.dumps({"dataframe_records": [row]}).encode()) for row in rows],
        ),
    ]


@contextlib.contextmanager
def running(candidate: Candidate, folder: Path, tracking_uri: str) -> Iterator[tuple[int, float]]:
    """Start a server in a process group of its own, and end that group afterwards.

    Yields
    ------
    tuple of (int, float)
        Its port, and the seconds from the start of the process to the first 200 for a prediction.
    """
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("FIN_PYFUNC", "MLFLOW_"))}
    environ |= {"MLFLOW_TRACKING_URI": tracking_uri, "MLFLOW_DISABLE_TELEMETRY": "true"}
    # MLflow starts uvicorn by its name
    environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), environ.get("PATH", "")])
    log_file = folder / f"{port}.log"
    command = [*candidate.command, "--host", HOST, "--port", str(port)]
    with log_file.open("wb") as log:
        start = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        while not asyncio.run(first_answer(port, candidate.requests[0])):
            if process.poll() is not None or time.perf_counter() - start > START_SECONDS:
                raise RuntimeError(f"{candidate.name} did not start:\n{log_file.read_text()}")
            time.sleep(0.01)
        yield port, time.perf_counter() - start
    finally:
        end_group(process)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it started: asked first, then made to."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # whatever of the group is left
    process.wait()


def measure(candidate: Candidate, folder: Path, tracking_uri: str, seconds: float) -> Measured:
    """One round of one server."""
    rates, p50, p99 = {}, {}, {}
    with running(candidate, folder, tracking_uri) as (port, start_up):
        for connections in CONNECTIONS:
            asyncio.run(load(port, candidate.requests, connections, min(seconds, WARM_UP_SECONDS)))
            found = asyncio.run(load(port, candidate.requests, connections, seconds))
            cuts = statistics.quantiles(found.latencies, n=100, method="inclusive")
            rates[connections] = len(found.latencies) / found.seconds
            p50[connections], p99[connections] = cuts[49] * 1e3, cuts[98] * 1e3
    return Measured(start_up, rates, p50, p99)


def table(rounds: dict[str, list[Measured]]) -> list[dict[str, Any]]:
    """Median, least and greatest of every quantity, by server, and the ratio of the medians."""
    quantities: list[tuple[str, str, Any]] = [("start-up to the first answer", "s", lambda m: m.start_up)]
    for c in CONNECTIONS:
        at = f"{c} connection{'s' * (c > 1)}"
        quantities += [
            (f"throughput, {at}", "requests/s", lambda m, c=c: m.rates[c]),
            (f"median latency, {at}", "ms", lambda m, c=c: m.p50[c]),
            (f"99th percentile of latency, {at}", "ms", lambda m, c=c: m.p99[c]),
        ]
    lines = []
    for name, unit, value in quantities:
        line: dict[str, Any] = {"quantity": name, "unit": unit}
        for server, measured in rounds.items():
            values = [value(m) for m in measured]
            line[server] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        ours, theirs = (line[server]["median"] for server in rounds)
        line["ratio"] = ours / theirs
        lines.append(line)
    return lines


def machine() -> dict[str, Any]:
    """What was measured on, without saying whose it is."""
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": processor(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in LIBRARIES},
    }


def processor() -> str:
    """Its model, where the system says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def markdown(result: dict[str, Any]) -> str:
    """The result for people."""
    on, settings = result["machine"], result["settings"]
    servers = settings["servers"]
    versions = ", ".join(f"{name} {number}" for name, number in on["versions"].items())
    lines = [
        "# One row at a time: `fin-pyfunc serve` and `mlflow models serve`",
        "",
        f"A random forest of {TREES} trees on {FEATURES} features and {CLASSES} classes; one worker each, started in "
        f"turn, {settings['rounds']} rounds of {settings['seconds']:g} s a measurement; median (least to greatest of "
        "the rounds). The client runs on the same machine and takes part of it. `fin-pyfunc serve` answers the class "
        "and how sure it is, from `predict_proba`; `mlflow models serve` answers the class, from `predict`.",
        "",
        f"{on['cores']} cores, {on['processor']}, {on['system']}; Python {on['python']}; {versions}. "
        "Made by `python -m benchmarks.serve`.",
        "",
        f"| | unit | {' | '.join(f'`{server}`' for server in servers)} | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    for line in result["results"]:
        cells = [f"{s['median']:.3g} ({s['min']:.3g} to {s['max']:.3g})" for s in (line[server] for server in servers)]
        lines.append(f"| {line['quantity']} | {line['unit']} | {' | '.join(cells)} | {line['ratio']:.3g} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print and write."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=3, help="rounds, in each of which both are started (default 3)")
    options.add_argument("--seconds", type=float, default=10, help="length of one measurement (default 10)")
    options.add_argument("--out", type=Path, default=RESULTS, help="folder for serve.md and serve.json")
    given = options.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the servers are ended then too
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        tracking_uri = f"sqlite:///{folder / 'mlflow.db'}"
        print("fitting and logging the forest", flush=True)
        both = candidates(*log_models(tracking_uri, folder / "artifacts"))
        rounds: dict[str, list[Measured]] = {candidate.name: [] for candidate in both}
        for i in range(given.rounds):
            for candidate in both if i % 2 == 0 else both[::-1]:  # neither always goes first
                print(f"round {i + 1} of {given.rounds}: {candidate.name}", flush=True)
                rounds[candidate.name].append(measure(candidate, folder, tracking_uri, given.seconds))
    settings = {"rounds": given.rounds, "seconds": given.seconds, "servers": list(rounds), "trees": TREES}
    result = {"machine": machine(), "settings": settings, "results": table(rounds)}
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "serve.json").write_text(json.dumps(result, indent=2) + "\n")
    (given.out / "serve.md").write_text(markdown(result))
    print(markdown(result))


if __name__ == "__main__":
    main()
