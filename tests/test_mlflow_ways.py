"""Every standard MLflow way of running a logged model, each for real and held to the estimator's own answers."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import requests

import fin_pyfunc
from fin_pyfunc.model.device import gpu_refusal
from fin_pyfunc.model.errors import BackendError, FeatureError
from tests import models
from tests.conftest import SqliteStore, free_port, tracking_to
from tests.models import Fitted

pytestmark = pytest.mark.xdist_group("mlflow_ways")  # one server for all of them

CLASSES = ["down", "flat", "up"]
PROBABILITIES = [f"probability_{name}" for name in CLASSES]


@cache
def orders() -> Fitted:
    """A pipeline on every kind of feature, with missing values in each kind that may have them."""
    from sklearn.compose import make_column_transformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder

    rng = np.random.default_rng(5)
    quotes = models.quotes()
    n = len(quotes)
    frame = quotes[["order_flow_imbalance", "hour", "is_month_end", "venue"]].assign(
        spread=models.bars_with_gaps()["spread"] * 1e5,
        lots=pd.array(np.where(rng.random(n) < 0.2, None, rng.integers(1, 9, n)), dtype="Int64"),
        halted=pd.array(np.where(rng.random(n) < 0.2, None, rng.random(n) < 0.4), dtype="boolean"),
        desk=pd.Series(np.where(rng.random(n) < 0.2, None, rng.choice(["a", "b"], n)), dtype="str"),
    )
    numbers = ["order_flow_imbalance", "spread", "lots", "halted", "hour", "is_month_end"]
    columns = make_column_transformer(
        (SimpleImputer(), numbers), (OneHotEncoder(handle_unknown="ignore"), ["venue", "desk"])
    )
    return models.fit(make_pipeline(columns, LogisticRegression(max_iter=500)), frame, models.labels(*CLASSES))


@pytest.fixture(scope="module")
def orders_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("orders") / "model"
    fin_pyfunc.save_model(orders().estimator, orders().train.assign(bar_id=1), path, identifiers=["bar_id"])
    return path


@pytest.fixture(scope="module")
def numbers_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("numbers") / "model"
    fin_pyfunc.save_model(models.small_forest().estimator, models.small_forest().train, path)
    return path


@pytest.fixture(scope="module")
def categories_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("categories") / "model"
    fin_pyfunc.save_model(categories().estimator, categories().train, path)
    return path


@cache
def categories() -> Fitted:
    from sklearn.ensemble import HistGradientBoostingClassifier

    frame = models.quotes_as_categories()
    return models.fit(HistGradientBoostingClassifier(max_iter=8), frame, models.labels(*CLASSES))


def assert_answers(table: Any, fitted: Fitted, frame: pd.DataFrame | None = None) -> None:
    """A table of answers is the estimator's own, to the label and to 1e-9."""
    table = table if isinstance(table, pd.DataFrame) else pd.DataFrame(table)
    frame = fitted.held_out if frame is None else frame
    assert table["prediction"].tolist() == fitted.estimator.predict(frame).tolist()
    names = [name for name in table.columns if name.startswith("probability_")]
    np.testing.assert_allclose(table[names].to_numpy(), fitted.estimator.predict_proba(frame), rtol=0, atol=1e-9)


def as_json(frame: pd.DataFrame) -> dict[str, Any]:
    """The body that a client sends as dataframe_split."""
    rows = frame.astype(object).where(frame.notna(), None)
    return {"columns": list(rows.columns), "data": rows.to_numpy().tolist()}


def as_mlflow_hands_over(frame: pd.DataFrame) -> pd.DataFrame:
    """A table without pandas' own nullable dtypes, which MLflow's schema does not let pass where nulls may be."""
    return frame.astype({"lots": "float64", "halted": object})


# in a notebook or a batch job


def test_pyfunc_answers_as_the_estimator_does(numbers_model: Path, orders_model: Path) -> None:
    assert_answers(
        mlflow.pyfunc.load_model(str(numbers_model)).predict(models.small_forest().held_out), models.small_forest()
    )
    loaded = mlflow.pyfunc.load_model(str(orders_model))
    assert_answers(loaded.predict(as_mlflow_hands_over(orders().held_out)), orders())


def test_our_own_choices_are_no_parameters_of_the_run(sqlite_store: SqliteStore) -> None:
    """A parameter of the user's may have the name of one."""
    with tracking_to(sqlite_store.tracking_uri):
        location = (sqlite_store.artifact_root / "parameters").as_uri()
        with mlflow.start_run(experiment_id=mlflow.create_experiment("parameters", artifact_location=location)) as run:
            mlflow.log_param("backend", "LSEG")
            logged = fin_pyfunc.log_model(models.logistic().estimator, models.logistic().train, backend="native")
        assert mlflow.get_run(run.info.run_id).data.params == {"backend": "LSEG"}
        loaded = mlflow.pyfunc.load_model(logged.model_uri, model_config={"backend": "cpu"}).unwrap_python_model()
        assert loaded.manifest.backend == "native"


