"""The command line: every command does its job on a real store, and every error is one line and a non-zero exit."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import joblib
import mlflow
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import skops.io
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import fin_pyfunc
from fin_pyfunc.batch import cells
from fin_pyfunc.model.feature import Feature
from fin_pyfunc.serving.catalog import Catalog
from fin_pyfunc_cli.main import cli, main
from tests.conftest import free_port
from tests.models import bars, logistic, quotes_as_categories, small_forest

CODES = ["007", "1e3", "NA", "a,b", "EBS"]


class Answer(NamedTuple):
    code: int
    out: str
    err: str


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Echo(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Somebody else's pyfunc: labels, no word of ours."""

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> list[str]:
        return ["up" if value > 0 else "down" for value in model_input["return_1"]]


def run(*args: object, err: io.StringIO | None = None) -> Answer:
    """Call main() as the console script does, and keep what it prints."""
    out, err, code = io.StringIO(), err or io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(arg) for arg in args])
        except SystemExit as e:
            code = int(e.code or 0)
    return Answer(code, out.getvalue(), err.getvalue())


def refused(*args: object, code: int = 1) -> str:
    """The one line of a command that fails."""
    answer = run(*args)
    assert (answer.code, answer.out) == (code, ""), answer
    assert re.fullmatch(r"Error: [^\n]+\n", answer.err), answer.err
    return answer.err


