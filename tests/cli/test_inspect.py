"""`fin-pyfunc inspect`: all that a model's files say of it, with none of its code run."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd

import fin_pyfunc
from tests.cli.commands import refused, run
from tests.models import bars, logistic


def test_inspect_says_all_that_the_manifest_knows(logged: list[str]) -> None:
    answer = run("inspect", logged[3], "--json")
    assert answer.code == 0, answer
    report = json.loads(answer.out)
    manifest = fin_pyfunc.load_model(logged[0]).manifest
    assert manifest is not None
    assert report["model_uri"] == logged[3]
    assert report["model_id"] == logged[0]
    assert report["run_id"] in logged[1]
    assert report["created"] == manifest.created
    assert report["estimator"] == "sklearn.ensemble._forest.RandomForestClassifier"
    assert [feature["name"] for feature in report["features"]] == list(bars().columns)
    assert (report["identifiers"], report["extra"]) == (["bar_id"], "ignore")
    assert (report["classes"], report["has_proba"]) == ([-1, 0, 1], True)
    assert report["thresholds"] == {"high": 0.9, "medium": 0.6}
    assert report["backend"]["default"] == "auto"
    assert f"{report['backend']['chosen']} (cpu)" in report["backend"]["available"]
    assert report["backend"]["gpu"]
    recorded = {*manifest.files.values(), *manifest.code.values()}
    assert {file["sha256"] for file in report["files"]} == {digest.sha256 for digest in recorded}
    assert all(file["checked"] for file in report["files"])
    assert {lib["name"]: lib["logged"] for lib in report["libraries"]} == manifest.libraries
    assert all(lib["logged"] == lib["installed"] for lib in report["libraries"])


def test_inspect_reads_well(codes: tuple[str, pd.DataFrame]) -> None:
    out = run("inspect", codes[0]).out
    for line in (
        r"classes        down, up",
        r"confidence     high from 0.8, medium from 0.6, else low",
        r"extra columns  refused",
        r"  x     number   null allowed",
        r"  code  string",
        r"  flag  boolean",
        r"  artifacts/fin_pyfunc/estimator.skops .*  digest ok",
        r"  python  .*  same here",
    ):
        assert re.search(f"^{line}$", out, re.MULTILINE), line


def test_inspect_runs_no_code_of_a_model(tmp_path: Path) -> None:
    fitted = logistic()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, tmp_path / "model", serialization="cloudpickle")
    mark = tmp_path / "ran"
    touch = f"open({str(mark)!r}, 'w').close()"
    mlmodel = tmp_path / "model" / "MLmodel"
    entry = next((tmp_path / "model").rglob("entry.py"))
    entry.write_text(f"{touch}\n{entry.read_text()}")
    assert "'entry.py' is damaged" in refused("inspect", tmp_path / "model")
    mlmodel.write_text(mlmodel.read_text().replace("metadata:", "other:"))
    assert run("inspect", tmp_path / "model").code == 0
    (tmp_path / "evil.pkl").write_bytes(b"cbuiltins\nexec\n(V" + touch.encode() + b"\ntR.")
    assert "runs code when it is read" in run("inspect", tmp_path / "evil.pkl").out
    assert not mark.exists()


def test_inspect_says_what_is_known_of_models_of_others(foreign: Path, files: Path) -> None:
    signed = json.loads(run("inspect", "signed", "--json").out)
    assert (signed["source"], signed["estimator"]) == ("mlflow", "python_function and sklearn")
    assert [feature["name"] for feature in signed["features"]] == list(bars().columns)
    assert signed["backend"]["chosen"] is None
    assert "not loaded to be looked at" in signed["backend"]["reason"]
    assert "MLmodel" in {file["name"] for file in signed["files"]}
    assert not any(file["checked"] for file in signed["files"])
    unsigned = run("inspect", "unsigned").out
    assert re.search(r"^features +not known$", unsigned, re.MULTILINE)
    assert "digest not recorded" in unsigned
    bare = json.loads(run("inspect", "forest.skops", "--json").out)
    assert (bare["source"], bare["serialization"]) == ("file", "skops")
    assert bare["estimator"] == "sklearn.ensemble._forest.RandomForestClassifier"
    assert bare["classes"] == [-1, 0, 1]
    assert json.loads(run("inspect", "forest.joblib", "--json").out)["features"] is None


def test_inspect_refuses_what_is_damaged_or_not_there(codes: tuple[str, pd.DataFrame], tmp_path: Path) -> None:
    assert "no alias of the name asked for" in refused("inspect", "models:/rf@nope")
    assert "There is no run" in refused("inspect", f"runs:/{'0' * 32}/model")
    assert "There is no model at the path" in refused("inspect", tmp_path / "nope")
    for name, expected in (
        ("artifacts/fin_pyfunc/estimator.skops", "'estimator.skops' is damaged"),
        ("artifacts/fin_pyfunc/manifest.json", "'manifest.json' is damaged"),
        ("entry.py", "'entry.py' is damaged"),
        ("MLmodel", "MLmodel file is damaged"),
    ):
        copy = tmp_path / name.replace("/", "-")
        shutil.copytree(codes[0], copy)
        (copy / name).write_bytes(b"\x00")
        assert expected in refused("inspect", copy)
    shutil.copytree(codes[0], tmp_path / "gone")
    next((tmp_path / "gone").rglob("*.whl")).unlink()
    assert ".whl' is missing" in refused("inspect", tmp_path / "gone")