@pytest.mark.parametrize("backend", ["native", "cpu", "auto"])
def test_pyfunc_takes_a_backend_by_model_config(numbers_model: Path, backend: str) -> None:
    loaded = mlflow.pyfunc.load_model(str(numbers_model), model_config={"backend": backend})
    assert_answers(loaded.predict(models.small_forest().held_out), models.small_forest())
    assert loaded.unwrap_python_model().dispatch.wanted == backend


def test_pyfunc_refuses_a_gpu_that_is_not_there_with_the_reason(numbers_model: Path) -> None:
    refusal = gpu_refusal()
    with pytest.raises(BackendError) as e:
        mlflow.pyfunc.load_model(str(numbers_model), model_config={"backend": "gpu"})
    # where there is a GPU, this model has no backend for it yet
    assert (refusal or "is not available for this model") in str(e.value)
    assert "'cpu'" in str(e.value)


def test_return_proba_is_an_inference_parameter(numbers_model: Path) -> None:
    loaded = mlflow.pyfunc.load_model(str(numbers_model))
    held_out = models.small_forest().held_out
    full = loaded.predict(held_out)
    short = loaded.predict(held_out, params={"return_proba": False})
    assert list(short.columns) == ["prediction", "confidence"]
    pd.testing.assert_frame_equal(full[["prediction", "confidence"]], short)
    with pytest.raises(mlflow.MlflowException, match="return_proba"):
        loaded.predict(held_out, params={"return_proba": "yes"})


def test_an_empty_table_gets_an_empty_answer(numbers_model: Path, orders_model: Path, categories_model: Path) -> None:
    for path, fitted in ((numbers_model, models.small_forest()), (orders_model, None), (categories_model, None)):
        model = mlflow.pyfunc.load_model(str(path))
        held_out = fitted.held_out if fitted else as_text(categories().held_out)
        if path == orders_model:
            held_out = as_mlflow_hands_over(orders().held_out)
        answer = model.predict(held_out.iloc[:0])
        assert len(answer) == 0
        assert list(answer.columns) == list(model.predict(held_out.iloc[:1]).columns)


def test_the_index_and_order_of_rows_are_kept(numbers_model: Path) -> None:
    held_out = models.small_forest().held_out.iloc[::-1].set_axis(["same"] * models.N_HELD_OUT)
    answer = mlflow.pyfunc.load_model(str(numbers_model)).predict(held_out)
    assert answer.index.equals(held_out.index)
    assert_answers(answer, models.small_forest(), held_out)


def test_a_refused_value_names_its_row_through_pyfunc_too(numbers_model: Path) -> None:
    gap = models.small_forest().held_out.copy()
    gap.iloc[3, 1] = np.nan
    with pytest.raises(FeatureError, match="'askPrice' is NaN") as e:
        mlflow.pyfunc.load_model(str(numbers_model)).predict(gap)
    assert e.value.rows == (3,)


# what MLflow's schema lets pass, dtype by dtype


def test_float32_and_small_integers_pass_for_numbers(numbers_model: Path) -> None:
    loaded = mlflow.pyfunc.load_model(str(numbers_model))
    narrow = models.small_forest().held_out.astype("float32")
    assert_answers(loaded.predict(narrow), models.small_forest(), narrow.astype("float64"))
    whole = models.small_forest().held_out.round().astype("int32")
    assert_answers(loaded.predict(whole), models.small_forest(), whole.astype("float64"))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "Int64"])
def test_integers_of_any_width_pass_for_an_integer(orders_model: Path, dtype: str) -> None:
    frame = as_mlflow_hands_over(orders().held_out).astype({"hour": dtype})
    assert_answers(mlflow.pyfunc.load_model(str(orders_model)).predict(frame), orders())


@pytest.mark.parametrize("lots", ["float64", "float32", "Float64", object])
@pytest.mark.parametrize("halted", ["float64", object])
@pytest.mark.parametrize("desk", ["str", "string", object])
def test_missing_values_pass_in_each_dtype_that_can_hold_them(
    orders_model: Path, lots: Any, halted: Any, desk: Any
) -> None:
    frame = orders().held_out.astype({"lots": lots, "halted": halted, "desk": desk})
    for name in ("lots", "halted"):
        if frame[name].dtype == object:
            frame[name] = frame[name].where(frame[name].notna(), None)
    assert_answers(mlflow.pyfunc.load_model(str(orders_model)).predict(frame), orders())


def test_pandas_nullable_dtypes_with_nulls_pass_through_our_own_loader(orders_model: Path) -> None:
    assert_answers(fin_pyfunc.load_model(str(orders_model)).predict(orders().held_out), orders())
    # MLflow's schema has no type for them: it refuses before the model sees the table
    with pytest.raises(mlflow.MlflowException, match=r"lots.*Can not safely convert Int64"):
        mlflow.pyfunc.load_model(str(orders_model)).predict(orders().held_out)


def as_text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.astype({"venue": "str", "hour": "int64"})


