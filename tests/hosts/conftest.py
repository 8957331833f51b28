"""Model folders, made once, and a server's hosts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow.pyfunc
import pytest

from fin_pyfunc.host.opening import Opening
from fin_pyfunc.serving.hosts.connection import Limits
from fin_pyfunc.serving.hosts.hosts import Hosts
from tests.hosts import behaviour

MEMORY = 512 << 20


class Folders:
    """Models' folders by name."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def pyfunc(self, name: str, make: Callable[[], Any], **options: Any) -> Opening:
        """A custom model, saved when first asked for."""
        path = self._root / name
        if not path.exists():
            mlflow.pyfunc.save_model(path, python_model=make(), pip_requirements=[], **options)
        return Opening(form="pyfunc", path=str(path), digest=str(path))

    def rules(self, version: str) -> Opening:
        """One of two models whose code has the same name."""
        code = self._root / f"code-{version}" / "rules.py"
        code.parent.mkdir(exist_ok=True)
        code.write_text(f"VERSION = {version!r}\n")
        return self.pyfunc(f"rules-{version}", behaviour.Versioned, code_paths=[str(code)])


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Folders]:
    cloudpickle.register_pickle_by_value(behaviour)
    yield Folders(tmp_path_factory.mktemp("models"))
    cloudpickle.unregister_pickle_by_value(behaviour)


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    """Of a server with secrets."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret-of-the-server")
        patch.setenv("MLFLOW_TRACKING_TOKEN", "s3cret-of-the-server")
        patch.setenv("MODEL_REGION", "eu")
        made = Hosts(Limits(MEMORY, open_seconds=60.0, call_seconds=3.0), ["MODEL_REGION"])
    yield made
    made.close()


@pytest.fixture
def behaving(hosts: Hosts, folders: Folders, tmp_path: Path) -> Any:
    """A model of this test's own, so that ends are counted anew."""
    opening = folders.pyfunc("behaviour", behaviour.Behaviour)
    model = hosts.open(Opening(form="pyfunc", path=opening.path, digest=str(tmp_path)), "models:/m-behaviour")
    yield model
    model.close()
