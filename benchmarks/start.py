"""Point 6: from the command to the first answer, and what a further worker costs in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import contenders
from benchmarks.bench import Bench, turn
from benchmarks.contenders import MLFLOW, OURS, Contender, serving
from benchmarks.http_client import load, request
from benchmarks.row import Row
from benchmarks.servers import environment

IMPORT = 'python -c "import mlflow.pyfunc"'
#: What a start from a registry cannot do without, whoever serves: one question to MLflow's client.
ASKED = "a Python process that asks MLflow's client about one model in an SQLite store"
FOLDER = f"{OURS}, a model folder"
#: As an image of one model starts: MLflow's default store is an SQLite file that is not there.
ALONE = f"{OURS}, a model folder and no MLflow store"
WORKERS = (1, 2, 4)
#: Requests for each worker before its memory is read, over so many connections that each worker gets some.
REQUESTS, CONNECTIONS = 100, 16
OVER_SECONDS, WORKER_MB = 1.0, 40.0
#: Memory is at rest once it has not grown by more than so much in so many seconds.
REST_MB, REST_SECONDS, PATIENCE_SECONDS = 1.0, 4.0, 30.0


def measure(bench: Bench) -> list[Row]:
    """Start-up of each in turn, then memory with 1, 2 and 4 workers."""
    return [*_start_up(bench), *_memory(bench)]


def _start_up(bench: Bench) -> list[Row]:
    from benchmarks.contenders import extras

    models = bench.models
    chosen = [
        contenders.ours(models.ours["forest"]),
        contenders.ours(str(models.saved), name=FOLDER),
        contenders.ours(str(models.saved), name=ALONE, environ={"MLFLOW_TRACKING_URI": "sqlite:///absent.db"}),
        contenders.mlflow(models.theirs["forest"]),
    ]
    for name in bench.extras:
        try:
            chosen.append(extras.prepare(name))
        except extras.NotToBeHadError as e:
            bench.left_out[name] = str(e)
    commands = {
        IMPORT: "import mlflow.pyfunc",
        ASKED: f"import mlflow; mlflow.MlflowClient().get_logged_model({models.ours['forest'].partition(':/')[2]!r})",
    }
    found: dict[str, list[float]] = {**{name: [] for name in commands}, **{contender.name: [] for contender in chosen}}
    rows, expected = models.records(1), models.expected("forest", 1)
    for i in range(bench.rounds):
        print(f"  start-up, round {i + 1} of {bench.rounds}", flush=True)
        for chosen_now in turn([*commands, *chosen], i):
            if isinstance(chosen_now, str):
                found[chosen_now].append(_seconds(commands[chosen_now], bench))
            else:
                with serving(chosen_now, models, rows, expected) as server:
                    found[chosen_now.name].append(server.start_up)

    def over(name: str) -> list[float]:
        return [a - b for a, b in zip(found[name], found[IMPORT], strict=True)]

    return [
        Row(6, f"start to first answer over `{IMPORT}`, a model folder", "s", over(ALONE), at_most=OVER_SECONDS),
        Row(6, "the same beside an SQLite store, whose libraries any request may need", "s", over(FOLDER)),
        Row(6, f"start to first answer over `{IMPORT}`, an SQLite store", "s", over(OURS), at_most=OVER_SECONDS),
        Row(6, f"{ASKED}, over `{IMPORT}`", "s", over(ASKED)),
        *(Row(6, name, "s", found.pop(name)) for name in commands),
        *(Row(6, f"start to first answer, {name}", "s", values) for name, values in found.items()),
    ]


def _seconds(code: str, bench: Bench) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=environment(bench.models.tracking_uri), check=True)
    return time.perf_counter() - start


def _memory(bench: Bench) -> list[Row]:
    if not Path("/proc/self/smaps_rollup").exists():
        bench.left_out["memory of a worker"] = "this system has no /proc/<pid>/smaps_rollup"
        return []
    models = bench.models
    sources = {"a model folder": str(models.saved), "an SQLite store": models.ours["forest"]}
    totals: dict[tuple[str, int], float] = {}
    libraries = 0
    for source, uri in sources.items():
        for workers in WORKERS:
            print(f"  memory, {source}, {workers} worker{'s' * (workers > 1)}", flush=True)
            with _settled(contenders.ours(uri, workers), bench, workers) as pids:
                totals[source, workers] = _at_rest(pids)
                libraries = max(libraries, *map(sklearn_libraries, pids))
    with _settled(contenders.mlflow(models.theirs["forest"]), bench, 1) as pids:
        theirs = _at_rest(pids)
    lines = [
        Row(
            *(6, f"memory of each worker from {few} to {many}, {source}, model included (PSS)", "MB"),
            *([(totals[source, many] - totals[source, few]) / (many - few)], None, WORKER_MB),
        )
        for source in sources
        for few, many in itertools.combinations(WORKERS, 2)
    ]
    return [
        *lines,
        Row(6, "libraries of scikit-learn in the memory of a server of compiled models", "", [libraries], at_most=0),
        *(
            Row(6, f"memory of {OURS}, {source}, {n} worker{'s' * (n > 1)} (PSS)", "MB", [mb])
            for (source, n), mb in totals.items()
        ),
        Row(6, f"memory of {MLFLOW}, 1 worker (PSS)", "MB", [theirs]),
    ]


@contextlib.contextmanager
def _settled(contender: Contender, bench: Bench, workers: int) -> Iterator[list[int]]:
    """All processes of a server that has answered its requests."""
    import psutil

    rows, expected = bench.models.records(), bench.models.expected("forest")
    with serving(contender, bench.models, rows, expected) as server:
        sent = [request(contender.path, body) for body in contender.bodies(rows)]
        # connections are opened anew, as the kernel gives each to whichever worker is free
        for _ in range(workers * REQUESTS // CONNECTIONS + 1):
            asyncio.run(load(server.port, sent, CONNECTIONS, seconds=30.0, max_requests=CONNECTIONS))
        first = psutil.Process(server.pid)
        yield [first.pid, *(child.pid for child in first.children(recursive=True))]


def _at_rest(pids: list[int]) -> float:
    """Memory of these processes, in MB, once it does not grow any more."""
    until = time.monotonic() + PATIENCE_SECONDS
    before, now = 0.0, sum(map(pss_mb, pids))
    while now - before > REST_MB and time.monotonic() < until:
        time.sleep(REST_SECONDS)
        before, now = now, sum(map(pss_mb, pids))
    return now


def pss_mb(pid: int) -> float:
    """Proportional set size of a process, in MB: pages that n processes share count for 1/n."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6


def sklearn_libraries(pid: int) -> int:
    """How many of scikit-learn's compiled modules a process has mapped."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return len({line.split()[-1] for line in lines if "/sklearn/" in line})
