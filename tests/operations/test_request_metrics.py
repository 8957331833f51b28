"""What is counted of many requests at once is what counting each by itself would find."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.decision import Decisions, Scores, Thresholds
from fin_pyfunc.model.errors import FeatureError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.block import TOGETHER
from fin_pyfunc.serving.metrics.requests import RequestMetrics
from fin_pyfunc.serving.metrics.values import Values
from fin_pyfunc.serving.observers import Answered
from fin_pyfunc.serving.prediction import Prediction

PATHS = ["/predict", "/predict/batch"]
NUMBERS = FeatureSpec(
    features=[Feature(name="spread", kind="number", dtype="float64"), Feature(name="x", kind="number", dtype="float64")]
)
WORDS = FeatureSpec(
    features=[
        Feature(name="spread", kind="number", dtype="float64"),
        Feature(name="venue", kind="text", dtype="object"),
    ]
)
RANGES = {"spread": (0.0, 1.0)}


def model(name: str, features: FeatureSpec | None) -> Any:
    manifest = SimpleNamespace(ranges=RANGES)
    return SimpleNamespace(
        resolved=SimpleNamespace(model_id=name), model=SimpleNamespace(features=features, manifest=manifest)
    )


MODELS = [model("models:/m-1", NUMBERS), model("models:/m-2", WORDS), model("models:/m-3", None)]
CLASSES = [-1, 0, 1]


@st.composite
def answers(draw: st.DrawFn) -> Answered:
    loaded, n = draw(st.sampled_from(MODELS)), draw(st.sampled_from([1, 1, 1, 2, 7, 0]))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    p = rng.dirichlet([0.3, 0.3, 0.3], n) if draw(st.booleans()) else None
    index = rng.integers(0, 3, n).astype(np.intp)
    values = rng.uniform(-0.5, 1.5, (n, 2))
    values[rng.random((n, 2)) < 0.1] = np.nan
    table: Any = np.asfortranarray(values) if draw(st.booleans()) else values
    if loaded.model.features is WORDS:
        table = pd.DataFrame({"spread": values[:, 0], "venue": rng.choice(["lse", None], n)})
    # a model that does not say its classes has a list of its own with each answer
    classes = CLASSES if draw(st.booleans()) else list(CLASSES)
    decisions = Decisions(Scores(classes=classes, index=index, probabilities=p), Thresholds(), f"b{p is None}")
    began = draw(st.floats(0, 10))
    prediction = Prediction(
        None, loaded, table, decisions, began, began + 0.001, entered=began - draw(st.sampled_from([0, 0.25])),
    )  # fmt: skip
    prediction.scored, prediction.encoded = began + 0.002, began + 0.004
    return 0.0, 0.01, 200, "POST", draw(st.sampled_from(PATHS)), {"prediction": prediction}, None


def test_what_was_not_predicted_is_counted_too(tmp_path: Path) -> None:
    values = Values(tmp_path)
    counting = RequestMetrics(values, PATHS)
    error = FeatureError.__new__(FeatureError)
    error.problems = [
        SimpleNamespace(problem="missing", feature="spread"),
        SimpleNamespace(problem="unknown", feature="k"),
    ]  # type: ignore[misc]
    counting.answered(
        [
            (0.0, 0.1, 404, "GET", "/made-up", {}, None),
            (0.0, 0.1, 0, "POST", "/predict", {}, None),
            (0.0, 0.1, 429, "POST", "/predict", {}, None),
            (0.0, 0.1, 422, "POST", "/predict", {}, error),
        ]
    )
    assert values._numbers[m.REQUESTS] == {
        ("other", "404", ""): 1,
        ("/predict", "499", ""): 1,
        ("/predict", "429", ""): 1,
        ("/predict", "422", ""): 1,
    }
    assert values._numbers[m.RATE_LIMITED] == {("/predict",): 1}
    assert values._numbers[m.FEATURES_REFUSED] == {("spread", "missing"): 1, ("other", "unknown"): 1}


@settings(max_examples=40)
@given(st.lists(answers(), max_size=12), st.integers(1, TOGETHER), st.integers(1, 5))
def test_many_at_once_are_counted_as_one_by_one(
    tmp_path_factory: Any, requests: list[Answered], times: int, at_once: int
) -> None:
    requests = (requests * times)[: TOGETHER + 100]
    values = Values(tmp_path_factory.getbasetemp())
    counting = RequestMetrics(values, PATHS)
    for start in range(0, len(requests), at_once):
        counting.answered(requests[start : start + at_once])
    counting.count()
    counting.count()  # nothing is counted twice
    expected: dict[Any, Counter[tuple[str, ...]]] = {
        metric: Counter()
        for metric in (m.REQUESTS, m.PREDICTIONS, m.CONFIDENCES, m.BACKENDS, m.FEATURES_NULL, m.FEATURES_OUT_OF_RANGE)
    }
    rows: Counter[tuple[str, ...]] = Counter()
    waits: Counter[tuple[str, ...]] = Counter()
    for _, _, _, _, path, state, _ in requests:
        p: Prediction = state["prediction"]
        id_, n = p.loaded.resolved.model_id, len(p.table)
        expected[m.REQUESTS][path, "200", id_] += 1
        rows[(path,)] += n
        waits[(path,)] += p.entered is not p.began and p.entered != p.began
        expected[m.BACKENDS][id_, p.decisions.backend] += n
        expected[m.PREDICTIONS].update((id_, str(label)) for label in p.decisions.predictions)
        expected[m.CONFIDENCES].update((id_, word) for word in p.decisions.confidences)
        features = p.loaded.model.features
        if features is not None:
            frame = p.table if isinstance(p.table, pd.DataFrame) else pd.DataFrame(p.table, columns=features.names)
            for name in features.names:
                expected[m.FEATURES_NULL][id_, name] += int(frame[name].isna().sum())
            low, high = RANGES["spread"]
            expected[m.FEATURES_OUT_OF_RANGE][id_, "spread"] += int(
                ((frame["spread"] < low) | (frame["spread"] > high)).sum()
            )
    for metric, counts in expected.items():
        assert {k: v for k, v in values._numbers.get(metric, {}).items() if v} == {k: v for k, v in counts.items() if v}
    for path in rows:
        n = sum(1 for request in requests if request[4] == path[0])
        histograms = {metric: values._histograms[metric][path] for metric in (m.ROWS_PER_REQUEST, m.REQUEST_SECONDS)}
        assert all(sum(each.counts) == n for each in histograms.values())
        assert histograms[m.ROWS_PER_REQUEST].total == rows[path]
        waited = values._histograms[m.LOAD_WAIT_SECONDS][path]
        assert (sum(waited.counts), round(waited.total / 0.25)) == (n, waits[path])
