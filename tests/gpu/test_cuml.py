"""Estimators of cuML are logged as what needs no GPU, once that answers as the GPU does.

cuML itself takes a device and 870 MB: these tests use `tests/gpu/standin/cuml`, whose estimators have its interface and
compute with scikit-learn. test_device.py has the same with cuML.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import fin_pyfunc
from fin_pyfunc.model.device import probe
from fin_pyfunc.model.errors import ArtifactError, BackendError, NotLoggableError
from tests.models import N_TRAIN, bars, labels, logistic

X, y = bars().iloc[:N_TRAIN], labels(-1, 0, 1)[:N_TRAIN]


def cuml(name: str, **params: Any) -> Any:
    """An estimator of cuML's, such as "svm.SVC", not fitted."""
    from importlib import import_module

    module, _, kind = name.rpartition(".")
    return getattr(import_module(f"cuml.{module}"), kind)(**params)


def saved(estimator: Any, folder: Path, **options: Any) -> dict[str, Any]:
    """Save it; its manifest."""
    fin_pyfunc.save_model(estimator, X, folder / "model", **options)
    found: dict[str, Any] = json.loads((folder / "model/artifacts/fin_pyfunc/manifest.json").read_text())
    return found


FAMILIES = {
    "linear_model.LogisticRegression": {"max_iter": 500},
    "ensemble.RandomForestClassifier": {"n_estimators": 8, "max_depth": 4, "random_state": 0},
    "neighbors.KNeighborsClassifier": {},
    "svm.SVC": {},
    "svm.LinearSVC": {},
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("is_piped", [False, True], ids=["alone", "in a pipeline"])
def test_what_was_trained_on_a_gpu_is_served_without_one(
    name: str, is_piped: bool, tmp_path: Path, standin: Path
) -> None:
    estimator = cuml(name, **FAMILIES[name])
    fitted = make_pipeline(StandardScaler(), estimator) if is_piped else estimator
    fitted.fit(X.to_numpy(), y)
    manifest = saved(fitted, tmp_path)
    assert manifest["gpu_only"] is False
    assert manifest["estimator"].endswith("Pipeline" if is_piped else name)
    assert b"cuml" not in (tmp_path / "model/artifacts/fin_pyfunc/estimator.skops").read_bytes()
    assert "cuml" not in (tmp_path / "model/requirements.txt").read_text()
    model = fin_pyfunc.load_model(str(tmp_path / "model"), backend="native")
    held_out = bars().iloc[N_TRAIN:].reset_index(drop=True)
    predicted = fitted.predict(held_out.to_numpy()).get()
    assert model.predict(held_out)["prediction"].tolist() == predicted.tolist()


@pytest.mark.parametrize("name", ["linear_model.LogisticRegression", "svm.LinearSVC"])
def test_where_there_is_a_gpu_it_is_rebuilt_there(name: str, tmp_path: Path, standin: Path) -> None:
    fitted = make_pipeline(StandardScaler(), cuml(name, **FAMILIES[name])).fit(X.to_numpy(), y)
    manifest = saved(fitted, tmp_path)
    form = next(form for form in manifest["forms"] if form["backend"] == "cuml")
    assert list(form["parts"].values()) == [f"cuml.{name}"]
    assert form["file"] == "estimator.skops"
    model = fin_pyfunc.load_model(str(tmp_path / "model"), backend="gpu")
    (backend,) = model.dispatch.backends
    assert (backend.name, backend.device) == ("cuml", "gpu")
    assert type(backend._on_gpu.estimator.steps[-1][1]).__module__.startswith("cuml.")  # type: ignore[attr-defined]
    held_out = bars().iloc[N_TRAIN:]
    own = fin_pyfunc.load_model(str(tmp_path / "model"), backend="native").decide_frame(held_out)
    got = model.decide_frame(held_out)
    assert (got.backend, got.predictions) == ("cuml", own.predictions)


def test_labels_that_were_encoded_for_the_gpu_are_the_users_again(tmp_path: Path, standin: Path) -> None:
    encoded = cuml("linear_model.LogisticRegression").fit(X.to_numpy(), (y + 1).astype(np.float32))
    saved(encoded, tmp_path, classes=[-1, 0, 1])
    for backend in ("auto", "native", "cuml"):
        answers = fin_pyfunc.load_model(str(tmp_path / "model"), backend=backend).predict(X)
        assert set(answers["prediction"]) == {-1, 0, 1}
        assert "probability_-1" in answers
        assert answers["prediction"].tolist() == (encoded.inner.predict(X.to_numpy()) - 1).astype(int).tolist()


def test_one_fitted_under_cuml_accel_is_its_scikit_learn_self(tmp_path: Path, standin: Path) -> None:
    from cuml.accel import Proxy  # type: ignore[import-not-found, unused-ignore] # the stand-in

    fitted = Proxy(C=2.0).fit(X.to_numpy(), y)
    manifest = saved(fitted, tmp_path)
    assert manifest["estimator"] == "sklearn.linear_model.LogisticRegression"
    assert {form["backend"] for form in manifest["forms"]} == {"program", "cuml"}
    model = fin_pyfunc.load_model(str(tmp_path / "model"), backend="native")
    assert model.predict(X)["prediction"].tolist() == fitted.predict(X.to_numpy()).tolist()
    native: Any = model.dispatch.backends[0]
    assert type(native.load().estimator).__module__ == "sklearn.linear_model._logistic"


def test_of_a_forest_that_gives_its_trees_alone_they_are_taken(tmp_path: Path, standin: Path) -> None:
    fitted = cuml("ensemble.TreesOnly", n_estimators=5, max_depth=3, random_state=0).fit(X.to_numpy(), y + 1)
    manifest = saved(fitted, tmp_path, classes=[-1, 0, 1])
    assert {"trees", "treelite"} <= {form["backend"] for form in manifest["forms"]}
    model = fin_pyfunc.load_model(str(tmp_path / "model"))
    assert model.predict(X)["prediction"].tolist() == (fitted.predict(X.to_numpy()).get() - 1).tolist()


def test_one_without_a_form_for_the_cpu_is_logged_as_gpu_only_and_says_so(
    tmp_path: Path, standin: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted = cuml("linear_model.MBSGDClassifier", loss="log_loss", random_state=0).fit(X.to_numpy(), y)
    with pytest.raises(NotLoggableError, match=r"on a GPU only: MBSGDClassifier has no scikit-learn form \(mini"):
        saved(fitted, tmp_path)
    manifest = saved(fitted, tmp_path, serialization="cloudpickle")
    assert "MBSGDClassifier is logged as GPU-only" in caplog.text
    assert (manifest["gpu_only"], manifest["forms"]) == (True, [])
    model = fin_pyfunc.load_model(str(tmp_path / "model"))
    assert model.dispatch.described == "native (gpu)"
    assert model.predict(X)["prediction"].tolist() == fitted.predict(X.to_numpy()).get().tolist()
    with pytest.raises(BackendError, match="backend 'cpu' is not available for this model"):
        fin_pyfunc.load_model(str(tmp_path / "model"), backend="cpu")
    import cuda.bindings.runtime as runtime  # type: ignore[import-not-found, unused-ignore] # the stand-in

    monkeypatch.setattr(runtime, "cudaGetDevice", lambda: (100, 0))
    probe.cache_clear()
    with pytest.raises(BackendError, match=r"MBSGDClassifier is GPU-only\), and the NVIDIA driver sees no GPU"):
        fin_pyfunc.load_model(str(tmp_path / "model"))


def test_any_can_be_logged_as_gpu_only_on_purpose(tmp_path: Path, standin: Path) -> None:
    fitted = cuml("linear_model.LogisticRegression").fit(X.to_numpy(), y)
    assert saved(fitted, tmp_path, backend="gpu", serialization="cloudpickle")["gpu_only"] is True


def test_a_form_for_the_cpu_that_answers_otherwise_than_the_gpu_is_refused(tmp_path: Path, standin: Path) -> None:
    fitted = cuml("linear_model.LogisticRegression").fit(X.to_numpy(), y)
    fitted.drift = 0.01
    with pytest.raises(NotLoggableError, match=r"answers otherwise than the GPU .* log it as GPU-only"):
        saved(fitted, tmp_path)


def test_what_rounding_on_the_gpu_explains_is_taken(
    tmp_path: Path, standin: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fitted = cuml("linear_model.LogisticRegression").fit(X.to_numpy(), y)
    fitted.drift = 1e-6
    with caplog.at_level(logging.INFO, "fin_pyfunc"):
        saved(fitted, tmp_path)
    assert "the scikit-learn form of LogisticRegression is within 1e-06 of the GPU" in caplog.text


def test_a_manifest_can_have_no_class_but_cumls_made(tmp_path: Path, standin: Path) -> None:
    from fin_pyfunc.model.backends.cuml import rebuilt
    from fin_pyfunc.model.backends.native import NativeBackend

    twin = NativeBackend(logistic().estimator, None)
    with pytest.raises(ArtifactError, match="none of cuML's"):
        rebuilt(twin, {"sklearn.linear_model._logistic.LogisticRegression": "subprocess.Popen"})


def test_without_cuml_no_estimator_is_walked_through(tmp_path: Path) -> None:
    from fin_pyfunc.authoring.cuml import twin_of

    assert twin_of(object()) is None
