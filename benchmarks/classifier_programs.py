"""Classifiers as programs and as graphs of ONNX Runtime: one row and 1,000 rows, side by side.

Run it with ``python -m benchmarks.classifier_programs``. A classifier that stands alone becomes a program where that is
as fast for one row (`fin_pyfunc.compiling.program.classifiers.is_classifier`).
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.calibration import CalibratedClassifierCV
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis, QuadraticDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neural_network import MLPClassifier

from fin_pyfunc.compiling.forms import compile_estimator
from fin_pyfunc.model.backends.onnx import OnnxBackend
from fin_pyfunc.model.backends.program import ProgramBackend
from fin_pyfunc.model.decision import Thresholds
from fin_pyfunc.model.features import infer

CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "LogisticRegression": LogisticRegression,
    "RidgeClassifier": RidgeClassifier,
    "LinearDiscriminantAnalysis": LinearDiscriminantAnalysis,
    "QuadraticDiscriminantAnalysis": QuadraticDiscriminantAnalysis,
    "GaussianNB": GaussianNB,
    "MLPClassifier(8)": lambda: MLPClassifier((8,), max_iter=30),
    "OneVsRest(LogisticRegression)": lambda: OneVsRestClassifier(LogisticRegression()),
    "Bagging(LogisticRegression)": lambda: BaggingClassifier(LogisticRegression(), n_estimators=4),
    "Calibrated(LogisticRegression)": lambda: CalibratedClassifierCV(LogisticRegression(), cv=2),
}
ROUNDS, RUNS = 7, {1: 500, 1000: 40}


def microseconds(run: Callable[[], Any], n: int) -> float:
    """The lower quartile of n runs: other processes make some of them longer."""
    taken = []
    for _ in range(n):
        started = time.perf_counter()
        run()
        taken.append(time.perf_counter() - started)
    return sorted(taken)[n // 4] * 1e6


def opened(estimator: Any, X: pd.DataFrame) -> Iterator[tuple[str, Callable[[Any], Any] | None]]:
    """What runs each form, None where there is none."""
    for name, backend in (("program", ProgramBackend), ("onnx", OnnxBackend)):
        folder = Path(tempfile.mkdtemp())
        classes = estimator.classes_.tolist()
        made = compile_estimator(estimator, infer(X), classes, folder, X.to_numpy(), backends=(name,))
        found = [backend(folder, form, classes, Thresholds(), None).run for form in made.forms]  # type: ignore[abstract,arg-type]
        yield name, found[0] if found else None


def main() -> None:
    """Print a table of Markdown."""
    warnings.simplefilter("ignore")
    rng = np.random.default_rng(0)
    X = pd.DataFrame(rng.normal(size=(1000, 10)), columns=[f"f{i}" for i in range(10)])
    print(
        "| | classes | 1 row: program | ONNX Runtime | 1,000 rows: program | ONNX Runtime |\n|---|---|---|---|---|---|"
    )
    for name, make in CLASSIFIERS.items():
        for k in (2, 3):
            score = X["f0"] + rng.normal(size=len(X))
            estimator = make().fit(X, np.digitize(score, np.quantile(score, np.linspace(0, 1, k + 1)[1:-1])))
            runs, cells = dict(opened(estimator, X)), []
            for count, n in RUNS.items():
                rows = np.ascontiguousarray(X.to_numpy()[:count])
                taken: dict[str, list[float]] = {of: [] for of in runs}
                for _ in range(ROUNDS):  # one after the other, so that both meet the same neighbours
                    for of, run in runs.items():
                        if run is not None:
                            taken[of].append(microseconds(lambda run=run, rows=rows: run(rows), n))  # type: ignore[misc]
                cells += [f"{statistics.median(each):.1f} µs" if each else "none" for each in taken.values()]
            print(f"| {name} | {k} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
