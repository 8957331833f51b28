"""The keywords of logging, ours and MLflow's own, mean in the loaded model what they say."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

import fin_pyfunc
from fin_pyfunc.model.errors import ArtifactError, BackendError, FeatureError, NotLoggableError
from tests import models
from tests.authoring.checks import as_rows, assert_same_answers, refused, saved
from tests.authoring.estimators import hist_of_categories
from tests.conftest import SqliteStore
from tests.models import fit, labels, quotes_as_categories


def test_thresholds_extra_and_identifiers_are_the_models_own(tmp_path: Path) -> None:
    fitted = models.logistic()
    train = fitted.train.assign(bar_id=range(len(fitted.train)), at=pd.Timestamp("2012-02-01"))
    with pytest.raises(NotLoggableError, match="medium"):
        saved(fitted._replace(train=train), tmp_path, identifiers=["bar_id", "at"], confidence={"high": 0.5})
    model = saved(
        fitted._replace(train=train),
        tmp_path,
        identifiers=["bar_id", "at", "desk"],
        extra="forbid",
        confidence={"high": 0.5, "medium": 0.1},
    )
    row = as_rows(fitted.held_out)[0]
    assert model.predict_one(row | {"bar_id": "x", "at": 1, "desk": None})["confidence"] == "high"
    with pytest.raises(FeatureError, match="'mood' is unknown to this model"):
        model.predict_one(row | {"mood": "good"})
    inputs = mlflow.pyfunc.load_model(str(tmp_path / "model")).metadata.get_input_schema()
    assert inputs.required_input_names() == ["return_1", "order_flow_imbalance"]
    assert inputs.optional_input_names() == ["bar_id"]


@pytest.mark.parametrize(
    "value", [[1, 2], {"a": 1}, b"a", np.inf, None, pd.Timestamp("2012-02-01", tz="UTC"), np.uint64(2**63 + 5)]
)
def test_an_identifier_may_hold_anything(tmp_path: Path, value: Any) -> None:
    fitted = models.logistic()
    train = fitted.train.assign(bar_id=pd.Series([value] * len(fitted.train), index=fitted.train.index))
    fin_pyfunc.save_model(fitted.estimator, train, tmp_path / "model", identifiers=["bar_id"])
    assert_same_answers(fin_pyfunc.load_model(str(tmp_path / "model")), fitted)


def test_loading_a_model_that_is_not_ours_says_so(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    mlflow.sklearn.save_model(
        models.logistic().estimator, foreign, serialization_format="cloudpickle", pip_requirements=[]
    )
    with pytest.raises(ArtifactError, match="not logged by fin_pyfunc: log it with"):
        fin_pyfunc.load_model(str(tmp_path / "foreign"))


def test_a_backend_is_asked_for_by_name_and_never_quietly_replaced(tmp_path: Path) -> None:
    saved(models.logistic(), tmp_path, backend="native")
    names = [b.name for b in fin_pyfunc.load_model(str(tmp_path / "model"), backend="cpu").dispatch.backends]
    assert names == ["program", "native"]
    for name in names:
        only = fin_pyfunc.load_model(str(tmp_path / "model"), backend=name)
        assert [backend.name for backend in only.dispatch.backends] == [name]
        assert only.decide([{"return_1": 0.0, "order_flow_imbalance": 0.0}]).backend == name
    assert [b.name for b in fin_pyfunc.load_model(str(tmp_path / "model")).dispatch.backends] == ["native"]
    with pytest.raises(BackendError, match="'abacus' is not available for this model; expected one of 'auto'"):
        fin_pyfunc.load_model(str(tmp_path / "model"), backend="abacus")


# MLflow's own keywords


@pytest.fixture
def store(sqlite_store: SqliteStore) -> Iterator[str]:
    """The id of an experiment in the session's store, which is MLflow's own store meanwhile."""
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(sqlite_store.tracking_uri)
    experiment = mlflow.get_experiment_by_name("authoring")
    if experiment is not None:
        yield experiment.experiment_id
    else:
        yield mlflow.create_experiment("authoring", artifact_location=sqlite_store.artifact_root.as_uri())
    mlflow.set_tracking_uri(before)


def test_mlflows_own_keywords_mean_what_they_mean_there(store: str, tmp_path: Path) -> None:
    fitted = models.small_forest()
    (tmp_path / "desk_helpers.py").write_text("DESK = 'fx'\n")
    example = fitted.train.head(3)
    with mlflow.start_run(experiment_id=store) as run:
        info = fin_pyfunc.log_model(
            fitted.estimator,
            fitted.train,
            "forest",
            identifiers=["bar_id"],
            registered_model_name="authoring_forest",
            metadata={"desk": "fx"},
            params={"depth": "4"},
            tags={"asset": "EURUSD"},
            input_example=example,
            extra_pip_requirements=["tabulate"],
            code_paths=[str(tmp_path / "desk_helpers.py")],
        )
    assert info.run_id == run.info.run_id
    assert info.registered_model_version == 1
    assert info.metadata["desk"] == "fx"
    assert re.fullmatch("[0-9a-f]{64}", info.metadata["fin_pyfunc"]["manifest_sha256"])
    logged = mlflow.get_logged_model(info.model_id)
    assert logged.params["depth"] == "4"
    assert logged.tags["asset"] == "EURUSD"
    for uri in (f"runs:/{run.info.run_id}/forest", "models:/authoring_forest/1", info.model_uri):
        assert_same_answers(fin_pyfunc.load_model(uri), fitted)
    loaded = mlflow.pyfunc.load_model(info.model_uri)
    local = Path(mlflow.artifacts.download_artifacts(info.model_uri, dst_path=str(tmp_path / "downloaded")))
    requirements = (local / "requirements.txt").read_text().splitlines()
    assert requirements[0] == "--find-links code"
    assert "tabulate" in requirements
    assert any(line.startswith("scikit-learn==") for line in requirements)
    assert (local / "code" / "desk_helpers.py").is_file()
    pd.testing.assert_frame_equal(loaded.input_example, example)


def test_a_model_is_logged_without_a_run_as_mlflow_does_it(store: str) -> None:
    mlflow.set_experiment(experiment_id=store)
    try:
        info = fin_pyfunc.log_model(models.logistic().estimator, models.logistic().train)
    finally:
        mlflow.end_run()
    assert_same_answers(fin_pyfunc.load_model(info.model_uri), models.logistic())


def test_requirements_of_the_callers_take_the_place_of_ours_but_our_wheel_stays(tmp_path: Path) -> None:
    (tmp_path / "list").mkdir()
    saved(models.logistic(), tmp_path / "list", pip_requirements=["scikit-learn>=1.5"])
    listed = (tmp_path / "list" / "model" / "requirements.txt").read_text().splitlines()
    assert {"--find-links code", f"fin_pyfunc=={fin_pyfunc.__version__}"} <= {*listed}
    assert "scikit-learn>=1.5" in listed
    others = [line for line in listed if not line.startswith(("mlflow==", "fin_pyfunc=="))]  # MLflow adds itself
    assert not any("==" in line for line in others)
    file = tmp_path / "requirements.txt"
    file.write_text("scikit-learn>=1.4\n")
    saved(models.logistic(), tmp_path, pip_requirements=str(file), extra_pip_requirements=str(file))
    assert "scikit-learn>=1.4" in (tmp_path / "model" / "requirements.txt").read_text().splitlines()


def test_none_means_the_default_as_in_mlflow(tmp_path: Path) -> None:
    mlflows = ("metadata", "code_paths", "signature", "pip_requirements", "extra_pip_requirements")
    ours = ("identifiers", "confidence", "classes")
    model = saved(models.logistic(), tmp_path, **dict.fromkeys([*mlflows, *ours]))
    assert_same_answers(model, models.logistic())


def test_a_signature_of_the_callers_must_name_every_feature(tmp_path: Path) -> None:
    from mlflow.models import ModelSignature, infer_signature

    fitted = models.logistic()
    refused(
        fitted.estimator,
        fitted.train,
        "signature given lacks 'order_flow_imbalance'.*add it, or leave signature out",
        tmp_path,
        signature=infer_signature(fitted.train[["return_1"]]),
    )
    no_inputs = ModelSignature(outputs=infer_signature(fitted.train).inputs)
    refused(fitted.estimator, fitted.train, "signature given lacks", tmp_path, signature=no_inputs)
    given = infer_signature(fitted.train.assign(note="a"))
    saved(fitted, tmp_path, signature=given)
    assert mlflow.pyfunc.load_model(str(tmp_path / "model")).metadata.signature == given


def test_the_signature_says_what_goes_in_and_what_comes_out(tmp_path: Path) -> None:
    fitted = fit(hist_of_categories(), quotes_as_categories(), labels(-1, 0, 1))
    saved(fitted, tmp_path)
    signature = mlflow.pyfunc.load_model(str(tmp_path / "model")).metadata.signature
    assert [(c.name, c.type.name) for c in signature.inputs] == [
        ("return_1", "double"),
        ("order_flow_imbalance", "double"),
        ("venue", "string"),
        ("hour", "long"),
    ]
    assert [(c.name, c.type.name, c.required) for c in signature.outputs] == [
        ("prediction", "long", True),
        ("probability", "double", False),
        ("confidence", "string", True),
        ("probability_-1", "double", False),
        ("probability_0", "double", False),
        ("probability_1", "double", False),
    ]
    assert [(p.name, p.dtype.name, p.default) for p in signature.params] == [("return_proba", "boolean", True)]
