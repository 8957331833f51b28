"""Rows with text that has codes, beside rows of as many numbers, as JSON and as a DataFrame.

    python -m benchmarks.codes

Ends within a minute.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from typing import Any

import pandas as pd

from benchmarks.blocks import alternate
from fin_pyfunc.model.encoders import without_codes
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec

NUMBERS, TEXTS, MANY_ROWS, ROUNDS = 10, 3, 5_000, 15
VENUES: list[str | int | float | bool] = ["EBS", "LMAX", "Cboe", "Hotspot", "Currenex"]


def measure() -> dict[str, float]:
    """Median seconds of each way."""
    numbers = [Feature(name=f"x{i}", kind="number", dtype="float64") for i in range(NUMBERS + TEXTS)]
    texts = [Feature(name=f"t{i}", kind="string", dtype="str", codes=VENUES) for i in range(TEXTS)]
    plain, coded = FeatureSpec(features=numbers), FeatureSpec(features=[*numbers[:NUMBERS], *texts])
    of_numbers: dict[str, Any] = {f"x{i}": 1.2345678 * (i + 1) for i in range(NUMBERS + TEXTS)}
    of_text = dict(list(of_numbers.items())[:NUMBERS]) | {f"t{i}": VENUES[i] for i in range(TEXTS)}
    unknown, without = {**of_text, "t0": "elsewhere"}, without_codes(coded)
    calls: dict[str, Callable[[int], Any]] = {}
    for name, spec, row in (("numbers", plain, of_numbers), ("text", coded, of_text)):
        assert spec.reader is not None
        one, many, frame = (
            json.dumps(row).encode(),
            json.dumps([row] * MANY_ROWS).encode(),
            pd.DataFrame([row] * MANY_ROWS),
        )
        calls[f"1 row of JSON, {name}"] = lambda _, spec=spec, body=one: spec.reader.one(body)
        calls[f"{MANY_ROWS} rows of JSON, {name}"] = lambda _, spec=spec, body=many: spec.reader.many(body)
        calls[f"{MANY_ROWS} rows of a DataFrame, {name}"] = lambda _, spec=spec, frame=frame: spec.check(frame)
    frame = pd.DataFrame([of_text] * MANY_ROWS)
    calls[f"{MANY_ROWS} rows of a DataFrame, text without codes"] = lambda _: without.check(frame)
    calls["1 row, text without codes"] = lambda _: without.table([of_text])
    calls["1 row, a text that has no code, as a matrix"] = lambda _: coded.encode(coded.table([unknown]))
    return {name: statistics.median(seconds) for name, seconds in alternate(calls, ROUNDS).items()}


if __name__ == "__main__":
    for name, seconds in measure().items():
        print(f"{name:55} {1e6 * seconds:10.1f} µs")
