"""What each file of tests of logging is run under."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import cloudpickle
import pytest

from tests.authoring import estimators


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    """MLflow tells of every example it validates."""
    before = logging.getLogger("mlflow").level
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    yield
    logging.getLogger("mlflow").setLevel(before)


@pytest.fixture(autouse=True, scope="module")
def _as_in_a_notebook(request: pytest.FixtureRequest) -> Iterator[None]:
    """Classes of the tests' own travel inside a pickle, as those of a notebook do."""
    modules = (request.module, estimators)
    for module in modules:
        cloudpickle.register_pickle_by_value(module)
    yield
    for module in modules:
        cloudpickle.unregister_pickle_by_value(module)
