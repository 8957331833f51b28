"""Issue 22: pipelines as desks log them, each answering a dict, beside its own `predict_proba`; one of them served.

    python -m benchmarks.desk
    python -m benchmarks --only desk

Within one process, the calls that are compared in alternating blocks; the served case as in `serve`.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.bench import Bench, turn
from benchmarks.blocks import alternate
from benchmarks.contenders import MLFLOW, OURS, mlflow, ours, verify
from benchmarks.drive import drive
from benchmarks.http_client import request
from benchmarks.models import Models
from benchmarks.row import Row, ratios
from benchmarks.servers import environment, free_port, running
from tests import desk

N_ROWS, BATCH_ROWS = 64, 5_000
#: Blocks of a call; one of the estimator's own holds one call or two.
BLOCKS, BATCH_BLOCKS = 9, 3
#: What is asked of the pipelines: how many are compiled, and how many times their own call a row is answered in.
COMPILED, TIMES, BATCH_TIMES, SERVED_TIMES = 26, 100, 0.8, 200
SERVED = "one-hot, LightGBM"
CONNECTIONS = (1, 16)
US, MS = 1e6, 1e3


class Measured(NamedTuple):
    """One pipeline: what answers it, seconds of each call a round, and how far its probabilities are off."""

    backend: str
    reason: str
    found: dict[str, list[float]]
    difference: float


def measure(bench: Bench) -> list[Row]:
    """All pipelines within this process, then one of them served."""
    rows, measured = [], {}
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM's, of names that a matrix has not
        for i, name in enumerate(desk.pipelines()):
            measured[name] = _measured(name, Path(folder, f"{i}"))
            rows += _rows(name, measured[name])
            print(f"  {'; '.join(f'{row.what}: {row.measured()} {row.note}' for row in rows[-5:])}", flush=True)
        n_compiled = sum(1 for one in measured.values() if one.backend != "native")
        rows.insert(0, Row(22, f"pipelines of {len(measured)} that are compiled", "", [n_compiled], COMPILED))
        rows += _served(bench, Path(folder))
    return rows


def _measured(name: str, folder: Path) -> Measured:
    """Save a pipeline, see that it answers as the estimator does, and time both."""
    import fin_pyfunc

    estimator, X = desk.fitted(name)
    fin_pyfunc.save_model(estimator, X, folder)
    model = fin_pyfunc.load_model(str(folder))
    unseen = desk.quotes(BATCH_ROWS, seed=2)[desk.features(name)]
    records = records_of(unseen[:N_ROWS])
    frames = [unseen.iloc[i : i + 1] for i in range(N_ROWS)]
    difference = _difference(model, estimator, unseen)
    one = alternate(
        {"ours": _varied(model.predict_one, records), "own": _varied(estimator.predict_proba, frames)}, BLOCKS
    )
    many = alternate(
        {
            "ours, many": lambda _: model.predict(unseen),
            "own, many": lambda _: estimator.predict_proba(unseen),
        },
        BATCH_BLOCKS,
    )
    assert model.manifest is not None
    reasons = "; ".join(dict.fromkeys(model.manifest.dropped.values()))
    return Measured(model.dispatch.choose(1).name, reasons, one | many, difference)


def _difference(model: Any, estimator: Any, X: Any) -> float:
    """The largest difference of a probability, of rows alone and together.

    Raises
    ------
    RuntimeError
        A class is another: figures of a wrong model are worth nothing.
    """
    expected, labels = estimator.predict_proba(X), estimator.predict(X)
    scores = model.dispatch.score(model.features.check(X))[0]
    got = np.asarray(scores.classes)[scores.index]
    alone = [model.predict_one(row) for row in records_of(X[:N_ROWS])]
    if (got != labels).any() or [answer["prediction"] for answer in alone] != labels[:N_ROWS].tolist():
        raise RuntimeError("our answers are not the pipeline's: figures of a wrong model are worth nothing")
    single = np.array([list(answer["probabilities"].values()) for answer in alone])
    return float(max(abs(scores.probabilities - expected).max(), abs(single - expected[:N_ROWS]).max()))


def _rows(name: str, one: Measured) -> list[Row]:
    found = one.found
    note = f"not compiled: {one.reason}" if one.backend == "native" else one.backend
    return [
        Row(
            *(22, f"{name}: its own `predict_proba` on a one-row DataFrame to dict to answer", "×"),
            ratios(found["own"], found["ours"]),
            at_least=TIMES,
            note=note,
        ),
        Row(22, f"{name}: dict to answer", "µs", [US * s for s in found["ours"]]),
        Row(22, f"{name}: its own `predict_proba` on a one-row DataFrame", "µs", [US * s for s in found["own"]]),
        Row(22, f"{name}: largest difference of a probability", "", [one.difference], at_most=1e-6),
        Row(
            *(22, f"{name}: {BATCH_ROWS:,} rows, DataFrame to answers, to its own `predict_proba`", "×"),
            ratios(found["ours, many"], found["own, many"]),
        ),
    ]


def records_of(frame: Any) -> list[dict[str, Any]]:
    """Rows as dicts, as JSON has them: None for what is missing."""
    rows: list[dict[str, Any]] = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return rows


def _served(bench: Bench, folder: Path) -> list[Row]:
    """The same pipeline logged by us and by `mlflow.sklearn`, each under its own server."""
    import fin_pyfunc

    estimator, X = desk.fitted(SERVED)
    unseen = desk.quotes(N_ROWS, seed=2)[desk.features(SERVED)]
    records, expected = records_of(unseen), estimator.predict(unseen).tolist()
    fin_pyfunc.save_model(estimator, X, folder / "ours")
    _save_theirs(estimator, X, folder / "theirs")
    chosen = [ours(str(folder / "ours")), mlflow(str(folder / "theirs"))]
    found: dict[str, dict[int, list[Any]]] = {one.name: {c: [] for c in CONNECTIONS} for one in chosen}
    for i in range(bench.rounds):
        print(f"  served, round {i + 1} of {bench.rounds}", flush=True)
        for contender in turn(chosen, i):
            bodies, port = contender.bodies(records), free_port()
            environ = environment("sqlite:///absent.db", contender.environ)
            first = request(contender.path, bodies[0])
            with running(contender.command(port), port, first, environ, contender.name):
                verify(contender, port, bodies, expected)
                for c in turn(CONNECTIONS, i):
                    found[contender.name][c].append(drive(port, contender.path, bodies, c, bench.seconds))
    rates = {name: [one.rate for one in of[16]] for name, of in found.items()}
    p50 = {name: [one.p50 for one in of[1]] for name, of in found.items()}
    what = f"served, {SERVED}"
    return [
        Row(
            *(22, f"{what}: requests/s at 16 connections, `/predict` to `mlflow models serve`", "×"),
            *(ratios(rates[OURS], rates[MLFLOW]), SERVED_TIMES),
        ),
        *(Row(22, f"{what}, {name}: requests/s at 16 connections", "/s", values) for name, values in rates.items()),
        *(Row(22, f"{what}, {name}: p50 at 1 connection", "ms", values) for name, values in p50.items()),
    ]


def _save_theirs(estimator: Any, X: Any, folder: Path) -> None:
    import mlflow.sklearn
    from mlflow.models import infer_signature

    mlflow.sklearn.save_model(
        estimator, folder, serialization_format="cloudpickle", signature=infer_signature(X, estimator.predict(X))
    )


def _varied(call: Callable[[Any], Any], arguments: list[Any]) -> Callable[[int], Any]:
    n = len(arguments)
    return lambda i: call(arguments[i % n])


def main() -> None:
    """Measure and print, without writing anything."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.desk", description=__doc__.partition("\n")[0])
    options.add_argument("--rounds", type=int, default=1, help="rounds of the served case (default 1)")
    options.add_argument("--seconds", type=float, default=3.0, help="length of one of its measurements (default 3)")
    given = options.parse_args()
    logging.getLogger("fin_pyfunc").setLevel(logging.ERROR)
    nothing = Models(Path(), "", {}, {}, [], "")  # of the other benchmarks' models none is needed
    for row in measure(Bench(nothing, given.rounds, given.seconds)):
        met = {True: "met", False: "NOT MET", None: ""}[row.met]
        print(f"{row.what}: {row.measured()}{f'; {row.target}: {met}' if met else ''} {row.note}")


if __name__ == "__main__":
    main()
