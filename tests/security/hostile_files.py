"""Hostile models with files beside those of their form, links, things that are no files, and forged data files."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import onnx
import yaml

from tests.security.hostile import BARE, DATA, FOLDERS, PAYLOADS, Case, Change, Hostile
from tests.security.hostile_mlmodel import edit, filled

# --- files beside those that the form reads


def _requirements(line: str) -> Change:
    def change(folder: Path, hostile: Hostile) -> None:
        (folder / "requirements.txt").write_text(line.format(c=hostile.canary.folder, port=hostile.canary.port))

    return change


def _script(*names: str) -> Change:
    def change(folder: Path, hostile: Hostile) -> None:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(hostile.script)

    return change


def _yaml(name: str, content: Any) -> Change:
    def change(folder: Path, hostile: Hostile) -> None:
        (folder / name).write_text(yaml.safe_dump(filled(content, str(hostile.canary.folder / "secret"))))

    return change


def _artifact_of(other: str, *parts: str) -> Change:
    """Copy parts of another model into this one (row A of issue 20)."""

    def change(folder: Path, hostile: Hostile) -> None:
        source = hostile.folder / other
        for part in parts:
            if (source / part).is_dir():
                shutil.copytree(source / part, folder / part, dirs_exist_ok=True)
            elif (source / part).exists():
                shutil.copy(source / part, folder / part)
        if "metadata" in parts:
            theirs = yaml.safe_load((source / "MLmodel").read_text())
            edit(lambda whole, function, flavor: whole.update(metadata=theirs.get("metadata")))(folder, hostile)

    return change


def _nested(folder: Path, hostile: Hostile) -> None:
    hostile.payload("model", folder / "data")
    hostile.payload("model", folder / "model")
    shutil.copytree(hostile.folder / "pyfunc", folder / "artifacts" / "pyfunc")


BESIDE: dict[str, Change] = {
    "requirements -r": _requirements("-r {c}/secret\n"),
    "requirements -r /dev/zero": _requirements("-r /dev/zero\n"),
    "requirements -e": _requirements("-e {c}\n--index-url http://127.0.0.1:{port}/\n"),
    "requirements of a URL": _requirements("evil @ http://127.0.0.1:{port}/evil.whl\n--find-links {c}\n"),
    "conda.yaml": _yaml("conda.yaml", {"dependencies": ["python", {"pip": ["-r {}"]}], "prefix": "{}"}),
    "python_env.yaml": _yaml("python_env.yaml", {"python": "{}", "dependencies": ["-r {}"]}),
    "registered_model_meta": _yaml("registered_model_meta", {"model_name": "../../{}", "model_version": "{}"}),
    "code/sitecustomize.py": _script("code/sitecustomize.py", "code/usercustomize.py"),
    "code/__init__.py": _script("code/__init__.py", "__init__.py"),
    "code/*.pth": _script("code/evil.pth", "evil.pth"),
    "code/*.so": _script("code/numpy.so", "code/_forest.so", "libonnxruntime.so"),
    "code/*.pyc": _script("code/pandas.pyc", "code/__pycache__/pandas.cpython-311.pyc", "__pycache__/entry.pyc"),
    "code as a package": _script("code/sklearn/__init__.py", "code/numpy/__init__.py", "code/skops/__init__.py"),
    "code of our own name": _script("code/fin_pyfunc/__init__.py", "code/fin_pyfunc-9.whl/fin_pyfunc/__init__.py"),
    "modules beside MLmodel": _script("sklearn.py", "entry.pth", "mlflow.py", "conftest.py", "setup.py", "model.py"),
    "nested models": _nested,
    "our pickled artifact": _artifact_of("ours-pickled", "artifacts"),
    "our pickled artifact and code": _artifact_of("ours-pickled", "artifacts", "code", "entry.py"),
    "our pickled artifact, code, metadata": _artifact_of("ours-pickled", "artifacts", "code", "entry.py", "metadata"),
    "our artifact, code and metadata": _artifact_of("ours", "artifacts", "code", "entry.py", "metadata"),
    "files of a pickled model": _artifact_of("sklearn", "model.pkl", "requirements.txt"),
    "files of a pyfunc": _artifact_of("pyfunc", "python_model.pkl", "artifacts"),
    "files of a skops model": _artifact_of("skops", "model.skops"),
    "files of an ONNX model": _artifact_of("onnx", "model.onnx"),
    "an example of secrets": _yaml("input_example.json", {"path": "{}"}),
}


def beside() -> Iterator[Case]:
    for form, name in itertools.product(FOLDERS, BESIDE):
        yield Case(f"{form}: with {name}", form, BESIDE[name])


# --- links, and things that are no files


def _link(name: str, leads: str) -> Change:
    def change(folder: Path, hostile: Hostile) -> None:
        at = folder / name
        at.parent.mkdir(parents=True, exist_ok=True)
        if at.is_dir():
            shutil.rmtree(at)
        at.unlink(missing_ok=True)
        match leads:
            case "a pipe":
                os.mkfifo(at)
            case "a folder":
                at.mkdir()
                (at / "planted.py").write_text(hostile.script)
            case "a pickle inside":
                (folder / "e.pkl").write_bytes(hostile.canary.pickle)
                at.symlink_to(os.path.relpath(folder / "e.pkl", at.parent))
            case "itself":
                at.symlink_to(at.name)
            case _:
                at.symlink_to(leads.format(c=hostile.canary.folder))

    return change


LINKS = (
    "{c}/secret",
    "{c}/model",
    "{c}/model/model.pkl",
    "{c}/nobody",
    "/dev/zero",
    "/proc/self/environ",
    "itself",
    "a pickle inside",
    "a pipe",
    "a folder",
)


def linked() -> Iterator[Case]:
    for (form, file), leads in itertools.product(DATA.items(), LINKS):
        for name in ("MLmodel", file, "requirements.txt", "code", "extra"):
            yield Case(f"{form}: {name} is {leads}", form, _link(name, leads))
    for form, leads in itertools.product(BARE, LINKS):

        def change(path: Path, hostile: Hostile, leads: str = leads) -> None:
            if leads == "a pickle inside":
                path.with_name(f"{path.name}.hidden").write_bytes(hostile.canary.pickle)
                path.unlink()
                path.symlink_to(f"{path.name}.hidden")
            else:
                _link(path.name, leads)(path.parent, hostile)

        yield Case(f"{form}: is {leads}", form, change)


# --- the one data file


def _archive(names: tuple[str, ...], *, twice: bool = False) -> Callable[[Path, Hostile], None]:
    """Add entries to a skops file, which is a zip archive."""

    def change(path: Path, hostile: Hostile) -> None:
        with zipfile.ZipFile(path, "a") as archive:
            for name in names:
                archive.writestr(name.format(c=hostile.canary.folder), hostile.canary.pickle)
            if twice:
                archive.writestr(
                    "schema.json", '{"__loader__": "ReduceNode", "__module__": "os", "__class__": "system"}'
                )

    return change


def _external(location: str) -> Callable[[Path, Hostile], None]:
    """Have an ONNX file keep its numbers in another file."""

    def change(path: Path, hostile: Hostile) -> None:
        model = onnx.load(path)
        for numbers in [node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"] or [
            model.graph.initializer.add(name="planted", dims=[2], data_type=onnx.TensorProto.FLOAT)
        ]:
            del numbers.external_data[:]
            numbers.data_location = onnx.TensorProto.EXTERNAL
            numbers.external_data.add(key="location", value=location.format(c=hostile.canary.folder))
        path.write_bytes(model.SerializeToString())

    return change


def _payload(kind: str) -> Callable[[Path, Hostile], None]:
    def change(path: Path, hostile: Hostile) -> None:
        path.unlink()
        hostile.payload(kind, path)

    return change


def _appended(kind: str, *, before: bool) -> Callable[[Path, Hostile], None]:
    """A file that two readers take for two things: a zip archive is read from its end, a pickle from its start."""

    def change(path: Path, hostile: Hostile) -> None:
        content = path.read_bytes()
        path.unlink()
        hostile.payload(kind, path)
        planted = path.read_bytes()
        path.write_bytes(planted + content if before else content + planted)

    return change


def _damaged(seed: int) -> Callable[[Path, Hostile], None]:
    def change(path: Path, hostile: Hostile) -> None:
        rng, content = random.Random(seed), bytearray(path.read_bytes())
        for _ in range(1 + seed % 5):
            content[rng.randrange(len(content))] = rng.randrange(256)
        path.write_bytes(bytes(content[: rng.choice((len(content), len(content), len(content) // 2))]))

    return change


NAMES = {
    "climbing names": ("../evil.py", "../../../../../../..{c}/climbed", "a/../../b"),
    "absolute names": ("{c}/absolute", "//{c}/absolute", "file://{c}/absolute"),
    "backslashes": ("..\\..\\evil.py", "C:\\evil.py", "\\evil"),
    "odd unicode": ("..\u2215evil.py", "\u202eyp.live", "\uff0e\uff0e/evil", "a\u0000b" * 3),
    "names of Python": ("__init__.py", "sitecustomize.py", "evil.pth", "numpy.so"),
    "many names": tuple(f"{i}.npy" for i in range(500)),
}
EXTERNAL = (
    "secret",
    "../secret",
    "{c}/secret",
    "../../../../../../..{c}/secret",
    "/dev/zero",
    "file://{c}/secret",
    "model.onnx",
    "MLmodel",
    "",
)


def data_files() -> Iterator[Case]:
    zips, graphs = ("ours", "skops", "lightgbm", "bare.skops"), ("onnx", "bare.onnx")
    changes: list[tuple[str, str, Callable[[Path, Hostile], None]]] = []
    for form in (*zips, *graphs, "bare.pkl", "bare.joblib"):
        changes += [(form, f"is {kind}", _payload(kind)) for kind in PAYLOADS]
        changes += [(form, f"after {kind}", _appended(kind, before=True)) for kind in ("pickle", "python", "zip")]
        changes += [(form, f"before {kind}", _appended(kind, before=False)) for kind in ("pickle", "python", "zip")]
    for form in (*zips, *graphs):
        changes += [(form, f"damaged, {seed}", _damaged(seed)) for seed in range(12)]
    for form in zips:
        changes += [(form, name, _archive(names)) for name, names in NAMES.items()]
        changes.append((form, "two schemas", _archive((), twice=True)))
    changes += [(form, f"numbers in {place!r}", _external(place)) for form in graphs for place in EXTERNAL]
    for form, name, change in changes:

        def apply(path: Path, hostile: Hostile, form: str = form, change: Change = change) -> None:
            change(path / DATA[form] if form in DATA else path, hostile)
            if form == "ours":
                from tests.test_artifact import sign  # as whoever forges an artifact writes right digests

                if (path / DATA[form]).is_file():
                    sign(path)

        yield Case(f"{form}: its file {name}", form, apply)
