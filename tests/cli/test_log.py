"""`fin-pyfunc log`: an estimator file and a sample become a model whose every URI loads."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import skops.io
from mlflow import MlflowClient
from sklearn.compose import make_column_transformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import fin_pyfunc
from tests.cli.commands import Answer, refused, run
from tests.models import N_TRAIN, labels, small_forest


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


def test_the_labels_of_a_sample_are_no_feature_and_are_compared(files: Path) -> None:
    known = labels(-1, 0, 1)[:N_TRAIN]
    shuffled = np.random.default_rng(0).permutation(known)
    pd.read_csv("train.csv").assign(label=known, swapped=shuffled).to_csv("both.csv", index=False)
    base = ("log", "forest.skops", "both.csv", "--drop", "bar_id", "--backend", "native")
    answer = run(*base, "--drop", "swapped", "--label", "label", "--mlflow-experiment-name", "labels")
    assert answer.code == 0, answer
    said = refused(*base, "--drop", "label", "--label", "swapped", "--mlflow-experiment-name", "labels")
    assert "agrees with the column of --label on " in said
    assert "leave the column out with --drop if the model is that weak" in said
    assert "has no column 'nope'" in refused(*base, "--label", "nope")


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
            pickle.dumps(Answer(0, "", ""))
            .replace(b"tests.cli.commands", b"__main__")
            .replace(b"\x8c\x12", b"\x8c\x08")
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
