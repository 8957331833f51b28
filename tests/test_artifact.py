"""The files of a logged model: whatever happens to them, loading either gives the same model or says what is wrong."""

from __future__ import annotations

import contextlib
import email
import functools
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import fin_pyfunc
from fin_pyfunc.authoring import wheel
from fin_pyfunc.model import artifact
from fin_pyfunc.model.errors import ArtifactError, FormatError
from tests import models

FIXTURES = Path(__file__).with_name("fixtures")
FILES = (artifact.MANIFEST, "estimator.skops")


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model; not to be touched."""
    path = tmp_path_factory.mktemp("artifact") / "model"
    fitted = models.logistic()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, path, input_example=None)
    return path


@pytest.fixture
def saved(original: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    return Path(shutil.copytree(original, tmp_path / "model"))


def folder(model: Path) -> Path:
    return model / "artifacts" / artifact.NAME


def refusal(model: Path, kind: type[ArtifactError] = ArtifactError, backend: str | None = None) -> str:
    """The one sentence that loading answers; with backend="native" the estimator itself is read, too."""
    with pytest.raises(ArtifactError) as e:
        fin_pyfunc.load_model(str(model), backend=backend)
    assert type(e.value) is kind
    said = str(e.value)
    assert "\n" not in said
    assert said.endswith(".")
    assert str(model) not in said
    return said


def sign(model: Path) -> None:
    """Write right digests again, as whoever forges an artifact can."""
    where = folder(model)
    values = json.loads((where / artifact.MANIFEST).read_bytes())
    if isinstance(values.get("files"), dict):
        values["files"] = {
            name: msgspec.to_builtins(artifact.digest(where / name))
            for name in values["files"]
            if (where / name).is_file()
        }
        (where / artifact.MANIFEST).write_text(json.dumps(values))
    record(model)


def record(model: Path) -> None:
    """Put the digest of the manifest as it is into MLmodel."""
    digest = hashlib.sha256((folder(model) / artifact.MANIFEST).read_bytes()).hexdigest()
    mlmodel = model / "MLmodel"
    lines = mlmodel.read_text().splitlines()
    mlmodel.write_text(
        "\n".join(f"    manifest_sha256: {digest}" if "manifest_sha256" in line else line for line in lines)
    )


@pytest.mark.parametrize("name", FILES)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(st.data())
def test_one_changed_byte_anywhere_is_noticed(original: Path, name: str, data: st.DataObject) -> None:
    file = folder(original) / name
    content = file.read_bytes()
    offset = data.draw(st.integers(0, len(content) - 1))
    other = data.draw(st.integers(1, 255))
    try:
        file.write_bytes(content[:offset] + bytes([content[offset] ^ other]) + content[offset + 1 :])
        assert f"{name!r} is damaged" in refusal(original)
    finally:
        file.write_bytes(content)
    assert fin_pyfunc.load_model(str(original)).manifest is not None


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"\n", lambda _: b"", lambda b: b * 2])
def test_a_file_that_was_cut_or_grew_is_noticed(saved: Path, name: str, change: Callable[[bytes], bytes]) -> None:
    file = folder(saved) / name
    file.write_bytes(change(file.read_bytes()))
    assert f"{name!r} is damaged" in refusal(saved)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (folder(saved) / name).unlink()
    assert name in refusal(saved)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_manifest_that_stands_alone_never_raises_anything_else(
    original: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    alone = tmp_path_factory.mktemp("alone")
    shutil.copytree(folder(original), alone, dirs_exist_ok=True)
    content = bytearray((alone / artifact.MANIFEST).read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (alone / artifact.MANIFEST).write_bytes(content)
    with contextlib.suppress(ArtifactError):
        artifact.read(alone)
    shutil.rmtree(alone)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(msgspec.json.encode))
@example(b"[" * 100_000)
@example(b'{"format":' * 100_000)
@example(b'{"format": 1e400}')
@example(b'{"format": true}')
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100, deadline=None)
def test_whatever_the_manifest_holds_reading_it_raises_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    alone = tmp_path_factory.mktemp("any")
    (alone / artifact.MANIFEST).write_bytes(content)
    with pytest.raises(ArtifactError, match="is not one that fin_pyfunc writes"):
        artifact.read(alone)
    shutil.rmtree(alone)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "1"},
        {"format": True},
        {"format": 0},
        {"format": None},
        {"classes": [[0], [1]]},
        {"classes": None},
        {"has_proba": "yes"},
        {"thresholds": {"high": 0.5, "medium": 0.6}},
        {"thresholds": {"high": 0.5, "medium": 0.1, "low": 0.0}},
        {"serialization": "pickle"},
        {"features": []},
        {"features": {"features": [{"name": 1, "kind": "number", "dtype": "float64"}]}},
        {"features": {"features": [{"name": "a", "kind": "colour", "dtype": "float64"}]}},
        {"features": {"features": [], "extra": "allow"}},
        {"files": {"estimator.skops": {"sha256": "0"}}},
        {"example": {}},
        {"mood": "good"},
    ],
)
def test_a_manifest_with_wrong_types_is_refused_even_with_the_right_digest(saved: Path, change: dict[str, Any]) -> None:
    path = folder(saved) / artifact.MANIFEST
    path.write_text(json.dumps(json.loads(path.read_bytes()) | change))
    record(saved)
    said = refusal(saved)
    assert "log the model again" in said


def test_a_manifest_that_is_no_json_is_refused_even_with_the_right_digest(saved: Path) -> None:
    (folder(saved) / artifact.MANIFEST).write_bytes(b"\xff\xfe not json")
    record(saved)
    assert "is not one that fin_pyfunc writes" in refusal(saved)


@pytest.mark.parametrize("files", [{}, {"../estimator.skops": {"sha256": "0", "size": 1}}])
def test_a_manifest_cannot_leave_out_its_estimator_or_point_elsewhere(saved: Path, files: dict[str, Any]) -> None:
    path = folder(saved) / artifact.MANIFEST
    shutil.copy(folder(saved) / "estimator.skops", folder(saved).parent)
    path.write_text(json.dumps(json.loads(path.read_bytes()) | {"files": files}))
    record(saved)
    assert "estimator" in refusal(saved)


def test_a_newer_format_asks_for_an_upgrade_whatever_else_it_holds(saved: Path) -> None:
    (folder(saved) / artifact.MANIFEST).write_text(f'{{"format": {artifact.FORMAT + 1}, "something": "new"}}')
    record(saved)
    said = refusal(saved, FormatError)
    assert f"format {artifact.FORMAT + 1}" in said
    assert "upgrade fin_pyfunc" in said


def test_every_older_format_has_a_step_that_raises_it() -> None:
    assert sorted(artifact.RAISE) == list(range(1, artifact.FORMAT))


# what a skops file may hold


class Trap:
    """Leaves a file behind when it is rebuilt or called."""

    def __init__(self, marker: str) -> None:
        self.marker = marker

    def __setstate__(self, state: dict[str, Any]) -> None:
        Path(state["marker"]).touch()

    def __call__(self, X: Any) -> Any:
        Path(self.marker).touch()
        return X


def touch(marker: str, X: Any) -> Any:
    Path(marker).touch()
    return X


@pytest.mark.parametrize("kind", ["object", "function", "partial"])
def test_a_forged_skops_file_is_refused_before_anything_in_it_runs(saved: Path, tmp_path: Path, kind: str) -> None:
    import skops.io
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    marker = tmp_path / "it-ran"
    func = {"object": Trap(str(marker)), "function": touch, "partial": functools.partial(touch, str(marker))}[kind]
    fitted = models.logistic()
    skops.io.dump(make_pipeline(FunctionTransformer(func), fitted.estimator), folder(saved) / "estimator.skops")
    sign(saved)
    said = refusal(saved, backend="native")
    assert "types that are not trusted here" in said
    assert {"object": "Trap", "function": "touch", "partial": "functools.partial"}[kind] in said
    assert "FIN_PYFUNC_TRUSTED_TYPES" in said
    assert not marker.exists()


def test_a_partial_is_taken_from_hist_gradient_boosting_only(saved: Path) -> None:
    import skops.io
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = models.quotes_as_categories()
    boosted = HistGradientBoostingClassifier(max_iter=2).fit(frame, models.labels(0, 1))
    file = folder(saved) / "estimator.skops"
    skops.io.dump(boosted, file)
    sign(saved)
    fin_pyfunc.load_model(str(saved), backend="native")

    # skops takes a node whose id it has met for the object it has met: the partial would call numpy.float64
    with zipfile.ZipFile(file) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    schema = json.loads(contents["schema.json"])
    nodes = list(_nodes(schema))
    other = next(node["__id__"] for node in nodes if node.get("__loader__") == "TypeNode")
    for node in nodes:
        if node.get("__loader__") == "PartialNode":
            node["content"]["func"]["__id__"] = other
    contents["schema.json"] = json.dumps(schema).encode()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    sign(saved)
    assert "functools.partial" in refusal(saved, backend="native")


def _nodes(node: Any) -> Any:
    if isinstance(node, dict):
        yield node
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from _nodes(part)


def test_a_type_that_the_operator_names_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    fitted = models.fit(
        make_pipeline(FunctionTransformer(doubled), LogisticRegression()),
        models.bars(),
        models.labels(0, 1),
    )
    monkeypatch.setenv("FIN_PYFUNC_TRUSTED_TYPES", f"other.Type, {__name__}.doubled")
    fin_pyfunc.save_model(
        fitted.estimator,
        fitted.train,
        tmp_path / "model",
        input_example=None,
        code_paths=[str(Path(__file__).parent)],
    )
    model = fin_pyfunc.load_model(str(tmp_path / "model"))
    assert model.predict(fitted.held_out)["prediction"].tolist() == fitted.estimator.predict(fitted.held_out).tolist()
    monkeypatch.delenv("FIN_PYFUNC_TRUSTED_TYPES")
    assert f"{__name__}.doubled" in refusal(tmp_path / "model")


def doubled(X: Any) -> Any:
    return X * 2


# pickles


def test_a_pickle_is_not_read_where_the_operator_forbids_pickles(tmp_path: Path) -> None:
    fitted = models.logistic()
    path = tmp_path / "model"
    fin_pyfunc.save_model(fitted.estimator, fitted.train, path, serialization="cloudpickle", input_example=None)
    assert fin_pyfunc.load_model(str(path)).manifest is not None
    program = (
        "import sys, fin_pyfunc\n"
        "try:\n    fin_pyfunc.load_model(sys.argv[1])\n"
        "except Exception as e:\n    print(type(e).__name__, e)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("ArtifactError The model's estimator is a pickle")
    assert "log it with serialization='skops'" in done.stdout


@pytest.mark.parametrize(
    ("pickled", "said"),
    [
        (b"cnot_a_package.module\nClassifier\n.", "needs the Python package 'not_a_package'"),
        # what LightGBM does when it is imported where there is no OpenMP
        (
            b"cctypes\nCDLL\n(Vlibgomp-not-here.so.1\ntR.",
            "system's library libgomp-not-here.so.1: install it here (Debian",
        ),
    ],
)
def test_a_pickle_that_needs_what_is_not_there_names_it(saved: Path, pickled: bytes, said: str) -> None:
    path = folder(saved) / artifact.MANIFEST
    (folder(saved) / "estimator.pkl").write_bytes(pickled)
    forged = {"serialization": "cloudpickle", "files": {"estimator.pkl": {}}, "forms": []}
    path.write_text(json.dumps(json.loads(path.read_bytes()) | forged))
    sign(saved)
    assert said in refusal(saved)


def test_an_estimator_file_that_is_something_else_is_refused(saved: Path) -> None:
    (folder(saved) / "estimator.skops").write_bytes(b"not a zip file")
    sign(saved)
    assert "could not be read" in refusal(saved, backend="native")


# what travels along


def test_the_wheel_is_the_same_bytes_each_time_and_its_record_is_right(tmp_path: Path) -> None:
    first, second = tmp_path / "a", tmp_path / "b"
    first.mkdir()
    second.mkdir()
    made = wheel.build(first)
    assert made.name == wheel.build(second).name == wheel.name(fin_pyfunc.__version__)
    assert made.read_bytes() == (second / made.name).read_bytes()
    with zipfile.ZipFile(made) as archive:
        names = archive.namelist()
        [record_name] = [name for name in names if name.endswith(".dist-info/RECORD")]
        listed = {line.split(",")[0]: line.split(",") for line in archive.read(record_name).decode().splitlines()}
        assert set(listed) == set(names)
        for name in set(names) - {record_name}:
            assert listed[name][1] == f"sha256={wheel._digest(archive.read(name))}"
            assert int(listed[name][2]) == archive.getinfo(name).file_size
    assert {"fin_pyfunc/__init__.py", "fin_pyfunc/py.typed", "fin_pyfunc/model/entry.py"} <= set(names)
    assert not any("__pycache__" in name for name in names)


def test_the_wheel_holds_the_licence_that_its_metadata_names(tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel.build(tmp_path)) as archive:
        [info] = {name.partition("/")[0] for name in archive.namelist() if ".dist-info/" in name}
        [named] = email.message_from_bytes(archive.read(f"{info}/METADATA")).get_all("License-File", [])
        held = archive.read(f"{info}/licenses/{named}")  # PEP 639
    assert held == (Path(__file__).parent.parent / named).read_bytes()


def test_the_manifest_holds_the_digests_of_what_travels_outside_its_folder(original: Path) -> None:
    manifest = artifact.read(folder(original))
    for name, digest in manifest.code.items():
        file = original / name if name == "entry.py" else original / "code" / name
        assert artifact.digest(file) == digest
    assert {*manifest.code} == {"entry.py", wheel.name(fin_pyfunc.__version__)}
