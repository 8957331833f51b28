"""A device that fails while a server serves: with `auto` every request is answered, with `gpu` it is 503 meanwhile."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fin_pyfunc.model.backends import nvforest as nvforest_backend
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.device import gpu_available, probe
from fin_pyfunc.model.errors import BackendError
from tests.gpu.conftest import STANDIN
from tests.models import OF_FORESTS, bars, small_forest
from tests.servers import Serving, serving


def row(i: int = 0) -> dict[str, Any]:
    return {str(name): float(value) for name, value in bars().iloc[i].items()}


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that says how the device fails; it does while it is there."""
    return tmp_path_factory.mktemp("device") / "fails"


@pytest.fixture(scope="module")
def on_gpu(saved: Path, failing: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    env = {"PYTHONPATH": str(STANDIN), "STANDIN_FAILS": str(failing)}
    with serving("-m", str(saved), "--backend", "gpu", folder=tmp_path_factory.mktemp("gpu"), env=env) as server:
        yield server


def test_a_server_says_what_device_it_has_and_what_computed_an_answer(on_gpu: Serving) -> None:
    on_gpu.wait_for_log("GPU: Stand-in 1")
    assert on_gpu.wait_for("/health").json()["gpu_available"] is True
    answered = on_gpu.predict(row())
    assert answered.json()["prediction"] == small_forest().estimator.predict(bars().head(1))[0]
    assert answered.headers["X-Model-Backend"] == "nvforest-gpu"
    assert ": nvforest-gpu (gpu)" in on_gpu.log()


@pytest.mark.parametrize("fails", ["lost", "memory"])
def test_with_gpu_a_failing_device_is_503_until_it_is_back(on_gpu: Serving, failing: Path, fails: str) -> None:
    failing.write_text(fails)
    try:
        for answered in (on_gpu.predict(row()), on_gpu.predict_batch([row(i) for i in range(50)])):
            assert answered.status_code == 503
            assert answered.headers["Retry-After"] == "1"
            assert answered.json()["detail"].startswith("the GPU failed while it scored (")
    finally:
        failing.unlink()
    assert on_gpu.predict(row()).headers["X-Model-Backend"] == "nvforest-gpu"
    on_gpu.wait_for_log("nothing else is allowed to stand in")


def test_mlflows_own_route_answers_503_too(on_gpu: Serving, failing: Path) -> None:
    body = {"dataframe_records": [row()]}
    assert on_gpu._post("/invocations", body).status_code == 200
    failing.write_text("lost")
    try:
        assert on_gpu._post("/invocations", body).status_code == 503
    finally:
        failing.unlink()


def test_with_auto_no_request_is_lost_by_a_device_that_fails(saved: Path, tmp_path: Path) -> None:
    failing = tmp_path / "fails"
    env = {"PYTHONPATH": str(STANDIN), "STANDIN_FAILS": str(failing), "FIN_PYFUNC_BACKEND": "auto"}
    rows = [row(i) for i in range(200)]
    expected = small_forest().estimator.predict(bars().iloc[:200]).tolist()
    with serving("-m", str(saved), folder=tmp_path, env=env) as server, ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(server.predict_batch, rows) for _ in range(10)]
        failing.write_text("lost")
        asked += [callers.submit(server.predict_batch, rows) for _ in range(30)]
        for answered in (one.result() for one in asked):
            assert answered.status_code == 200
            assert answered.json()["predictions"] == expected
    assert server.log().count("the model goes on with") <= 1  # none, where the plan had no use for the device


def opened(saved: Path, backend: str) -> Classifier:
    model = Classifier()
    model.open(saved / "artifacts" / "fin_pyfunc", backend)
    return model


def test_a_fallback_is_one_line_one_count_and_one_call_of_the_hook(
    saved: Path, standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("STANDIN_FAILS", str(tmp_path / "fails"))
    dispatch = opened(saved, "nvforest").dispatch
    told: list[str] = []
    dispatch.on_fallback = told.append
    dispatch.adopt({"nvforest-gpu": {1: 1e-6}, "nvforest-cpu": {1: 1.0}})  # as where the device pays for any row
    table = small_forest().held_out.to_numpy()
    before, name = dispatch.score(table)
    assert (name, dispatch.fallbacks, told) == ("nvforest-gpu", 0, [])
    (tmp_path / "fails").write_text("lost")
    assert dispatch.score_now(table[:1]) is None  # an event loop leaves it to `score`
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: dispatch.score(table), range(16)))
    assert {name for _, name in found} == {"nvforest-cpu"}
    assert all((scores.index == before.index).all() for scores, _ in found)
    assert (dispatch.fallbacks, told) == (1, ["RuntimeError"])
    assert caplog.text.count("the model goes on with nvforest-cpu") == 1
    assert dispatch.plan is not None
    assert [step.backend for step in dispatch.plan.steps] == ["nvforest-cpu"]
    gc.collect()
    assert [device for _, device in nvforest_backend._FORESTS] == ["cpu"]  # the device's memory is given back


def test_a_device_that_fails_while_it_is_measured_is_left_alone(
    saved: Path, standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STANDIN_FAILS", str(tmp_path / "fails"))
    (tmp_path / "fails").write_text("lost")
    dispatch = opened(saved, "auto").dispatch
    assert "gpu" not in {backend.device for backend in dispatch.backends}
    assert dispatch.fallbacks == 1


def test_the_device_is_measured_for_many_rows_and_a_file_is_scored_by_it_where_it_pays(
    saved: Path, standin: Path
) -> None:
    dispatch = opened(saved, "auto").dispatch
    assert dispatch.plan is not None
    assert max(dispatch.plan.times["nvforest-gpu"]) >= 10_000
    dispatch.adopt({OF_FORESTS: {1: 1e-6, 1000: 1.0}, "nvforest-gpu": {1: 1e-3, 1000: 1e-3}})
    assert dispatch.choose(1).name == OF_FORESTS
    dispatch.pin(10_000)
    assert {dispatch.choose(n).name for n in (1, 1000, 1_000_000)} == {"nvforest-gpu"}


def test_the_probe_is_asked_once_and_imports_no_machine_learning(standin: Path) -> None:
    assert gpu_available()
    assert probe() is probe()
    assert not {name.partition(".")[0] for name in sys.modules} & {"cuml", "cupy", "nvforest", "rmm"}


def test_gpu_without_a_device_is_refused_when_it_is_loaded_with_the_reason(saved: Path, nvforest: Path) -> None:
    probe.cache_clear()
    try:
        with pytest.raises(BackendError, match=r"backend 'gpu' was asked for, but no NVIDIA driver is installed, or"):
            opened(saved, "gpu")
        assert {b.device for b in opened(saved, "auto").dispatch.backends} == {"cpu"}
    finally:
        probe.cache_clear()
