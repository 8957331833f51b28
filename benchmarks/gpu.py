"""CPU and GPU side by side, from one row to ten million, copies included: where the GPU wins, and what the plan does.

    python -m benchmarks.gpu
    python -m benchmarks.gpu --rows 100000

It wants a machine with a GPU and the extra "gpu"; on any other it measures what is there, nvForest's CPU mode too. In
one process: nothing of HTTP. `scikit-learn` is the estimator itself on all cores; every other column is a backend as a
server runs it, rows in this machine's memory and answers back in it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.data import CLASSES, FEATURES, NAMES, TRAIN_ROWS, TREES, make_data, train_forest
from benchmarks.machine import machine
from benchmarks.report import RESULTS

#: Row counts, as far as `--rows` allows.
SIZES = (1, 10, 100, 1000, 3000, 10_000, 30_000, 100_000, 1_000_000, 10_000_000)
#: Seconds for one backend at one size; one that would take longer for a single call is left out.
BUDGET, LONGEST = 2.0, 120.0
MOST_CALLS = 15
#: Rows whose classes and probabilities are compared.
COMPARED = 1_000_000
SKLEARN = "scikit-learn"


def main() -> None:
    """Measure, print and write `results/gpu.md` and `results/gpu.json`."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    options.add_argument("--rows", type=int, default=SIZES[-1], help="most rows (default ten million)")
    options.add_argument("--out", type=Path, default=RESULTS, help="where the results go")
    given = options.parse_args()
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    logging.getLogger("fin_pyfunc").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        result = measure(Path(folder), [n for n in SIZES if n <= given.rows])
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "gpu.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    (given.out / "gpu.md").write_text(markdown(result), encoding="utf-8")
    print(markdown(result))


def measure(folder: Path, sizes: list[int]) -> dict[str, Any]:
    """Times of every backend at every size, the plan's choices, and how the answers compare."""
    import fin_pyfunc
    from fin_pyfunc.model.device import probe

    print("training and logging the forest", flush=True)
    X, y = make_data()
    sample = _frame(X[:1000])
    forest = train_forest(_frame(X), y)
    fin_pyfunc.save_model(forest, sample, folder / "model")
    dispatch = fin_pyfunc.load_model(str(folder / "model"), backend="auto").dispatch
    for backend in dispatch.backends:
        if hasattr(backend, "load"):
            backend.load()
    table = np.resize(make_data(max(TRAIN_ROWS, min(max(sizes), 200_000)), seed=1)[0], (max(sizes), FEATURES))
    plan = dispatch.measure(table[: dispatch.sample_rows(FEATURES)])
    calls: dict[str, Callable[[Any], Any]] = {b.name: b.score for b in dispatch.backends}
    forest.set_params(n_jobs=-1)
    calls[SKLEARN] = lambda rows: forest.predict_proba(_frame(rows))
    times: dict[str, dict[int, float]] = {name: {} for name in calls}
    for n in sizes:
        for name, call in calls.items():
            if (taken := _seconds(call, table, n, times[name])) is not None:
                times[name][n] = taken
        print(f"  {n:,} rows: " + ", ".join(f"{k} {1e3 * v[n]:.3g} ms" for k, v in times.items() if n in v), flush=True)
    chosen = {n: plan.best(n) for n in sizes}
    return {
        "machine": machine(),
        "gpu": probe().name or f"none ({probe().refusal})",
        "seconds": times,
        "plan": [{"from_rows": step.from_rows, "backend": step.backend} for step in plan.steps],
        "chosen": chosen,
        "off": {n: _off(times, dispatch.backends, n, name) for n, name in chosen.items()},
        "compared": _compared(calls, forest, table[: min(len(table), COMPARED)]),
    }


def _frame(rows: Any) -> Any:
    import pandas as pd

    return pd.DataFrame(rows, columns=NAMES)


def _seconds(call: Callable[[Any], Any], table: Any, n: int, known: dict[int, float]) -> float | None:
    if known and known[max(known)] * n / max(known) > LONGEST:
        return None
    rows, taken = table[:n], []
    call(rows)
    until = time.perf_counter() + BUDGET
    while not taken or (len(taken) < MOST_CALLS and time.perf_counter() < until):
        start = time.perf_counter()
        call(rows)
        taken.append(time.perf_counter() - start)
    return median(taken)


def _off(times: dict[str, dict[int, float]], backends: Any, n: int, chosen: str) -> float | None:
    """How much longer the plan's choice takes than the best backend, as a part of that."""
    measured = [times[b.name][n] for b in backends if n in times[b.name]]
    return times[chosen][n] / min(measured) - 1 if n in times[chosen] else None


def _compared(calls: dict[str, Callable[[Any], Any]], forest: Any, table: Any) -> dict[str, dict[str, float]]:
    """Classes that differ from the estimator's, and the greatest difference of a probability, for each backend."""
    expected = forest.predict_proba(_frame(table))
    found = {}
    for name, call in calls.items():
        if name == SKLEARN:
            continue
        scores = call(table)
        flips = int((scores.index != expected.argmax(axis=1)).sum())
        found[name] = {
            "rows": len(table),
            "flips": flips,
            "error": float(np.abs(scores.probabilities - expected).max()),
        }
    return found


def markdown(result: dict[str, Any]) -> str:
    """The result for people."""
    times, of = result["seconds"], result["machine"]
    sizes = sorted({n for line in times.values() for n in line})
    lines = [
        "# CPU and GPU",
        "",
        f"A forest of {TREES} trees, {FEATURES} features and {CLASSES} classes; milliseconds, copies included. "
        f"{of['processor']}, {of['cores']} cores; GPU: {result['gpu']}. Commit {of['commit']}. "
        f"Made by `python -m benchmarks.gpu --rows {max(sizes)}`.",
        "",
        "| rows | " + " | ".join(times) + " | the plan's choice | off the best |",
        "|---:|" + "---:|" * len(times) + "---|---:|",
    ]
    for n in sizes:
        cells = [f"{1e3 * line[n]:,.3g}" if n in line else "" for line in times.values()]
        off = result["off"][n]
        off = "" if off is None else f"{100 * off:.0f} %"
        lines.append(f"| {n:,} | " + " | ".join(cells) + f" | {result['chosen'][n]} | {off} |")
    gpu = [name for name in times if name.endswith("-gpu")]
    wins = [n for n in sizes if gpu and all(times[gpu[0]][n] <= line[n] for line in times.values() if n in line)]
    lines += [
        "",
        f"The GPU is the fastest from {wins[0]:,} rows on."
        if wins
        else "No GPU was there to be measured: the same command shows it on a machine that has one.",
    ]
    if gpu and 1_000_000 in times[gpu[0]]:
        ratio = times[SKLEARN][1_000_000] / times[gpu[0]][1_000_000]
        lines.append(f"A million rows: {ratio:.1f} times as fast as scikit-learn on all cores (goal: 20).")
    lines += ["", "| backend | rows compared | other classes than the estimator's | greatest difference |"]
    lines += ["|---|---:|---:|---:|"]
    lines += [f"| {name} | {c['rows']:,} | {c['flips']} | {c['error']:.1e} |" for name, c in result["compared"].items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
