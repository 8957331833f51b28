"""A model that computes nothing, to see what is MLflow's own."""

from __future__ import annotations

from typing import Any

import pandas as pd
from mlflow.pyfunc import PythonModel


class Nothing(PythonModel):  # type: ignore[misc] # mlflow ships no types
    """Answers any row with one and the same table, shaped as ours are."""

    def __init__(self) -> None:
        self._answer = pd.DataFrame(
            {"prediction": [0], "confidence": ["high"], "p_-1": [0.1], "p_0": [0.8], "p_1": [0.1]}
        )

    def predict(self, context: Any, model_input: Any, params: Any = None) -> Any:  # noqa: ARG002 - MLflow's names
        """The table."""
        return self._answer
