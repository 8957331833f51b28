"""Numbers in memory, in files and seen as one: nothing is lost, doubled or unbounded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics import folder as folders
from fin_pyfunc.serving.metrics.values import MAX_SERIES, OTHER, Values

COUNT_IN_A_PROCESS = """
import sys, pathlib
from fin_pyfunc.serving.metrics import definitions as m
from fin_pyfunc.serving.metrics.values import Values
values = Values(pathlib.Path(sys.argv[1]))
values.add(m.RATE_LIMITED, "/predict", by=float(sys.argv[2]))
values.observe(m.LOADS, value=0.2)
values.set(m.MODELS, to=3)
values.flush()
import os
print(os.getpid(), flush=True)
sys.stdin.read()
os.kill(os.getpid(), 9)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    made = folders.make()
    yield made
    folders.remove(made)


def shown(folder: Path) -> dict[str, float]:
    text = folders.expose(folder, "")[0].decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {f"{s.name}{''.join(f'|{v}' for _, v in sorted(s.labels.items()))}": s.value for s in samples}


def count_elsewhere(folder: Path, by: float) -> tuple[subprocess.Popen[str], int]:
    command = [sys.executable, "-c", COUNT_IN_A_PROCESS, str(folder), str(by)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, int(process.stdout.readline())


@given(st.lists(st.tuples(st.sampled_from(["/predict", "/models"]), st.integers(1, 9), st.booleans()), max_size=60))
def test_whatever_is_counted_is_what_is_shown(counted: list[tuple[str, int, bool]]) -> None:
    folder = folders.make()
    values = Values(folder)
    for route, by, is_flushed in counted:
        values.add(m.RATE_LIMITED, route, by=by)
        if is_flushed:
            values.flush()
    values.close()
    found = shown(folder)
    folders.remove(folder)
    for route in ("/predict", "/models"):
        expected = sum(by for asked, by, _ in counted if asked == route)
        assert found.get(f"fin_pyfunc_rate_limited_total|{route}", 0) == expected


@given(st.lists(st.floats(0, 40), min_size=1, max_size=80), st.integers(0, 80))
def test_a_histogram_is_the_same_one_by_one_and_all_at_once(seconds: list[float], n: int) -> None:
    folder = folders.make()
    values = Values(folder)
    for each in seconds[:n]:
        values.observe(m.SCORE_SECONDS, "/predict", value=each)
    if seconds[n:]:
        values.observe_all((m.DECODE_SECONDS, m.SCORE_SECONDS), "/predict", values=np.array([seconds[n:]] * 2))
    values.close()
    found = shown(folder)
    folders.remove(folder)
    assert found["fin_pyfunc_score_seconds_count|/predict"] == len(seconds)
    assert found["fin_pyfunc_score_seconds_sum|/predict"] == pytest.approx(sum(seconds))
    for bound in m.SECONDS:
        # Prometheus counts what is at most the bound
        assert found[f"fin_pyfunc_score_seconds_bucket|{bound}|/predict"] == sum(each <= bound for each in seconds)


def test_sums_are_right_over_processes_and_after_one_was_killed(folder: Path) -> None:
    values = Values(folder)
    values.add(m.RATE_LIMITED, "/predict", by=1)
    values.set(m.MODELS, to=2)
    values.flush()
    (first, first_id), (second, second_id) = count_elsewhere(folder, 10), count_elsewhere(folder, 100)
    before = shown(folder)
    assert before["fin_pyfunc_rate_limited_total|/predict"] == 111
    assert before["fin_pyfunc_models_in_memory"] == 8
    for process, pid in ((first, first_id), (second, second_id)):
        assert process.stdin is not None
        process.stdin.close()
        process.wait()
        folders.bury(folder, pid)
        assert not list(folder.glob(f"*_{pid}.db"))
    after = shown(folder)
    assert after["fin_pyfunc_rate_limited_total|/predict"] == 111
    assert after["fin_pyfunc_model_load_seconds_count"] == 2
    assert after["fin_pyfunc_models_in_memory"] == 2  # a gauge is of those that live


def test_a_process_that_is_given_the_id_of_one_before_counts_on(folder: Path) -> None:
    for _ in range(2):
        values = Values(folder)
        values.add(m.RATE_LIMITED, "/predict", by=5)
        values.observe(m.LOADS, value=1.0)
        values.close()
    found = shown(folder)
    assert found["fin_pyfunc_rate_limited_total|/predict"] == 10
    assert found["fin_pyfunc_model_load_seconds_count"] == 2
    assert found["fin_pyfunc_model_load_seconds_sum"] == 2.0


def test_files_do_not_pile_up_however_many_processes_come_and_go(folder: Path) -> None:
    for _ in range(50):
        values = Values(folder)
        values.add(m.EVICTIONS)
        values.close()
        folders.bury(folder, os.getpid())
    assert shown(folder)["fin_pyfunc_cache_evictions_total"] == 50
    assert len(list(folder.glob("*.db"))) <= 2


def test_label_values_are_bounded_whatever_comes(folder: Path) -> None:
    values = Values(folder)
    for i in range(2 * MAX_SERIES):
        values.add(m.PREDICTIONS, f"models:/m-{i}", "1")
    values.flush()
    found = {name: value for name, value in shown(folder).items() if "predictions_total" in name}
    assert len(found) == MAX_SERIES + 1
    assert found[f"fin_pyfunc_predictions_total|{OTHER}|{OTHER}"] == MAX_SERIES


def test_what_is_off_keeps_nothing() -> None:
    values = Values(None)
    values.add(m.EVICTIONS)
    values.set(m.MODELS, to=1)
    values.observe(m.LOADS, value=1)
    values.flush()
    values.close()
    assert not values._numbers
    assert not values._histograms


def test_no_metric_is_defined_twice_and_labels_are_words() -> None:
    names = [metric.name for metric in m.ALL]
    assert len(set(names)) == len(names)
    assert all(label.isidentifier() for metric in m.ALL for label in metric.labels)
    assert all(sorted(metric.buckets) == list(metric.buckets) for metric in m.ALL)
    assert m.SECONDS[0] == 0.0001  # 100 us
