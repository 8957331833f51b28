"""The plan takes the fastest backend for every row count, and loads an estimator only once that pays."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model import dispatch as module
from fin_pyfunc.model.backends.native import LazyNative, NativeBackend
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.features import infer
from fin_pyfunc.model.plan import CLEARLY, GRID, MANY_ROW_COUNTS, Plan, measure
from tests.models import small_forest

TIMES = st.dictionaries(st.sampled_from([1, 10, 100, 1000]), st.floats(1e-6, 1), min_size=1)


class Clocked:
    """A backend that takes a given time a row."""

    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, name: str, a_call: float, a_row: float) -> None:
        self.name, self.a_call, self.a_row, self.calls = name, a_call, a_row, 0

    def score(self, table: Any) -> Scores:
        self.calls += 1
        time.sleep(self.a_call + self.a_row * len(table))
        return Scores(classes=[0, 1], index=np.zeros(len(table), dtype=np.intp), probabilities=None)

    score_alone = score


@given(st.dictionaries(st.sampled_from(["onnx", "treelite", "native"]), TIMES, min_size=1), st.integers(1, 10**6))
def test_no_backend_is_clearly_faster_than_the_one_that_is_chosen(times: dict[str, dict[int, float]], n: int) -> None:
    plan = Plan(times)
    chosen = plan.seconds(plan.best(n), n)
    near = [
        m for m in (n, int(n / GRID), int(n * GRID) + 1) if m >= 1
    ]  # where the choice changes, to a step of the grid
    assert any(
        plan.seconds(plan.best(n), m) <= CLEARLY**2 * min(plan.seconds(name, m) for name in times) for m in near
    ) or chosen <= CLEARLY**2 * min(plan.seconds(name, n) for name in times)


def test_times_in_between_and_beyond_follow_what_was_measured() -> None:
    plan = Plan({"onnx": {1: 1.0, 11: 2.0, 100: 10.0}})
    assert plan.seconds("onnx", 6) == pytest.approx(1.5)
    assert plan.seconds("onnx", 1000) == pytest.approx(10 + 900 * 8 / 89)
    assert plan.rows_within(0.5) == 0
    assert 1 <= plan.rows_within(1.0) < 11


def test_a_backend_is_measured_until_the_budget_is_spent() -> None:
    slow = Clocked("slow", 0.0, 0.004)
    found = measure(lambda n: slow.score(range(n)), 0.1)
    assert set(found) == {1, 10}
    assert found[10] > found[1]


def test_each_row_count_goes_to_the_backend_that_was_the_faster_one() -> None:
    for_one, for_many = Clocked("onnx", 0.0, 0.0005), Clocked("treelite", 0.003, 0.0)
    dispatch = Dispatch([for_one, for_many])
    dispatch.measure(np.zeros((1000, 1)), budget=0.2)
    assert dispatch.choose(1) is for_one
    assert dispatch.choose(100_000) is for_many


def lazy(read: Callable[[], None] = lambda: None) -> LazyNative:
    fitted = small_forest()

    def now() -> NativeBackend:
        read()
        return NativeBackend(fitted.estimator, infer(fitted.train))

    return LazyNative(now)


def test_an_estimator_is_loaded_only_once_what_was_lost_without_it_would_have_paid_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "LOAD_SECONDS", 0.05)
    read = threading.Event()
    native, compiled = lazy(read.set), Clocked("onnx", 0.0, 1e-4)
    dispatch = Dispatch([compiled, native], logged={"onnx": {1: 1.0, 100: 100.0}, "native": {1: 1.0, 100: 10.0}})
    rows = np.zeros((100, small_forest().held_out.shape[1]))
    dispatch.measure(rows)
    assert not native.is_loaded
    assert dispatch.choose(100) is native  # by the times of when it was logged
    assert dispatch.score(rows)[1] == "onnx"  # which it would be too early to act on
    assert not read.is_set()
    for _ in range(20):
        dispatch.score(rows)
    assert read.wait(10)


def test_an_estimator_that_nothing_stands_in_for_is_loaded_at_once() -> None:
    native = lazy()
    Dispatch([native], "native")
    assert native.is_loaded


def test_an_event_loop_is_given_only_what_is_quick_and_known_to_be() -> None:
    quick, slow = Clocked("onnx", 0.0, 1e-6), Clocked("onnx", 0.01, 0.0)
    assert Dispatch([quick]).score_now(np.zeros((1, 1))) is None  # nobody has measured it
    for backend, now in ((quick, True), (slow, False)):
        dispatch = Dispatch([backend])
        dispatch.measure(np.zeros((100, 1)))
        assert (dispatch.score_now(np.zeros((1, 1))) is not None) == now
    native = lazy()
    dispatch = Dispatch([quick, native])
    dispatch.adopt({"native": {1: 1e-6}, "onnx": {1: 1.0}})
    assert dispatch.score_now(np.zeros((1, 1))) is None
    assert not native.is_loaded


def test_an_event_loop_is_never_given_an_estimators_own_code_however_quick_it_was() -> None:
    fitted = small_forest()
    dispatch = Dispatch([NativeBackend(fitted.estimator, infer(fitted.train))])
    dispatch.adopt({"native": {1: 1e-6}})
    assert dispatch.score_now(np.zeros((1, fitted.held_out.shape[1]))) is None


@given(
    cpu=st.tuples(st.floats(1e-6, 1e-4), st.floats(1e-6, 1e-4)),
    gpu=st.tuples(st.floats(5e-5, 5e-3), st.floats(1e-8, 1e-6)),
    cpu_stops=st.integers(3, len(MANY_ROW_COUNTS)),
    n=st.integers(1, 10_000_000),
)
def test_between_a_cpu_and_a_gpu_it_is_within_a_tenth_of_the_better_one_at_every_row_count(
    cpu: tuple[float, float], gpu: tuple[float, float], cpu_stops: int, n: int
) -> None:
    def takes(of: tuple[float, float], rows: int) -> float:
        return of[0] + of[1] * rows

    # what the CPU takes for many rows is more than the budget allows to measure
    plan = Plan(
        {
            "onnx": {rows: takes(cpu, rows) for rows in MANY_ROW_COUNTS[:cpu_stops]},
            "nvforest-gpu": {rows: takes(gpu, rows) for rows in MANY_ROW_COUNTS},
        }
    )
    chosen = takes(cpu if plan.best(n) == "onnx" else gpu, n)
    assert chosen <= 1.1 * min(takes(cpu, n), takes(gpu, n))


def test_a_first_call_that_opens_something_is_not_taken_for_the_time_of_one() -> None:
    calls: list[int] = []

    def score(n_rows: int) -> None:
        calls.append(n_rows)
        time.sleep(0.2 if calls.count(n_rows) == 1 else 0.001)

    assert measure(score, 1.0, [1, 10])[10] < 0.1
