"""Models that are files: only below the operator's roots, only of a trusted kind, known by their content."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fin_pyfunc.model.errors import ModelForbiddenError, ModelNotFoundError
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.uris import parse
from tests.conftest import SqliteStore
from tests.resolving import refused, save


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("saved") / "model")


@pytest.fixture
def files(tmp_path: Path, saved: Path) -> Path:
    root = tmp_path / "models"
    shutil.copytree(saved, root / "rf")
    for name in ("a.pkl", "a.joblib", "a.skops", "a.onnx", "a.txt"):
        (root / name).write_bytes(b"not a model, and never loaded here")
    return root


def test_a_file_is_known_by_its_content(files: Path) -> None:
    resolver = Resolver(None, file_roots=[files], trust="all")
    for name, kind in {"a.pkl": "pickle", "a.joblib": "joblib", "a.skops": "skops", "a.onnx": "onnx"}.items():
        found = resolver.resolve(parse((files / name).as_uri()))
        assert (found.kind, found.mutable, found.run_id) == (kind, True, None)
        assert resolver.fetch(found).path.read_bytes() == (files / name).read_bytes()
    before = resolver.resolve(parse((files / "rf").as_uri()))
    assert before.kind == "mlflow"
    assert before.model_id.startswith("sha256:")
    assert before == resolver.resolve(parse((files / "rf").as_uri()))
    (files / "rf" / "MLmodel").open("a").write("\n")
    assert resolver.resolve(parse((files / "rf").as_uri())).model_id != before.model_id


def test_no_file_is_permitted_unless_below_a_root(files: Path, tmp_path: Path) -> None:
    uri = parse((files / "a.onnx").as_uri())
    refused(lambda: Resolver(None).resolve(uri), ModelForbiddenError)
    refused(lambda: Resolver(None, file_roots=[tmp_path / "model"]).resolve(uri), ModelForbiddenError)
    # forbidden and absent look alike
    refused(lambda: Resolver(None).resolve(parse("file:///nowhere/a.onnx")), ModelForbiddenError)


def test_a_link_does_not_lead_out_of_a_root(files: Path, tmp_path: Path, saved: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "out.onnx").symlink_to(files / "a.onnx")
    (inside / "loop.onnx").symlink_to(inside / "loop.onnx")
    shutil.copytree(saved, inside / "rf")
    (inside / "rf" / "data").symlink_to(files / "a.onnx")
    shutil.copytree(saved, inside / "rf2")
    (inside / "rf2" / "folder").symlink_to(files)
    resolver = Resolver(None, file_roots=[inside], trust="all")
    for name in ("out.onnx", "rf", "rf2"):
        refused(lambda name=name: resolver.resolve(parse((inside / name).as_uri())), ModelForbiddenError)
    with pytest.raises((ModelForbiddenError, ModelNotFoundError)):
        resolver.resolve(parse((inside / "loop.onnx").as_uri()))
    (inside / "same.onnx").symlink_to(inside / "real.onnx")
    (inside / "real.onnx").write_bytes(b"x")
    assert resolver.resolve(parse((inside / "same.onnx").as_uri())).kind == "onnx"


def test_a_pipe_in_a_models_folder_is_refused_and_not_read(files: Path) -> None:
    os.mkfifo(files / "rf" / "pipe")
    os.mkfifo(files / "pipe.onnx")
    resolver = Resolver(None, file_roots=[files])
    refused(lambda: resolver.resolve(parse((files / "rf").as_uri())), ModelForbiddenError)
    refused(lambda: resolver.resolve(parse((files / "pipe.onnx").as_uri())), ModelNotFoundError)


@pytest.mark.parametrize("name", ["a.pkl", "a.joblib", "nobody.pkl"])
def test_a_pickle_needs_the_operators_trust(files: Path, name: str) -> None:
    resolver = Resolver(None, file_roots=[files])
    message = refused(lambda: resolver.resolve(parse((files / name).as_uri())), ModelForbiddenError)
    assert "deployment.api.models.trust" in message


@pytest.mark.parametrize("name", ["nobody.onnx", "nobody", "a.txt", "rf/MLmodel", "."])
def test_a_permitted_file_that_is_no_model_is_not_found(files: Path, name: str) -> None:
    resolver = Resolver(None, file_roots=[files])
    refused(lambda: resolver.resolve(parse((files / name).as_uri())), ModelNotFoundError)


# --- the operator's argument


def test_the_operators_argument_may_be_any_path(
    files: Path, monkeypatch: pytest.MonkeyPatch, sqlite_store: SqliteStore
) -> None:
    monkeypatch.chdir(files)
    resolver = Resolver(sqlite_store.tracking_uri)
    for text in ("rf", "./rf", str(files / "rf"), (files / "rf").as_uri()):
        found = resolver.resolve_argument(text)
        assert resolver.fetch(found).digest == found.model_id
        assert (found.uri, found.kind) == (text, "mlflow")
        assert found.model_id.startswith("sha256:")
    assert resolver.resolve_argument("a.pkl").kind == "pickle"
    for text in ("nobody", "a.txt", "", "."):
        refused(lambda text=text: resolver.resolve_argument(text), ModelNotFoundError)
