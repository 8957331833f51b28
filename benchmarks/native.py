"""Issue 22, item 3: one row answered by the estimator itself, through us, beside its own `predict_proba`.

python -m benchmarks.native
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from typing import Any

from benchmarks.bench import Bench
from benchmarks.blocks import alternate
from benchmarks.desk import records_of
from benchmarks.row import Row, ratios
from tests import desk

AT_MOST = 1.05
N_ROWS = 64
#: Blocks of each call, and seconds of one: a native call takes up to tens of milliseconds.
BLOCKS, BLOCK_SECONDS = 15, 0.1


def measure(bench: Bench) -> list[Row]:  # noqa: ARG001 - as the other benchmarks take it
    """Each estimator natively: a dict to an answer, and its own `predict_proba` on a one-row DataFrame."""
    from fin_pyfunc.model.backends.native import NativeBackend
    from fin_pyfunc.model.classifier import Classifier
    from fin_pyfunc.model.dispatch import Dispatch
    from fin_pyfunc.model.features import infer

    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LightGBM's, of names that a matrix has not
        for name, (make, columns) in _estimators().items():
            frame = desk.quotes(1000)
            X, y = frame[columns], (desk.moves(frame) == 2).astype(int)
            estimator = make().fit(X, y)
            spec = infer(X)
            model = Classifier.of(spec, Dispatch([NativeBackend(estimator, spec)], "auto"))
            records, frames = records_of(X[:N_ROWS]), [X.iloc[i : i + 1] for i in range(N_ROWS)]
            found = alternate(
                {
                    "dict to answer": _varied(model.predict_one, records),
                    "its own `predict_proba` on a one-row DataFrame": _varied(estimator.predict_proba, frames),
                },
                BLOCKS,
                BLOCK_SECONDS,
                time.thread_time,
            )
            ours, own = found.values()
            rows.append(
                Row(22, f"native, {name}: dict to answer to its own call", "×", ratios(ours, own), None, AT_MOST)
            )
            rows += [Row(22, f"native, {name}: {call}", "µs", [1e6 * s for s in of]) for call, of in found.items()]
            print(f"  {rows[-3].what}: {rows[-3].measured()}", flush=True)
    return rows


def _estimators() -> dict[str, tuple[Callable[[], Any], list[str]]]:
    """Name to what makes an estimator of two classes, and its columns."""
    from lightgbm import LGBMClassifier
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.ensemble import RandomForestClassifier, VotingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import FixedThresholdClassifier, GridSearchCV, TunedThresholdClassifierCV
    from sklearn.svm import SVC
    from xgboost import XGBClassifier

    made = desk.pipelines()
    text = [*desk.TEXTS, *desk.NUMBERS]
    full = [name for name in desk.NUMBERS if name not in desk.WITH_GAPS]
    linear = made["one-hot, LR"]
    members = [("linear", LogisticRegression()), ("forest", RandomForestClassifier(20, random_state=0))]
    return {
        "Pipeline of text and numbers, LR": (linear, text),
        "Pipeline of text and numbers, LightGBM": (made["one-hot, LightGBM"], text),
        "GridSearchCV of it": (lambda: GridSearchCV(linear(), {"classify__C": [0.1, 1]}, cv=2), text),
        "CalibratedClassifierCV of it": (lambda: CalibratedClassifierCV(linear(), cv=2), text),
        "FixedThresholdClassifier of it": (lambda: FixedThresholdClassifier(linear(), threshold=0.3), text),
        "TunedThresholdClassifierCV of it": (lambda: TunedThresholdClassifierCV(linear(), cv=2), text),
        "Pipeline of numbers, LR": (made["numbers, indicators, LR"], list(desk.NUMBERS)),
        "VotingClassifier": (lambda: VotingClassifier(members, voting="soft"), full),
        "LightGBM": (lambda: LGBMClassifier(n_estimators=50, n_jobs=1, verbose=-1), list(desk.NUMBERS)),
        "XGBoost": (lambda: XGBClassifier(n_estimators=50, n_jobs=1), list(desk.NUMBERS)),
        "SVC": (lambda: SVC(probability=True), full),
    }


def _varied(call: Callable[[Any], Any], arguments: list[Any]) -> Callable[[int], Any]:
    n = len(arguments)
    return lambda i: call(arguments[i % n])


def main() -> None:
    """Measure and print, without writing anything."""
    argparse.ArgumentParser(prog="python -m benchmarks.native", description=__doc__.partition("\n")[0]).parse_args()
    for row in measure(None):  # type: ignore[arg-type] # it needs none of the models
        met = {True: "met", False: "NOT MET", None: ""}[row.met]
        print(f"{row.what}: {row.measured()}{f'; {row.target}: {met}' if met else ''}")


if __name__ == "__main__":
    main()
