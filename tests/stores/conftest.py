"""Environments of older versions of MLflow, built once a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from fin_pyfunc.serving.hosts.environments import Environments
from tests.stores.older import REQUIREMENTS


@pytest.fixture(scope="session", params=REQUIREMENTS)
def older_python(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with an older MLflow."""
    folder = tmp_path_factory.mktemp("requirements")
    (folder / "requirements.txt").write_text(REQUIREMENTS[request.param])
    # of the whole run: xdist's processes have folders of their own below it
    return Environments(tmp_path_factory.getbasetemp().parent / "environments", 600).python_of(folder)
