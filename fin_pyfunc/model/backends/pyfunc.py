"""Any other MLflow model, through its own `predict`: labels, and no probabilities."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
import pandas as pd

from fin_pyfunc.model.backends.alike import score_alike
from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.errors import ScoringError
from fin_pyfunc.model.features import FeatureSpec, Table

#: What is wrong with a model that answers anything but labels.
NO_CLASSIFIER = "no class label: it is no classifier"


class PyfuncBackend:
    """Scores with a foreign pyfunc.

    Parameters
    ----------
    pyfunc : mlflow.pyfunc.PyFuncModel
        Answers one label a row: an array, a list, a Series, or a DataFrame or a dict of columns with one column or one
        called `prediction`.
    spec : FeatureSpec or None
    """

    name = "pyfunc"
    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, pyfunc: Any, spec: FeatureSpec | None) -> None:
        self._pyfunc, self._spec = pyfunc, spec

    def score(self, table: Table) -> Scores:
        """Class of each row; see `Backend.score`."""
        if not len(table):  # many models refuse to look at no rows at all
            return Scores(classes=[], index=np.empty(0, dtype=np.intp), probabilities=None)
        if self._spec is None or self._spec.is_untyped:
            return score_alike(table, self._score)
        return self._score(table)

    def _score(self, table: Table) -> Scores:
        try:
            answered = self._pyfunc.predict(self._model_input(table))
        except Exception as e:
            raise ScoringError(f"the model raised {type(e).__name__}") from e
        found = labels(answered)
        if len(found) != len(table):
            raise ScoringError(f"the model answered {len(found)} labels for {len(table)} rows")
        return scores(found)

    def _model_input(self, table: Table) -> Any:
        if self._spec is None:
            return pd.DataFrame(table)
        frame = self._spec.restore(table)
        is_tensor = self._spec.naming == "positions" and not self._spec.has_numbers_for_names
        return frame.to_numpy() if is_tensor else frame


def scores(found: Sequence[Label]) -> Scores:
    """One label a row as scores without probabilities."""
    position: dict[tuple[type, Label], int] = {}  # by type too: Python takes True for 1
    index = [position.setdefault((type(label), label), len(position)) for label in found]
    return Scores(classes=[label for _, label in position], index=np.array(index, np.intp), probabilities=None)


def labels(answered: Any) -> list[Label]:
    """What a pyfunc answered as one label a row.

    Raises
    ------
    ScoringError
        It is something else.
    """
    if isinstance(answered, dict):
        answered = _columns(answered)
    if isinstance(answered, pd.DataFrame):
        if "prediction" not in answered and answered.shape[1] != 1:
            raise ScoringError(
                f"the model answered {answered.shape[1]} columns, expected one, or one called 'prediction'"
            )
        answered = answered["prediction" if "prediction" in answered else answered.columns[0]]
    if isinstance(answered, list):  # as it is: NumPy would make text of ["up", 1]
        found = [label.tolist() if isinstance(label, np.generic | np.ndarray) else label for label in answered]
    else:
        array = np.asarray(answered)
        if array.ndim != 1 and not (array.ndim == 2 and array.shape[1] == 1):
            raise ScoringError(f"the model answered an object of shape {array.shape}, expected one label a row")
        found = array.reshape(-1).tolist()
    found = [label[0] if isinstance(label, list) and len(label) == 1 else label for label in found]
    if not all(isinstance(label, str | int | float | bool) and label == label for label in found):
        raise ScoringError("the model answered a label that is neither text nor a number nor a boolean")
    if any(isinstance(label, float) and not label.is_integer() for label in found):
        raise ScoringError(f"the model answered a fraction, which is {NO_CLASSIFIER}")
    return found


def _columns(answered: dict[Any, Any]) -> pd.DataFrame:
    """A dict of columns; values that are no columns are those of a single row."""
    if "prediction" in answered:
        answered = {"prediction": answered["prediction"]}
    try:
        columns = {name: values for name, values in answered.items() if np.ndim(values) == 1}
        return pd.DataFrame(columns or {name: [value] for name, value in answered.items()})
    except (ValueError, TypeError):
        raise ScoringError("the model answered a dict whose columns are of different lengths") from None


def scores_of_any(answered: Any, max_bytes: int | None = None) -> Scores:
    """What a pyfunc answered as labels; anything else as its JSON text, one a row.

    Parameters
    ----------
    answered : object
        One answer a row; one that is no list of answers counts as a single one.
    max_bytes : int, optional
        Longest text that is kept; the rest of it is cut off.
    """
    try:
        found = labels(answered)
    except (ScoringError, TypeError, ValueError):
        rows = answered.to_dict("records") if isinstance(answered, pd.DataFrame) else answered
        if isinstance(rows, str | bytes | dict) or not isinstance(rows, Iterable):
            rows = [rows]
        found = [json.dumps(row.tolist() if hasattr(row, "tolist") else row, default=str) for row in rows]
    if max_bytes is not None:
        found = [label if not isinstance(label, str) else _cut(label, max_bytes) for label in found]
    return scores(found)


def _cut(text: str, max_bytes: int) -> str:
    encoded = text.encode(errors="replace")
    return encoded[:max_bytes].decode(errors="ignore") if len(encoded) > max_bytes else encoded.decode()


def rows_frame(data: Any) -> pd.DataFrame:
    """Rows as MLflow hands them over: a DataFrame, or an array, a list or a dict of them; anything else is one row."""
    if isinstance(data, pd.DataFrame):
        return data
    try:
        if isinstance(data, dict):
            return pd.DataFrame({name: list(values) for name, values in data.items()})
        return pd.DataFrame({"input": [data] if isinstance(data, str) else list(data)})
    except (TypeError, ValueError):
        return pd.DataFrame({"input": [data]})
