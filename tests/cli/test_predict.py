"""`fin-pyfunc predict`: a file's predictions are the model's own, and a bad file is refused by row and column."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

import fin_pyfunc
from fin_pyfunc.batch import cells
from fin_pyfunc.model.feature import Feature
from tests.cli.commands import Echo, Terminal, refused, run, with_ids
from tests.models import bars, quotes_as_categories, small_forest


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
    pd.testing.assert_frame_equal(got.drop(columns="bar_id"), expected, check_dtype=False, rtol=0, atol=1e-12)
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
    pd.testing.assert_frame_equal(got, expected_of(logged[0], many), check_dtype=False, rtol=0, atol=1e-12)
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
    message = refused("predict", "-m", uri, source, "-o", target, "--chunk-rows", chunk_rows)
    assert message.startswith("Error: bad.csv, row 5 (data rows are counted from 0): Refused in row 5: ")
    assert f"feature {cell!r} " in message
    if not value:
        assert "is null" in message
    if (cell, value) == ("code", "  "):  # text all the same
        assert "one of the 5 values that the model's encoder knows" in message
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
