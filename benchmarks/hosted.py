"""What it costs to ask a model in a process of its own: time beside the estimator's own call, and memory.

    python -m benchmarks.hosted
    python -m benchmarks.hosted --rounds 9 --calls 2000

Each round asks, in turn, the estimator in this process and the same one in its host, one row a call, and then both as a
worker does it: from an event loop, on scoring threads (`serving.joiner`).
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pandas as pd
import psutil

from benchmarks import parzen
from benchmarks.data import NAMES, make_data
from fin_pyfunc.host.opening import Opening
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.features import FeatureSpec, infer
from fin_pyfunc.serving.hosts.connection import Limits
from fin_pyfunc.serving.hosts.hosts import Hosts
from fin_pyfunc.serving.joiner import Joiner
from fin_pyfunc.serving.threads import ScoringThreads

#: Milliseconds over the estimator's own call that a row through a host may take (p50).
AT_MOST_MS = 0.4
CONNECTIONS = 32


class Nothing:
    """A classifier that computes nothing, so that all of its time and memory is the host's."""

    classes_ = np.array([0, 1, 2])

    def predict_proba(self, X: Any) -> Any:
        """The same for each row."""
        return np.tile([0.2, 0.5, 0.3], (len(X), 1))

    def predict(self, X: Any) -> Any:
        """The same for each row."""
        return np.ones(len(X), int)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--calls", type=int, default=1000)
    parser.add_argument("--only", help="an estimator, by its name")
    options = parser.parse_args()
    sys.setswitchinterval(0.0005)  # as a worker has it
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    cloudpickle.register_pickle_by_value(parzen)
    X, y = make_data()
    spec = infer(pd.DataFrame(X, columns=NAMES))
    hosts = Hosts(Limits(8 << 30, 60.0, 30.0))
    try:
        with tempfile.TemporaryDirectory() as folder:
            for name, estimator in _estimators(X, y).items():
                if options.only not in (None, name):
                    continue
                file = Path(folder) / f"{name.replace(' ', '-')}.pkl"
                file.write_bytes(cloudpickle.dumps(estimator))
                _report(name, file, spec, X, hosts, options.rounds, options.calls)
    finally:
        hosts.close()


def _estimators(X: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.svm import SVC

    rng = np.random.default_rng(0)
    large = rng.standard_normal((200_000, X.shape[1]))
    return {
        "nothing": Nothing(),
        "SVC": SVC().fit(X, y),
        "neighbours": KNeighborsClassifier().fit(X, y),
        "custom object": parzen.ParzenClassifier().fit(X, y),
        "neighbours of 200,000 rows": KNeighborsClassifier().fit(large, rng.integers(0, 3, len(large))),
    }


def _report(name: str, file: Path, spec: FeatureSpec, X: np.ndarray, hosts: Hosts, rounds: int, calls: int) -> None:
    hosted = hosts.open(Opening(form="pickle", path=str(file), digest=name, features=spec), name)
    here = NativeBackend(pickle.loads(file.read_bytes()), spec)
    rows = [X[i : i + 1] for i in range(len(X))]
    for row in rows[:100]:
        one, other = here.score(row), hosted.backend.score(row)
        assert one.index[0] == other.index[0]
    own, hop, alone, alone_hosted, many, many_hosted = ([] for _ in range(6))
    for _ in range(rounds):
        own.append(_p50(here.score, rows, calls))
        hop.append(_p50(hosted.backend.score, rows, calls))
        for backend, of_one, of_many in ((here, alone, many), (hosted.backend, alone_hosted, many_hosted)):
            model = Classifier.of(spec, Dispatch([backend]))
            of_one.append(asyncio.run(_served(model, rows, calls, 1))[0])
            of_many.append(asyncio.run(_served(model, rows, calls, CONNECTIONS))[1])
    over = statistics.median(b - a for a, b in zip(own, hop, strict=True)) * 1e3
    over_served = statistics.median(b - a for a, b in zip(alone, alone_hosted, strict=True)) * 1e3
    kept = "kept" if max(over, over_served) <= AT_MOST_MS else "MISSED"
    print(f"\n{name}")
    print(f"  one row, own call           {statistics.median(own) * 1e3:8.3f} ms p50")
    print(f"  one row, in its host        {statistics.median(hop) * 1e3:8.3f} ms p50   over it: {over:.3f} ms")
    print(f"  from an event loop, here    {statistics.median(alone) * 1e3:8.3f} ms p50")
    print(f"  from an event loop, hosted  {statistics.median(alone_hosted) * 1e3:8.3f} ms p50   ", end="")
    print(f"over it: {over_served:.3f} ms (at most {AT_MOST_MS} ms: {kept})")
    print(f"  {CONNECTIONS} at once, here            {statistics.median(many):8.0f} rows/s")
    print(f"  {CONNECTIONS} at once, hosted          {statistics.median(many_hosted):8.0f} rows/s")
    _memory(file)
    hosted.close()


def _p50(score: Callable[[Any], Any], rows: list[Any], calls: int) -> float:
    taken = []
    for i in range(calls):
        began = time.perf_counter()
        score(rows[i % len(rows)])
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def _served(model: Classifier, rows: list[Any], calls: int, at_once: int) -> tuple[float, float]:
    """Median seconds of a row, and rows a second, as a worker asks."""
    joiner, taken = Joiner(ScoringThreads(2)), []

    async def ask(first: int) -> None:
        for i in range(first, calls, at_once):
            began = time.perf_counter()
            await joiner.decide(model, rows[i % len(rows)])
            taken.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(ask, range(at_once)))
    return statistics.median(taken), calls / (time.perf_counter() - began)


def _memory(file: Path) -> None:
    """Of the host that was forked last, the fork server, and a fresh process that opens the same file."""
    server = next(p for p in psutil.Process().children() if "fork_server" in " ".join(p.cmdline()))
    host = max(server.children(), key=lambda p: p.pid)
    code = (
        "import sys, pickle, mlflow.pyfunc, mlflow.sklearn\n"
        "from fin_pyfunc.host import program\n"
        "from benchmarks.hosted import in_memory\n"
        "before = in_memory('self')\n"
        "held = pickle.loads(open(sys.argv[1], 'rb').read())\n"
        "after = in_memory('self')\n"
        "print(after['private'] - before['private'], after['private'])"
    )
    fresh = subprocess.run([sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=True)
    needed, alone = map(float, fresh.stdout.split())
    found, of_server = in_memory(host.pid), in_memory(server.pid)
    print(f"  memory: the file {file.stat().st_size / 2**20:.1f} MB; opening it takes {needed:.1f} MB")
    print(f"    its host              {found['private']:7.1f} MB of its own (PSS {found['pss']:.1f} MB)")
    print(f"    a process started new {alone:7.1f} MB of its own")
    print(f"    the fork server       {of_server['pss']:7.1f} MB PSS, shared by all hosts")


def in_memory(pid: int | str) -> dict[str, float]:
    """Megabytes that are a process's own (USS), and its part of what it shares (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    kilobytes = {name: int(number) for name, number in re.findall(r"^(\w+):\s+(\d+) kB", text, re.M)}
    own = kilobytes["Private_Clean"] + kilobytes["Private_Dirty"]
    return {"private": own / 1024, "pss": kilobytes["Pss"] / 1024}


if __name__ == "__main__":
    main()
