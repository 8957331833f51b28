"""Small models in folders of their own, for servers that need no store."""

from __future__ import annotations

from pathlib import Path

import pytest
from sklearn.linear_model import LogisticRegression

import fin_pyfunc
from tests.models import bars, labels


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A logistic regression for -1, 0 and 1 on `bars`."""
    folder = tmp_path_factory.mktemp("models") / "model"
    fin_pyfunc.save_model(LogisticRegression().fit(bars(), labels(-1, 0, 1)), bars(), folder)
    return folder
