"""What a row is answered does not depend on the rows beside it: in a batch, a table, or a call for several clients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow
import pandas as pd
import pytest
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import AnyType

from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.errors import FeatureError, ScoringError
from fin_pyfunc.serving.content_types import CSV
from fin_pyfunc.serving.joiner import _decide
from fin_pyfunc.serving.settings import Limits
from fin_pyfunc.serving.tables import read_table
from tests.foreign.conftest import Open

cloudpickle.register_pickle_by_value(sys.modules[__name__])


class Types(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Tells which type its column has."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[str]:
        return [f"{model_input['x'].dtype} {type(value).__name__}" for value in model_input["x"]]


ROWS: list[dict[str, Any]] = [{"x": x} for x in (3, 2.5, "a", True, None, 7, "b", False, None, 1e300)]


def told(model: Classifier, rows: list[dict[str, Any]]) -> list[Any]:
    return model.decide(rows).predictions


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "unsigned"])
def test_a_value_keeps_its_type_beside_others(opened: Open, tmp_path: Path, signed: bool) -> None:
    signature = ModelSignature(inputs=Schema([ColSpec(AnyType(), "x")])) if signed else None
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Types(), signature=signature, pip_requirements=["pandas"])
    model = opened(tmp_path / "m").model
    alone = [told(model, [row])[0] for row in ROWS]
    assert len(set(alone)) > 3
    assert told(model, ROWS) == alone
    assert told(model, ROWS[::-1]) == alone[::-1]
    joined = _decide(model, [model.table([row]) for row in ROWS])
    assert [answer.predictions[0] for answer in joined if not isinstance(answer, Exception)] == alone
    body = "x\n" + "".join("1\n" if i % 2 else f"{'x' * i}\n" for i in range(1, 8))
    for rows in (body, body.replace("1\n", "2.5\n")):
        read = read_table(CSV, rows.encode(), model.features, Limits())
        single = [
            model.decide_table(model.check(read_table(CSV, f"x\n{cell}\n".encode(), model.features, Limits())))
            for cell in rows.split()[1:]
        ]  # fmt: skip
        assert model.decide_table(model.check(read)).predictions == [answer.predictions[0] for answer in single]


class ByPlace(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:
        return [int(first > second) for first, second, *_ in pd.DataFrame(model_input).to_numpy().tolist()]


class Strict(mlflow.pyfunc.PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Knows its own order, as an estimator of scikit-learn does that was fitted on a DataFrame."""

    def predict(self, context: Any, model_input: Any, params: Any = None) -> list[int]:
        if list(model_input.columns) != ["imb", "hour"]:
            raise ValueError("another order")
        return [int(imb > 0) for imb in model_input["imb"]]


def test_a_model_without_a_signature_that_goes_by_place_is_not_asked_by_name(opened: Open, tmp_path: Path) -> None:
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=ByPlace(), pip_requirements=["pandas"])
    model = opened(tmp_path / "m").model
    for row in ({"imb": 0.5, "hour": 3}, {"hour": 3, "imb": 0.5}):
        with pytest.raises(FeatureError, match="send each row as a list of values in training order"):
            model.decide([row])
    assert model.decide([[0.5, 3], [3, 0.5]]).predictions == [0, 1]
    with pytest.raises(FeatureError, match="feature 'day' is unknown in the other rows; feature 'hour' is missing"):
        model.decide([{"imb": 0.5, "hour": 3}, {"imb": 0.5, "day": 3}])


def test_a_model_without_a_signature_may_know_its_own_order(opened: Open, tmp_path: Path) -> None:
    mlflow.pyfunc.save_model(tmp_path / "m", python_model=Strict(), pip_requirements=["pandas"])
    model = opened(tmp_path / "m").model
    assert model.decide([{"imb": 0.5, "hour": 3}]).predictions == [1]
    with pytest.raises(ScoringError, match="the model raised ValueError"):
        model.decide([{"hour": 3, "imb": 0.5}])