def in_a_process(code: str, cwd: Path, *python: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *python, "-c", code], cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def with_ids(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(bar_id=[f"{i:06}" for i in range(len(frame))])


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder to work in, with a store of its own that every command here goes to."""
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    made = tmp_path_factory.mktemp("cli")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(made)
        patch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
        mlflow.set_tracking_uri(f"sqlite:///{made / 'mlflow.db'}")
        yield made
    mlflow.set_tracking_uri(before)


@pytest.fixture(scope="module")
def files(folder: Path) -> Path:
    """Estimator files, samples, and rows to classify."""
    fitted = small_forest()
    skops.io.dump(fitted.estimator, folder / "forest.skops")
    joblib.dump(fitted.estimator, folder / "forest.joblib")
    joblib.dump(fitted.estimator, folder / "forest.pkl")
    train = with_ids(fitted.train).assign(label=0)
    train.to_csv(folder / "train.csv", index=False)
    train.to_parquet(folder / "train.parquet")
    new = with_ids(fitted.held_out)
    new.to_csv(folder / "new.csv", index=False)
    new.to_parquet(folder / "new.parquet")
    return folder


@pytest.fixture(scope="module")
def logged(files: Path) -> list[str]:
    """The forest as `fin-pyfunc log` logs it; the URIs it prints."""
    answer = run(
        *("log", "forest.skops", "train.csv", "--drop", "label", "--identifier", "bar_id", "--text", "bar_id"),
        *("--register", "rf", "--alias", "champion", "--confidence-high", "0.9"),
    )
    assert answer.code == 0, answer
    return answer.out.splitlines()


@pytest.fixture(scope="module")
def codes(folder: Path) -> tuple[str, pd.DataFrame]:
    """A model of numbers, text that looks like numbers, integers and booleans, with gaps; and rows for it."""
    rng = np.random.default_rng(0)
    n = 60
    frame = pd.DataFrame(
        {
            "x": np.where(rng.random(n) < 0.2, np.nan, rng.normal(size=n)),
            "code": rng.choice(CODES, n),
            "hour": rng.integers(0, 24, n),
            "flag": rng.random(n) < 0.5,
        }
    )
    encoded = make_column_transformer((OneHotEncoder(), ["code"]), remainder="passthrough")
    pipeline = make_pipeline(encoded, RandomForestClassifier(5, random_state=0))
    y = np.where(frame["code"].isin(["007", "NA"]) ^ frame["flag"], "up", "down")
    fin_pyfunc.save_model(pipeline.fit(frame, y), frame, folder / "codes", extra="forbid")
    return "codes", frame


@pytest.fixture(scope="module")
def foreign(folder: Path) -> Path:
    """Models that were logged without us."""
    fitted = small_forest()
    requirements = ["scikit-learn"]
    formats = {"serialization_format": "cloudpickle", "pip_requirements": requirements}
    mlflow.sklearn.save_model(fitted.estimator, folder / "unsigned", **formats)
    mlflow.sklearn.save_model(fitted.estimator, folder / "signed", input_example=fitted.train.head(2), **formats)
    mlflow.pyfunc.save_model(folder / "echo", python_model=Echo(), pip_requirements=requirements)
    return folder


# the whole


@pytest.mark.parametrize("name", ["", *cli.commands])
def test_every_help_has_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [*([name] if name else []), "--help"])
    assert result.exit_code == 0
    assert re.search(r"Example: fin-pyfunc \w+", result.output)


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    code = (
        "import sys; from fin_pyfunc_cli.main import main; main(['predict', '--help']); main(['--help']);"
        "print(sorted({'mlflow', 'pandas', 'numpy', 'sklearn', 'pyarrow'} & set(sys.modules)), file=sys.stderr)"
    )
    process = in_a_process(code, tmp_path)
    assert process.communicate(timeout=60)[1] == "[]\n"


def test_the_package_runs_as_a_module(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fin_pyfunc_cli"]
    version = subprocess.run([*command, "--version"], cwd=tmp_path, text=True, capture_output=True, check=True)
    assert version.stdout == f"fin-pyfunc, version {fin_pyfunc.__version__}\n"
    wrong = subprocess.run([*command, "predict", "-m", "x", "nope.csv"], cwd=tmp_path, text=True, capture_output=True)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == "Error: There is no file nope.csv: name a CSV or Parquet file.\n"
    assert not list(tmp_path.iterdir())


def test_ctrl_c_exits_130_without_a_traceback(tmp_path: Path) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler);"
        "from fin_pyfunc_cli.main import main; main(['demo', '--trees', '10000'])"
    )
    process = in_a_process(code, tmp_path, "-u")
    assert process.stderr is not None
    assert "training" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.endswith("Aborted.\n")


def test_a_demo_is_made_once(logged: list[str], folder: Path) -> None:
    demo = ["demo", "--if-missing", "--trees", "5", "--mlflow-tracking-uri", f"sqlite:///{folder / 'mlflow.db'}"]
    demo += ["--mlflow-experiment-name", "demo"]
    code = f"from fin_pyfunc_cli.main import main; main({demo}); main({demo})"
    process = in_a_process(code, folder)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert out.count("registered models:/eurusd_rf@champion, version 1: accuracy 0.") == 1
    assert out.endswith("\nmodels:/eurusd_rf@champion is there already (version 1)\n")


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["bogus"], "No such command 'bogus'. See 'fin-pyfunc --help'."),
        (["predict", "new.csv"], "Missing option '-m' / '--model-uri'. See 'fin-pyfunc predict --help'."),
        (["models", "--limit", "0"], "0 is not in the range 1<=x<=1000. See 'fin-pyfunc models --help'."),
        (["log", "a.skops", "b.csv", "--alias", "x"], "--alias needs --register. See 'fin-pyfunc log --help'."),
        (["log", "a.skops", "b.csv", "--confidence-high", "2"], "2.0 is not in the range 0<=x<=1."),
    ],
)
def test_wrong_usage_is_one_line_that_names_the_help(args: list[str], expected: str) -> None:
    assert expected in refused(*args, code=2)


def test_a_store_that_does_not_answer_is_one_line(files: Path) -> None:
    there = ("--mlflow-tracking-uri", f"http://127.0.0.1:{free_port()}")
    for command in (
        ("models",),
        ("inspect", "models:/rf@champion"),
        ("log", "forest.skops", "train.csv"),
        ("predict", "-m", "models:/rf@champion", "new.csv"),
    ):
        assert "MLflow does not answer" in refused(*command, *there)
    mlflow.set_tracking_uri(f"sqlite:///{files / 'mlflow.db'}")


# log


def test_log_prints_every_uri_of_the_model_and_each_loads(logged: list[str]) -> None:
    assert re.fullmatch(r"models:/m-[0-9a-f]{32}", logged[0])
    assert re.fullmatch(r"runs:/[0-9a-f]{32}/model", logged[1])
    assert logged[2:] == ["models:/rf/1", "models:/rf@champion"]
    fitted = small_forest()
    for uri in logged:
        model = fin_pyfunc.load_model(uri)
        assert model.features is not None
        assert model.features.identifiers == ["bar_id"]
        assert (model.thresholds.high, model.thresholds.medium) == (0.9, 0.6)
        answers = model.predict(fitted.held_out)["prediction"]
        np.testing.assert_array_equal(answers, fitted.estimator.predict(fitted.held_out))


@pytest.mark.parametrize("estimator", ["forest.joblib", "forest.pkl"])
def test_log_takes_pickles_and_parquet(estimator: str, files: Path) -> None:
    answer = run(
        *("log", estimator, "train.parquet", "--drop", "label", "--drop", "bar_id", "--name", "other"),
        *("--class", "-1", "--class", "0", "--class", "1", "--extra", "forbid"),
        *("--mlflow-experiment-name", "pickles"),
    )
    assert answer.code == 0, answer
    model = fin_pyfunc.load_model(answer.out.splitlines()[1])
    assert model.manifest is not None
    assert model.manifest.classes == [-1, 0, 1]
    assert model.manifest.features.extra == "forbid"
    assert len(answer.out.splitlines()) == 2
    experiment = MlflowClient().get_experiment_by_name("pickles")
    assert experiment.artifact_location == (files / "mlartifacts").as_uri()


def test_a_custom_class_is_logged_with_cloudpickle_and_its_code(files: Path) -> None:
    (files / "own_rule.py").write_text(
        "import numpy as np\n"
        "class Rule:\n"
        "    classes_ = np.array([0, 1])\n"
        "    def predict(self, X):\n"
        "        return (X['return_1'] > 0).to_numpy().astype(int)\n"
    )
    make = "import pickle, own_rule; pickle.dump(own_rule.Rule(), open('rule.pkl', 'wb'))"
    subprocess.run([sys.executable, "-c", make], cwd=files, check=True)
    drop = ("--drop", "label", "--drop", "bar_id")
    assert "name the file or folder with its code with --code-path" in refused("log", "rule.pkl", "train.csv", *drop)
    code = ("--code-path", "own_rule.py")
    assert "--serialization cloudpickle" in refused("log", "rule.pkl", "train.csv", *drop, *code)
    cloudpickle = ("--serialization", "cloudpickle")
    assert "--code-path" in refused("log", "rule.pkl", "train.csv", *drop, *cloudpickle)
    answer = run("log", "rule.pkl", "train.csv", *drop, *code, *cloudpickle)
    assert answer.code == 0, answer
    predicted = run("predict", "-m", answer.out.splitlines()[0], "new.csv")
    assert predicted.out.splitlines()[:1] == ["prediction,confidence"]
    shown = run("inspect", answer.out.splitlines()[0])
    assert "its estimator is a pickle" in shown.out


def test_log_refuses_with_the_options_of_the_command_line_and_leaves_no_run(logged: list[str], files: Path) -> None:
    skops.io.dump(RandomForestClassifier(), files / "unfitted.skops")
    (files / "damaged.pkl").write_bytes(b"not a pickle")
    (files / "damaged.skops").write_bytes(b"not skops")
    (files / "empty.csv").write_text("")
    (files / "model.h5").write_bytes(b"")
    with (files / "main.pkl").open("wb") as file:
        file.write(
            pickle.dumps(Answer(0, "", "")).replace(b"tests.test_cli", b"__main__").replace(b"\x8c\x0e", b"\x8c\x08")
        )
    good = ("log", "forest.skops", "train.csv", "--drop", "label", "--identifier", "bar_id")
    before = len(MlflowClient().search_runs(["1", "2"]))
    for args, expected in (
        (("log", "nope.skops", "train.csv"), "there is no file nope.skops"),
        (("log", "model.h5", "train.csv"), "must end in .skops, .joblib or .pkl"),
        (("log", "forest.skops", "nope.csv"), "nope.csv cannot be read (no such file or directory)"),
        (("log", "forest.skops", "forest.pkl"), "neither CSV nor Parquet"),
        (("log", "forest.skops", "empty.csv"), "empty.csv cannot be read: No columns to parse from file"),
        (("log", "damaged.pkl", "train.csv"), "could not be read"),
        (("log", "damaged.skops", "train.csv"), "could not be read"),
        (("log", "main.pkl", "train.csv"), "write it with cloudpickle"),
        (("log", "unfitted.skops", "train.csv"), "is not fitted"),
        (("log", "forest.skops", "train.csv"), "'bar_id', 'label': leave it out with --drop, or declare it with --id"),
        ((*good, "--drop", "nope"), "has no column 'nope'; it has 'bidPrice'"),
        ((*good, "--register", "rf", "--alias", "latest"), "'latest' alias name"),
        ((*good, "--register", "a/b"), "Names cannot contain '/' or ':'"),
        ((*good, "--confidence-high", "0.5"), "set --confidence-high and --confidence-medium"),
        ((*good, "--backend", "tpu"), "backend='tpu' is not known"),
        ((*good, "--class", "a", "--class", "b"), "classes has 2 labels"),
    ):
        assert expected in refused(*args)
    assert len(MlflowClient().search_runs(["1", "2"])) == before


def test_text_that_looks_like_a_number_is_logged_as_text_where_asked(codes: tuple[str, pd.DataFrame]) -> None:
    _, frame = codes
    frame.to_csv("codes.csv", index=False)
    pipeline = make_pipeline(make_column_transformer((OneHotEncoder(), ["code"])), LogisticRegression())
    skops.io.dump(pipeline.fit(frame[["code"]], frame["flag"]), "codes.skops")
    drop = ("--drop", "x", "--drop", "hour", "--drop", "flag")
    answer = run("log", "codes.skops", "codes.csv", *drop, "--text", "code")
    assert answer.code == 0, answer
    report = json.loads(run("inspect", answer.out.splitlines()[0], "--json").out)
    assert [(f["name"], f["kind"]) for f in report["features"]] == [("code", "string")]
    assert report["classes"] == [False, True]


# predict


def expected_of(uri: str, frame: pd.DataFrame, **params: Any) -> pd.DataFrame:
    return fin_pyfunc.load_model(uri).predict(frame, params)


@pytest.mark.parametrize("source", ["new.csv", "new.parquet"])
@pytest.mark.parametrize("output", [None, "out.csv", "out.parquet"])
def test_predictions_of_a_file_are_those_of_the_model(
    source: str, output: str | None, logged: list[str], tmp_path: Path
) -> None:
    target = ("-o", tmp_path / output) if output else ()
    answer = run("predict", "-m", logged[3], source, *target)
    assert (answer.code, answer.err) == (0, "")
    if output == "out.parquet":
        assert answer.out == ""
        got = pd.read_parquet(tmp_path / output)
    else:
        written: Any = tmp_path / output if output else io.StringIO(answer.out)
        got = pd.read_csv(written, dtype={"bar_id": "str"})
    held_out = with_ids(small_forest().held_out)
    assert list(got["bar_id"]) == list(held_out["bar_id"])
    expected = expected_of(logged[3], held_out).reset_index(drop=True)
    pd.testing.assert_frame_equal(got.drop(columns="bar_id"), expected, check_dtype=False, check_exact=True)
    assert got["prediction"].dtype == np.int64


@pytest.mark.parametrize("source", ["new.csv", "new.parquet"])
def test_chunks_make_no_difference(source: str, logged: list[str]) -> None:
    whole = run("predict", "-m", logged[0], source)
    assert len(whole.out.splitlines()) == 41
    for rows in (1, 7, 40, 41):
        assert run("predict", "-m", logged[0], source, "--chunk-rows", rows) == whole


def test_a_csv_longer_than_one_block_is_read_whole(logged: list[str], tmp_path: Path) -> None:
    many = pd.concat([small_forest().held_out] * 120, ignore_index=True)
    many.to_csv(tmp_path / "many.csv", index=False)
    assert (tmp_path / "many.csv").stat().st_size > 1 << 18
    assert run("predict", "-m", logged[0], tmp_path / "many.csv", "-o", tmp_path / "out.csv").code == 0
    got = pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_frame_equal(got, expected_of(logged[0], many), check_dtype=False, check_exact=True)
    with (tmp_path / "many.csv").open("a") as file:
        file.write("1,2\n")
    assert f"row {len(many)} (data rows are counted from 0), has 2 cells" in refused(
        "predict", "-m", logged[0], tmp_path / "many.csv", "-o", tmp_path / "none.csv"
    )


def test_probabilities_can_be_left_out(logged: list[str]) -> None:
    lines = run("predict", "-m", logged[0], "new.csv", "--no-proba").out.splitlines()
    assert lines[0] == "bar_id,prediction,confidence"
    assert re.fullmatch(r"000000,-?[01],(high|medium|low)", lines[1])


def test_text_stays_text_and_an_empty_cell_is_null_where_that_is_allowed(
    codes: tuple[str, pd.DataFrame], tmp_path: Path
) -> None:
    uri, frame = codes
    frame.to_csv(tmp_path / "codes.csv", index=False)
    frame.to_parquet(tmp_path / "codes.parquet")
    expected = expected_of(uri, frame)
    for name in ("codes.csv", "codes.parquet"):
        assert run("predict", "-m", uri, tmp_path / name, "-o", tmp_path / "out.parquet", "--force").code == 0
        pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "out.parquet"), expected, check_dtype=False)
    assert "007" in (tmp_path / "codes.csv").read_text()
    assert frame["x"].isna().any()


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("code", ""),
        ("code", "  "),
        ("hour", ""),
        ("hour", "3.5"),
        ("hour", "1_0"),
        ("x", "inf"),
        ("x", "abc"),
        ("flag", "yes"),
    ],
)
@pytest.mark.parametrize("chunk_rows", [2, 100])
def test_a_bad_cell_is_named_by_its_row_and_feature(
    cell: str, value: str, chunk_rows: int, codes: tuple[str, pd.DataFrame], tmp_path: Path
) -> None:
    uri, frame = codes
    rows = frame.head(9).astype(object)
    rows.loc[5, cell] = value
    source, target = tmp_path / "bad.csv", tmp_path / "out.csv"
    rows.to_csv(source, index=False)
    if (cell, value) == ("code", "  "):  # text all the same; the encoder does not know it
        message = refused("predict", "-m", uri, source, "-o", target, "--chunk-rows", chunk_rows)
        assert "unknown categories" in message
        assert ("rows 4 to 5" if chunk_rows == 2 else "rows 0 to 8") in message
    else:
        message = refused("predict", "-m", uri, source, "-o", target, "--chunk-rows", chunk_rows)
        assert message.startswith("Error: bad.csv, row 5 (data rows are counted from 0): Refused in row 5: ")
        assert f"feature {cell!r} " in message
        if not value:
            assert "is null" in message
    assert list(tmp_path.iterdir()) == [source]


def test_booleans_may_be_written_as_databases_write_them(codes: tuple[str, pd.DataFrame], tmp_path: Path) -> None:
    uri, frame = codes
    frame.assign(flag=frame["flag"].map({True: "TRUE", False: "0"})).to_csv(tmp_path / "bits.csv", index=False)
    assert run("predict", "-m", uri, tmp_path / "bits.csv", "-o", tmp_path / "out.csv").code == 0
    got = pd.read_csv(tmp_path / "out.csv")
    pd.testing.assert_frame_equal(got, expected_of(uri, frame), check_dtype=False)


def test_categories_are_found_again_by_their_text(folder: Path, tmp_path: Path) -> None:
    frame = quotes_as_categories()
    encoded = make_column_transformer((OneHotEncoder(), ["venue", "hour"]), remainder="passthrough")
    model = make_pipeline(encoded, LogisticRegression()).fit(frame, frame["return_1"] > 0)
    fin_pyfunc.save_model(model, frame, tmp_path / "model")
    frame.to_csv(tmp_path / "rows.csv", index=False)
    frame.to_parquet(tmp_path / "rows.parquet")
    out = {run("predict", "-m", tmp_path / "model", tmp_path / name).out for name in ("rows.csv", "rows.parquet")}
    assert len(out) == 1
    got = pd.read_csv(io.StringIO(out.pop()))
    expected = expected_of(str(tmp_path / "model"), frame)
    pd.testing.assert_frame_equal(got, expected, check_dtype=False, check_column_type=False)


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_a_number_in_text_is_read_to_the_last_bit(numbers: list[float]) -> None:
    feature = Feature(name="x", kind="number", dtype="float64")
    read = cells.read(pa.array([repr(number) for number in numbers]), feature)
    assert read.tolist() == numbers
    assert read.dtype == np.float64


@given(st.lists(st.text()))
def test_text_is_read_as_it_is(texts: list[str]) -> None:
    read = cells.read(pa.array(texts, pa.string()), Feature(name="x", kind="string", dtype="object"))
    assert read.tolist() == [text or None for text in texts]


def test_a_file_without_rows_has_no_predictions(logged: list[str], tmp_path: Path) -> None:
    header = list(with_ids(bars()).columns)
    (tmp_path / "none.csv").write_text(",".join(header) + "\n")
    with_ids(bars()).head(0).to_parquet(tmp_path / "none.parquet")
    for name in ("none.csv", "none.parquet"):
        answer = run("predict", "-m", logged[0], tmp_path / name)
        assert answer.out == "bar_id,prediction,probability,confidence,probability_-1,probability_0,probability_1\n"


def test_an_index_written_to_parquet_is_a_column(logged: list[str], tmp_path: Path) -> None:
    with_ids(small_forest().held_out).set_index("bar_id").to_parquet(tmp_path / "indexed.parquet")
    assert run("predict", "-m", logged[0], tmp_path / "indexed.parquet") == run("predict", "-m", logged[0], "new.csv")


def test_files_that_cannot_be_used_are_refused_before_a_model_is_loaded(files: Path, tmp_path: Path) -> None:
    (tmp_path / "there.csv").write_text("precious")
    for args, expected in (
        (("nope.csv",), "There is no file nope.csv"),
        (
            ("new.csv", "-o", tmp_path / "there.csv"),
            "is there already: name another file, or overwrite it with --force",
        ),
        (("new.csv", "-o", tmp_path / "out.xlsx"), "let its name end in .csv or .parquet"),
        (("new.csv", "-o", tmp_path / "no" / "out.csv"), "There is no folder"),
        (("new.csv", "-o", tmp_path, "--force"), "let its name end"),
    ):
        assert expected in refused("predict", "-m", "models:/none/1", *args)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("there.csv", "precious")]


def test_an_output_is_overwritten_only_by_a_whole_one(logged: list[str], tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("precious")
    frame = small_forest().held_out.astype(object)
    frame.iloc[-1, 0] = "odd"
    frame.to_csv(tmp_path / "bad.csv", index=False)
    args = ("predict", "-m", logged[0], "-o", target, "--force", "--chunk-rows", 10)
    assert "row 39" in refused(*args, tmp_path / "bad.csv")
    assert target.read_text() == "precious"
    assert run(*args, "new.csv").code == 0
    assert len(target.read_text().splitlines()) == 41
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bad.csv", "out.csv"]


def test_files_that_are_no_tables_are_refused(logged: list[str], tmp_path: Path) -> None:
    new = Path("new.csv").read_text()
    rows = new.split("\n", 1)[1]
    for name, content, expected in (
        ("empty.csv", b"", "empty.csv is empty"),
        (
            "latin.csv",
            (new + "é".join((rows * 9).rsplit("000039", 1))).encode("latin-1"),
            "cannot be read as CSV in UTF-8",
        ),
        ("header.csv", "prix,é\n1,2\n".encode("latin-1"), "is not CSV text in UTF-8"),
        ("twice.csv", new.replace("askPrice", "bidPrice", 1).encode(), "has the column 'bidPrice' more than once"),
        ("short.csv", b"a,b\n1,2\n", "lacks columns 'bidPrice', 'askPrice', 'spread', 'return_1', 'order_flow_"),
        (
            "ragged.csv",
            (new + "1,2,3\n").encode(),
            "row 40 (data rows are counted from 0), has 3 cells, but the header",
        ),
        ("table.parquet", b"PAR1", "is not a Parquet file, or is damaged"),
        ("cut.parquet", Path("new.parquet").read_bytes()[:-20], "is not a Parquet file, or is damaged"),
        ("table.xlsx", b"", "neither CSV nor Parquet"),
    ):
        (tmp_path / name).write_bytes(content)
        assert expected in refused("predict", "-m", logged[0], tmp_path / name, "-o", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_a_column_that_the_model_refuses_is_named(codes: tuple[str, pd.DataFrame], tmp_path: Path) -> None:
    codes[1].assign(more=1).to_csv(tmp_path / "more.csv", index=False)
    assert "more.csv has column 'more', which the model does not know" in refused(
        "predict", "-m", codes[0], tmp_path / "more.csv"
    )


@pytest.mark.parametrize("source", ["new.csv", "new.parquet"])
def test_models_logged_by_others_predict_too(source: str, foreign: Path, files: Path) -> None:
    fitted = small_forest()
    for model in ("unsigned", "signed", "forest.skops", "forest.joblib"):
        answer = run("predict", "-m", model, source)
        assert answer.code == 0, answer
        got = pd.read_csv(io.StringIO(answer.out))
        np.testing.assert_array_equal(got["prediction"], fitted.estimator.predict(fitted.held_out))
        probabilities = got[["probability_-1", "probability_0", "probability_1"]].to_numpy()
        np.testing.assert_allclose(probabilities, fitted.estimator.predict_proba(fitted.held_out), rtol=0, atol=1e-15)
    echoed = pd.read_csv(io.StringIO(run("predict", "-m", "echo", source).out))
    assert list(echoed["prediction"]) == Echo().predict(None, fitted.held_out)


def test_a_backend_that_cannot_be_had_is_refused(logged: list[str]) -> None:
    assert "backend 'tpu' is not available" in refused("predict", "-m", logged[0], "new.csv", "--backend", "tpu")


def test_progress_is_shown_on_a_terminal_only(logged: list[str], tmp_path: Path) -> None:
    for source in ("new.csv", "new.parquet"):
        terminal = Terminal()
        args = ("predict", "-m", logged[0], source, "-o", tmp_path / "out.csv", "--force", "--chunk-rows", 10)
        assert run(*args, err=terminal).code == 0
        assert "predicting" in terminal.getvalue()
        assert "100%" in terminal.getvalue()
        assert run(*args).err == ""


# models


def test_models_says_what_the_catalog_says(logged: list[str], folder: Path) -> None:
    found = Catalog(f"sqlite:///{folder / 'mlflow.db'}", "financial_ml").list_models()
    shown = json.loads(run("models", "--json").out)
    assert shown["count"] == found.count >= 1
    assert [model["model_uri"] for model in shown["models"]] == [model.model_uri for model in found.models]
    assert json.loads(run("models", "--json", "--limit", 1).out)["count"] == 1
    lines = run("models").out.splitlines()
    assert lines[0].split() == ["MODEL", "METRICS", "PARAMS", "TAGS"]
    assert len(lines) == found.count + 1
    assert any(line.startswith(f"{logged[1]}  ") for line in lines[1:])
    assert len({line.index("  ") for line in lines[1:]}) == 1


def test_models_shows_the_first_metrics_and_counts_the_others(folder: Path) -> None:
    client = MlflowClient()
    experiment = client.create_experiment("many", artifact_location=(folder / "many").as_uri())
    run_id = client.create_run(experiment).info.run_id
    for i in range(6):
        client.log_metric(run_id, f"m{i}", 1 / 3)
    client.set_tag(run_id, "asset", "EURUSD")
    made = client.create_logged_model(experiment, name="model", source_run_id=run_id)
    client.finalize_logged_model(made.model_id, "READY")
    row = run("models", "--mlflow-experiment-name", "many").out.splitlines()[1]
    assert re.split(" {2,}", row) == [
        f"runs:/{run_id}/model",
        "m0=0.3333 m1=0.3333 m2=0.3333 m3=0.3333 (+2)",
        "-",
        "asset=EURUSD",
    ]


def test_models_of_an_experiment_without_models_or_of_none(folder: Path) -> None:
    MlflowClient().create_experiment("void", artifact_location=(folder / "void").as_uri())
    answer = run("models", "--mlflow-experiment-name", "void")
    assert (answer.code, answer.out) == (0, "")
    assert "no models yet" in answer.err
    assert json.loads(run("models", "--mlflow-experiment-name", "void", "--json").out) == {"models": [], "count": 0}
    assert "There is no experiment" in refused("models", "--mlflow-experiment-name", "nope")


# inspect


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
    assert "No alias of the name asked for" in refused("inspect", "models:/rf@nope")
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


def test_a_command_that_reads_makes_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    there = ("--mlflow-tracking-uri", "sqlite:///mlflow.db")
    for command in (("models",), ("inspect", "models:/rf@champion"), ("predict", "-m", "models:/rf@champion", "x.csv")):
        (tmp_path / "x.csv").write_text("a\n1\n")
        assert "there is no MLflow store mlflow.db in" in refused(*command, *there)
    assert not (tmp_path / "mlflow.db").exists()
