"""What each file of tests of logging is run under."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator

import cloudpickle
import pytest


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """MLflow tells of every example it validates."""
    before = logging.getLogger("mlflow").level
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    yield
    logging.getLogger("mlflow").setLevel(before)


@pytest.fixture(autouse=True, scope="module")
def _as_in_a_notebook() -> Iterator[None]:
    """Classes of this file travel inside a pickle, as those of a notebook do."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
