"""Who says what computes: the model, MLflow's model_config, a file, the environment, an option; the later wins."""

from __future__ import annotations

import sys
from pathlib import Path

import mlflow
import pytest

import fin_pyfunc
from fin_pyfunc.model.choice import asking_for, nearest
from fin_pyfunc.model.errors import BackendError, NotLoggableError
from fin_pyfunc.serving import settings
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver
from tests.cli.commands import refused, run
from tests.models import logistic, small_forest


def computes(folder: Path, config: dict[str, str] | None = None) -> str:
    """The backend of a row, for whoever loads a model as MLflow does."""
    model = mlflow.pyfunc.load_model(str(folder), model_config=config).unwrap_python_model()
    return str(model.decide_frame(small_forest().held_out.head(1)).backend)


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that was logged to be computed by its estimator."""
    folder = tmp_path_factory.mktemp("native") / "model"
    fin_pyfunc.save_model(small_forest().estimator, small_forest().train, folder, backend="native")
    return folder


def test_the_nearest_to_the_process_wins(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert computes(native) == "native"
    assert computes(native, {"backend": "trees"}) == "trees"
    monkeypatch.setenv("FIN_PYFUNC_BACKEND", "treelite")
    assert computes(native, {"backend": "trees"}) == "treelite"
    assert fin_pyfunc.load_model(str(native)).dispatch.wanted == "treelite"
    assert fin_pyfunc.load_model(str(native), backend="trees").dispatch.wanted == "trees"
    with asking_for("native"):
        assert computes(native, {"backend": "trees"}) == "native"
    monkeypatch.setenv("FIN_PYFUNC_BACKEND", "")  # none
    assert computes(native) == "native"
    assert nearest(None) is None


def test_a_server_takes_an_option_before_its_own_variable_that_before_the_shared_one_and_that_before_the_file(
    tmp_path: Path,
) -> None:
    file = tmp_path / "api.yaml"
    file.write_text("deployment: {api: {backend: cpu}}")
    environ = {"FIN_PYFUNC_BACKEND": "native"}
    assert settings.load(file, environ={}).backend == "cpu"
    assert settings.load(file, environ=environ).backend == "native"
    environ["FIN_PYFUNC__BACKEND"] = "trees"
    assert settings.load(file, environ=environ).backend == "trees"
    assert settings.load(file, environ=environ, overrides={"backend": "gpu"}).backend == "gpu"


def test_mlflows_routes_of_a_server_take_what_the_server_takes(native: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIN_PYFUNC_BACKEND", "treelite")
    resolver = Resolver(None)
    loaded = load(resolver, resolver.resolve_argument(str(native)), "trees")
    assert loaded.model.dispatch.wanted == "trees"
    assert loaded.pyfunc.unwrap_python_model().dispatch.wanted == "trees"
    assert load(resolver, resolver.resolve_argument(str(native))).model.dispatch.wanted == "treelite"
    resolver.close()


def test_commands_take_an_option_and_the_variable(
    native: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    small_forest().held_out.to_csv(tmp_path / "rows.csv", index=False)
    monkeypatch.setenv("FIN_PYFUNC_BACKEND", "treelite")
    said = run("inspect", native).out
    assert "treelite (cpu)" in said
    assert "asked for: treelite" in said
    assert "asked for: trees" in run("inspect", native, "--backend", "trees").out
    assert run("predict", "-m", native, tmp_path / "rows.csv", "--backend", "trees").code == 0
    monkeypatch.setenv("FIN_PYFUNC_BACKEND", "abacus")
    assert "backend 'abacus' is not available" in refused("predict", "-m", native, tmp_path / "rows.csv")


@pytest.mark.parametrize("backend", ["gpu", "nvforest", "nvforest-gpu", "cuml"])
def test_what_a_gpu_could_never_compute_is_refused_when_it_is_logged(backend: str, tmp_path: Path) -> None:
    with pytest.raises(NotLoggableError, match=f"backend='{backend}' cannot be had for this estimator"):
        fin_pyfunc.save_model(logistic().estimator, logistic().train, tmp_path / "model", backend=backend)


def test_a_forest_may_be_logged_for_a_gpu_that_is_elsewhere(tmp_path: Path, standin: Path) -> None:
    fin_pyfunc.save_model(small_forest().estimator, small_forest().train, tmp_path / "model", backend="gpu")
    assert fin_pyfunc.load_model(str(tmp_path / "model")).dispatch.backends[0].name == "nvforest-gpu"


def test_there_it_says_why_a_model_has_no_form_for_the_device(tmp_path: Path, standin: Path) -> None:
    fin_pyfunc.save_model(logistic().estimator, logistic().train, tmp_path / "model")
    with pytest.raises(
        BackendError,
        match=r"'gpu' was asked for, but this model has no form for it \(LogisticRegression is no ensemble",
    ):
        fin_pyfunc.load_model(str(tmp_path / "model"), backend="gpu")


def test_a_library_that_is_not_installed_is_named(
    saved: Path, standin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "cuda").symlink_to(standin / "cuda")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *(folder for folder in sys.path if folder != str(standin))])
    with pytest.raises(BackendError, match="package 'nvforest' is not installed here"):
        fin_pyfunc.load_model(str(saved), backend="gpu")
