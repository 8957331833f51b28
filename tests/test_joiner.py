"""Concurrent rows are joined, and never mixed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ScoringError
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.joiner import Decided, Joiner

SPEC = FeatureSpec(features=[Feature(name="x", kind="number", dtype="float64")])


class Echo:
    """Its probability is its feature; it refuses one above 1, and notes how many rows came together."""

    n_features_in_ = 1

    def __init__(self) -> None:
        self.classes_ = np.array([0, 1])
        self.calls: list[int] = []
        self.at_work, self.may_go_on = threading.Event(), threading.Event()
        self.may_go_on.set()

    def predict_proba(self, X: Any) -> Any:
        self.at_work.set()
        assert self.may_go_on.wait(20)
        self.calls.append(len(X))
        if (X[:, 0] > 1).any():
            raise ValueError("above one")
        return np.column_stack([1 - X[:, 0], X[:, 0]])

    def predict(self, X: Any) -> Any:
        return (X[:, 0] > 0.5).astype(int)


@pytest.fixture(scope="module")
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def echo() -> tuple[Echo, Classifier]:
    estimator = Echo()
    return estimator, Classifier.of(SPEC, Dispatch([NativeBackend(estimator, SPEC)]))


def row(x: float) -> np.ndarray[Any, Any]:
    return np.array([[x]])


def told(answer: Decided) -> float:
    decisions, started = answer
    assert started > 0
    assert len(decisions) == 1
    probabilities = decisions.scores.probabilities
    assert probabilities is not None
    return float(probabilities[0, 1])


@settings(max_examples=20, deadline=None)
@given(st.lists(st.floats(0, 1) | st.just(2.0), min_size=1, max_size=400), st.sets(st.integers(0, 399)))
def test_each_of_many_callers_gets_the_answer_to_its_own_row(
    threads: ThreadPoolExecutor, asked: list[float], gone: set[int]
) -> None:
    """Whatever bad rows are among them, and whoever goes away."""
    _, model = echo()

    async def ask_all() -> list[Any]:
        joiner = Joiner(threads)
        tasks = [asyncio.ensure_future(joiner.decide(model, row(x))) for x in asked]
        await asyncio.sleep(0)
        for i in gone:
            if i < len(tasks):
                tasks[i].cancel()
        return await asyncio.gather(*tasks, return_exceptions=True)

    answers = asyncio.run(ask_all())
    for i, (x, answer) in enumerate(zip(asked, answers, strict=True)):
        if isinstance(answer, asyncio.CancelledError):
            assert i in gone
        elif x > 1:
            assert isinstance(answer, ScoringError)
        else:
            assert told(answer) == x


def test_rows_that_come_while_the_model_is_at_work_go_together_in_one_call(threads: ThreadPoolExecutor) -> None:
    estimator, model = echo()

    async def ask() -> None:
        joiner = Joiner(threads)
        estimator.may_go_on.clear()
        first = asyncio.ensure_future(joiner.decide(model, row(0.1)))
        await asyncio.to_thread(estimator.at_work.wait, 20)
        others = [asyncio.ensure_future(joiner.decide(model, row(0.2))) for _ in range(50)]
        await asyncio.sleep(0)
        estimator.may_go_on.set()
        await asyncio.gather(first, *others)

    asyncio.run(ask())
    assert estimator.calls == [1, 50]


def test_a_caller_who_goes_away_is_not_scored_for(threads: ThreadPoolExecutor) -> None:
    estimator, model = echo()

    async def ask() -> None:
        joiner = Joiner(threads)
        estimator.may_go_on.clear()
        first = asyncio.ensure_future(joiner.decide(model, row(0.1)))
        await asyncio.to_thread(estimator.at_work.wait, 20)
        leaving = asyncio.ensure_future(joiner.decide(model, row(2.0)))
        staying = asyncio.ensure_future(joiner.decide(model, row(0.3)))
        await asyncio.sleep(0)
        leaving.cancel()
        estimator.may_go_on.set()
        assert told(await staying) == 0.3
        assert told(await first) == 0.1

    asyncio.run(ask())
    assert estimator.calls == [1, 1]


def test_models_do_not_wait_for_one_another(threads: ThreadPoolExecutor) -> None:
    (held, busy), (_, idle) = echo(), echo()

    async def ask() -> None:
        joiner = Joiner(threads)
        held.may_go_on.clear()
        stuck = asyncio.ensure_future(joiner.decide(busy, row(0.1)))
        assert told(await joiner.decide(idle, row(0.7))) == 0.7
        held.may_go_on.set()
        assert told(await stuck) == 0.1

    asyncio.run(ask())


def test_everyone_is_told_when_the_threads_are_gone() -> None:
    _, model = echo()

    async def ask() -> list[Any]:
        closed = ThreadPoolExecutor(1)
        closed.shutdown()
        joiner = Joiner(closed)
        return await asyncio.gather(*(joiner.decide(model, row(0.1)) for _ in range(3)), return_exceptions=True)

    assert all(isinstance(answer, RuntimeError) for answer in asyncio.run(ask()))
