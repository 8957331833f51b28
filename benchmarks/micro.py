"""Points 2, 4 and 7 within one process: one row through everything but HTTP, and a sweep over row counts.

    python -m benchmarks.micro

Ends within a minute or two. Each call is timed in blocks of many, the blocks of what is compared alternating.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench import Bench
from benchmarks.blocks import alternate
from benchmarks.models import Models, build, onnx_session
from benchmarks.row import Row, ratios

FAMILIES = {
    "forest": "forest",
    "logistic": "scaler and logistic regression",
    "gradient_boosting": "gradient boosting",
    "hist_gradient_boosting": "HistGradientBoosting",
    "lightgbm": "LightGBM",
    "xgboost": "XGBoost",
}
SWEEP = (1, 10, 100, 1_000, 10_000, 100_000)
#: How many rows one round of the sweep scores at most, so that it ends.
SWEEP_ROUNDS = {10_000: 5, 100_000: 3}
US = 1e6


def measure(bench: Bench) -> list[Row]:
    """All of it, in this process."""
    import mlflow

    mlflow.set_tracking_uri(bench.models.tracking_uri)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, of names that a matrix has not
        return [*_one_row(bench), *_sweep(bench), *_mlflow(bench)]


def _one_row(bench: Bench) -> list[Row]:
    """A dict of features to an answer, beside the bare ONNX call and the estimator on a one-row DataFrame."""
    import fin_pyfunc

    models = bench.models
    frame, records = models.frame(), models.records()
    frames = [frame.iloc[i : i + 1] for i in range(len(frame))]
    lines: list[Row] = []
    for family, name in FAMILIES.items():
        print(f"  one row, {name}", flush=True)
        model, estimator = fin_pyfunc.load_model(models.ours[family]), models.estimator(family)
        calls: dict[str, Callable[[int], Any]] = {
            "ours": _varied(model.predict_one, records),
            "ours, without probabilities": _varied(_without_proba(model.predict_one), records),
            "ours, the same row each time": _varied(model.predict_one, records[:1]),
            "own": _varied(estimator.predict_proba, frames),
        }
        if family == "forest":
            calls["bare"] = bare_call(models)
        _same_class(model, estimator, models)
        found = alternate(calls, bench.rounds)
        if family == "forest":
            limit = ratios(found["ours"], found["bare"])
            lines.append(Row(2, "forest, dict to answer to the bare ONNX Runtime call", "×", limit, at_most=3))
        else:
            faster = ratios(found["own"], found["ours"])
            lines.append(
                Row(2, f"{name}, its own `predict_proba` on a one-row DataFrame to dict to answer", "×", faster, 10)
            )
        what = {"own": "its own `predict_proba` on a one-row DataFrame", "bare": "the bare ONNX Runtime call"}
        lines += [
            Row(2, f"{name}: {what.get(key, f'dict to answer, {key}')}", "µs", [US * s for s in seconds])
            for key, seconds in found.items()
        ]
    return lines


def bare_call(models: Models) -> Callable[[int], Any]:
    """ONNX Runtime alone on a float32 matrix of one row that is there already, another each time."""
    session = onnx_session(models.onnx)
    name, outputs = session.get_inputs()[0].name, [session.get_outputs()[1].name]
    matrix = models.frame().to_numpy(dtype=np.float32)
    feeds = [{name: matrix[i : i + 1]} for i in range(len(matrix))]
    return _varied(lambda feed: session.run(outputs, feed), feeds)


def _varied(call: Callable[[Any], Any], arguments: list[Any]) -> Callable[[int], Any]:
    n = len(arguments)
    return lambda i: call(arguments[i % n])


def _without_proba(call: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda features: call(features, return_proba=False)


def _same_class(model: Any, estimator: Any, models: Models) -> None:
    got = [model.predict_one(row)["prediction"] for row in models.records()]
    if got != estimator.predict(models.frame()).tolist():
        raise RuntimeError("our answers are not the estimator's: figures of a wrong model are worth nothing")


def _sweep(bench: Bench) -> list[Row]:
    """The forest over row counts: as the dispatch scores a matrix, scikit-learn with one thread, ONNX Runtime alone."""
    import fin_pyfunc

    models = bench.models
    model, estimator = fin_pyfunc.load_model(models.ours["forest"]), models.on_matrix("forest")
    session = onnx_session(models.onnx)
    feed, outputs = session.get_inputs()[0].name, [session.get_outputs()[1].name]
    everything = models.frame(max(SWEEP)).to_numpy()
    lines: list[Row] = []
    for rows in SWEEP:
        print(f"  sweep, {rows:,} rows", flush=True)
        matrix = everything[:rows]
        single = matrix.astype(np.float32)
        calls: dict[str, Callable[[int], Any]] = {
            "ours": _varied(model.dispatch.score, [matrix]),
            "scikit-learn, 1 thread": _varied(estimator.predict_proba, [matrix]),
            "ONNX Runtime, 1 thread": _varied(partial(session.run, outputs), [{feed: single}]),
        }
        found = alternate(calls, min(bench.rounds, SWEEP_ROUNDS.get(rows, bench.rounds)))
        ours, own, compiled = found.values()
        better = [min(pair) for pair in zip(own, compiled, strict=True)]
        name = f"{rows:,} row{'s' * (rows > 1)}"
        what = f"forest, {name}: ours to the better of scikit-learn and ONNX Runtime, 1 thread each"
        lines.append(Row(4, what, "×", ratios(ours, better), at_most=1.1))
        lines += [Row(4, f"forest, {name}: {key}", "ms", [s * 1e3 for s in of]) for key, of in found.items()]
    return lines


def _mlflow(bench: Bench) -> list[Row]:
    """`mlflow.pyfunc.load_model(…).predict` of one row, on our artifact and on the `mlflow.sklearn` model."""
    import mlflow

    models, frame = bench.models, bench.models.frame()
    frames = [frame.iloc[i : i + 1] for i in range(len(frame))]
    found = alternate(
        {
            "our artifact": _varied(mlflow.pyfunc.load_model(models.ours["forest"]).predict, frames),
            "the mlflow.sklearn model": _varied(mlflow.pyfunc.load_model(models.theirs["forest"]).predict, frames),
        },
        bench.rounds,
    )
    ours, theirs = found.values()
    call = "`mlflow.pyfunc.load_model(…).predict`, one row"
    return [
        Row(7, f"{call}, on the `mlflow.sklearn` model to the same on our artifact", "×", ratios(theirs, ours), 5),
        *(Row(7, f"{call}, {name}", "ms", [s * 1e3 for s in seconds]) for name, seconds in found.items()),
    ]


def main() -> None:
    """Measure and print, without writing anything."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.micro", description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=15, help="blocks of each call (default 15)")
    options.add_argument("--folder", type=Path, help="where the models are, or are to be kept")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        bench = Bench(build(given.folder or Path(temporary)), given.rounds, 1.0)
        for row in measure(bench):
            met = {True: "met", False: "NOT MET", None: ""}[row.met]
            print(f"{row.point}  {row.what}: {row.measured()}{f'; {row.target}: {met}' if met else ''}")


if __name__ == "__main__":
    main()