def test_categories_pass_as_their_values(categories_model: Path) -> None:
    held_out = categories().held_out
    assert_answers(mlflow.pyfunc.load_model(str(categories_model)).predict(as_text(held_out)), categories())
    assert_answers(fin_pyfunc.load_model(str(categories_model)).predict(as_text(held_out)), categories())
    assert_answers(fin_pyfunc.load_model(str(categories_model)).predict(held_out), categories())
    with pytest.raises(mlflow.MlflowException, match=r"venue.*Can not safely convert category"):
        mlflow.pyfunc.load_model(str(categories_model)).predict(held_out)


# over HTTP


@pytest.fixture(scope="module")
def served(orders_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """`mlflow models serve` on a free port, in a process group of its own."""
    port, where = free_port(), tmp_path_factory.mktemp("served")
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(orders_model), "--env-manager", "local"]
    with (where / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)],
            cwd=where,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not answers_ping(url):
            assert process.poll() is None, (where / "log").read_text()
            assert time.monotonic() < deadline, (where / "log").read_text()
            time.sleep(0.1)
        yield f"{url}/invocations"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def environment(**more: str) -> dict[str, str]:
    """This process's, with the virtual environment's commands first, as when it is activated."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **more}


def answers_ping(url: str) -> bool:
    try:
        return requests.get(f"{url}/ping", timeout=2).ok
    except requests.RequestException:
        return False


def ask(url: str, **body: Any) -> Any:
    response = requests.post(url, json=body, timeout=30)
    assert response.ok, response.text
    return response.json()["predictions"]


def test_mlflow_models_serve_answers_dataframe_split_with_nulls(served: str) -> None:
    assert_answers(ask(served, dataframe_split=as_json(orders().held_out)), orders())


def test_mlflow_models_serve_answers_dataframe_records_with_nulls(served: str) -> None:
    split = as_json(orders().held_out)
    records = [dict(zip(split["columns"], row, strict=True)) for row in split["data"]]
    assert_answers(ask(served, dataframe_records=records), orders())
    assert_answers(ask(served, dataframe_records=[dict(reversed(records[5].items()))]), orders(), row(5))
    assert_answers(ask(served, dataframe_records=[records[5] | {"bar_id": 3, "mood": "good"}]), orders(), row(5))


def row(i: int) -> pd.DataFrame:
    return orders().held_out.iloc[[i]]


def test_mlflow_models_serve_answers_csv_with_nulls(served: str) -> None:
    csv = orders().held_out.to_csv(index=False)
    response = requests.post(served, data=csv, headers={"Content-Type": "text/csv"}, timeout=30)
    assert response.ok, response.text
    assert_answers(response.json()["predictions"], orders())


def test_mlflow_models_serve_takes_return_proba(served: str) -> None:
    answers = ask(served, dataframe_split=as_json(orders().held_out), params={"return_proba": False})
    assert [list(answer) for answer in answers] == [["prediction", "confidence"]] * models.N_HELD_OUT
    assert [answer["prediction"] for answer in answers] == orders().estimator.predict(orders().held_out).tolist()


def test_mlflow_models_serve_refuses_a_null_that_training_had_not(served: str) -> None:
    split = as_json(orders().held_out)
    split["data"][3][split["columns"].index("venue")] = None
    response = requests.post(served, json={"dataframe_split": split}, timeout=30)
    assert response.status_code >= 400
    assert "'venue' is" in response.text


# from the command line, in environments of its own


@pytest.mark.slow
def test_mlflow_models_predict_works_in_an_environment_built_from_the_artifact_alone(
    orders_model: Path, tmp_path: Path
) -> None:
    held_out = tmp_path / "held_out.csv"
    orders().held_out.to_csv(held_out, index=False)
    command = [sys.executable, "-m", "mlflow", "models", "predict", "-m", str(orders_model), "--env-manager", "uv"]
    command += ["-i", str(held_out), "-t", "csv", "-o", str(tmp_path / "answers.json")]
    env = {k: v for k, v in environment().items() if k not in ("PYTHONPATH", "VIRTUAL_ENV", "UV_QUIET")}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    # uv lists what it installs
    assert f"+ fin-pyfunc=={fin_pyfunc.__version__}\n" in done.stderr, done.stderr[-3000:]
    assert_answers(json.loads((tmp_path / "answers.json").read_text())["predictions"], orders())


def test_no_pickle_is_read_to_load_and_score(orders_model: Path, tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.json"
    held_out.write_text(json.dumps(as_json(orders().held_out)))
    program = (
        "import json, pickle, sys\n"
        "import mlflow, pandas as pd\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "split = json.load(open(sys.argv[2]))\n"
        "frame = pd.DataFrame(split['data'], columns=split['columns'])\n"
        "print(model.predict(frame).to_csv(index=False))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(orders_model), str(held_out)],
        cwd=tmp_path,
        env=environment(MLFLOW_ALLOW_PICKLE_DESERIALIZATION="false"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert_answers(pd.read_csv(io.StringIO(done.stdout)), orders())
