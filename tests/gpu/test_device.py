"""What only a device can show: `make test-gpu`, on a machine that has one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fin_pyfunc
from fin_pyfunc.model.backends import nvforest as own
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.device import gpu_refusal, probe
from tests.compiling.checks import odd_rows
from tests.compiling.test_families import FAMILIES
from tests.models import N_TRAIN, bars, labels, small_forest
from tests.servers import serving

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(gpu_refusal() is not None, reason=f"no GPU to test on: {gpu_refusal()}"),
    pytest.mark.skipif(
        os.environ.get("FIN_PYFUNC_TEST_NVFOREST") != "installed", reason="run by 'make test-gpu', which installs more"
    ),
]
WITH_TREES = [family for family, (_, forms) in FAMILIES.items() if "treelite" in forms]


def loaded(folder: Path, backend: str) -> Any:
    return fin_pyfunc.load_model(str(folder / "model"), backend=backend)


def test_the_device_has_a_name() -> None:
    assert probe().name


@pytest.mark.parametrize("family", WITH_TREES)
def test_a_gpu_answers_as_the_estimator_does(family: str, tmp_path: Path) -> None:
    model = FAMILIES[family][0]()
    fin_pyfunc.save_model(model.estimator, model.train, tmp_path / "model")
    on_gpu, native = loaded(tmp_path, "gpu"), loaded(tmp_path, "native")
    rows = model.train if on_gpu.features is None else on_gpu.features.check(model.train)
    got, expected = on_gpu.decide_table(rows), native.decide_table(rows)
    assert got.backend == "nvforest-gpu"
    assert got.predictions == expected.predictions
    np.testing.assert_allclose(got.scores.probabilities, expected.scores.probabilities, rtol=0, atol=1e-6)
    alone = on_gpu.decide_table(rows[:1]).scores.probabilities
    np.testing.assert_allclose(alone, got.scores.probabilities[:1], rtol=0, atol=1e-12)


def test_no_class_flips_on_odd_rows(tmp_path: Path) -> None:
    from tests.compiling.checks import compiled

    made = compiled(small_forest(), tmp_path)
    rows = np.tile(odd_rows(made, small_forest().train), (200, 1))
    form = made.form("treelite")
    from fin_pyfunc.model.decision import Thresholds

    gpu = own.NvForestGpuBackend(made.folder, form, [-1, 0, 1], Thresholds(), made.native)
    np.testing.assert_array_equal(gpu.score(rows).index, made.native.score(rows).index)


def test_memory_goes_back_to_the_device_with_the_model(saved: Path) -> None:
    from cuda.bindings import runtime

    def free() -> int:
        return int(runtime.cudaMemGetInfo()[1])

    def used_once() -> None:
        model = Classifier()
        model.open(saved / "artifacts" / "fin_pyfunc", "gpu")
        model.dispatch.score(np.resize(small_forest().train.to_numpy(), (200_000, 5)))

    used_once()  # what the libraries keep for themselves
    before = free()
    for _ in range(20):
        used_once()
    assert before - free() < 64 << 20
    assert not own._FORESTS


def test_a_server_serves_from_the_gpu(saved: Path, tmp_path: Path) -> None:
    row = {str(name): float(value) for name, value in bars().iloc[0].items()}
    with serving("-m", str(saved), "--backend", "gpu", folder=tmp_path) as server:
        assert server.predict(row).headers["X-Model-Backend"] == "nvforest-gpu"
        assert server.wait_for("/health").json()["gpu_available"] is True


@pytest.mark.parametrize(
    "name",
    [
        "ensemble.RandomForestClassifier", "linear_model.LogisticRegression", "neighbors.KNeighborsClassifier",
        "svm.SVC", "svm.LinearSVC",
    ],
)  # fmt: skip
def test_cumls_estimators_are_logged_as_what_needs_no_gpu(name: str, tmp_path: Path) -> None:
    from importlib import import_module

    pytest.importorskip("cuml", reason="the extra cuml is not installed")
    module, _, kind = name.rpartition(".")
    X, y = bars().iloc[:N_TRAIN], labels(-1, 0, 1)[:N_TRAIN]
    fitted = getattr(import_module(f"cuml.{module}"), kind)().fit(X.to_numpy(np.float64), (y + 1).astype(np.int32))
    fin_pyfunc.save_model(fitted, X, tmp_path / "model", classes=[-1, 0, 1], tolerance=1e-4)
    predicted = np.asarray(fitted.predict(X.to_numpy(np.float64))).astype(int) - 1
    model = loaded(tmp_path, "native")
    assert (model.predict(X)["prediction"].to_numpy() == predicted).mean() > 0.99
    assert model.manifest.gpu_only is False
