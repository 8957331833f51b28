"""What the tests of the resolver and its store share: a saved model, an id of nothing, and how a refusal reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from fin_pyfunc.model.errors import FinPyfuncError

X = np.arange(20.0).reshape(10, 2)
Y = [0, 1] * 5
NOBODY = "0" * 32


def save(folder: Path) -> Path:
    mlflow.sklearn.save_model(LogisticRegression().fit(X, Y), folder, pip_requirements=["scikit-learn"])
    return folder


def refused(call: Any, error: type[FinPyfuncError]) -> str:
    with pytest.raises(error) as caught:
        call()
    message = str(caught.value)
    assert type(caught.value) is error
    assert message.endswith(".")
    assert message.count(". ") == 0
    assert "/tmp" not in message  # no path of the server
    return message
