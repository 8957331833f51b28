"""Any other MLflow model, through its own `predict`: labels, and no probabilities."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pandas as pd

from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.errors import ScoringError
from fin_pyfunc.model.features import FeatureSpec, Table


class PyfuncBackend:
    """Scores with a foreign pyfunc.

    Parameters
    ----------
    pyfunc : mlflow.pyfunc.PyFuncModel
        Answers one label a row: an array, a list, a Series, or a DataFrame with one column or one called `prediction`.
    spec : FeatureSpec or None
    """

    name = "pyfunc"
    device: Literal["cpu", "gpu"] = "cpu"

    def __init__(self, pyfunc: Any, spec: FeatureSpec | None) -> None:
        self._pyfunc, self._spec = pyfunc, spec

    def score(self, table: Table) -> Scores:
        """Class of each row; see `Backend.score`."""
        frame = pd.DataFrame(table) if self._spec is None else self._spec.restore(table)
        try:
            answered = self._pyfunc.predict(frame)
        except Exception as e:
            raise ScoringError(f"the model raised {type(e).__name__}") from e
        labels = _labels(answered)
        if labels.shape != (len(table),):
            raise ScoringError(
                f"the model answered {labels.shape} values, expected one label for each of {len(table)} rows"
            )
        classes, index = np.unique(labels, return_inverse=True)
        return Scores(classes=classes.tolist(), index=index, probabilities=None)


def _labels(answered: Any) -> np.ndarray[Any, Any]:
    if isinstance(answered, pd.DataFrame):
        column = "prediction" if "prediction" in answered else answered.columns[0]
        if column != "prediction" and answered.shape[1] != 1:
            raise ScoringError("the model answered several columns, expected one label a row or a column 'prediction'")
        answered = answered[column]
    labels = np.asarray(answered)
    return labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
