"""Models as others log them, opened in this process and in a host: both must answer alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fin_pyfunc.serving.hosts.connection import Limits
from fin_pyfunc.serving.hosts.hosts import Hosts
from fin_pyfunc.serving.hosts.isolation import Isolation
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.loader import load
from fin_pyfunc.serving.resolver import Resolver

Open = Callable[[Path], LoadedModel]


@pytest.fixture(scope="package")
def isolation() -> Iterator[Isolation]:
    hosts = Hosts(Limits(3 << 30, 60.0, 30.0))
    yield Isolation(hosts)
    hosts.close()


@pytest.fixture(params=["here", "host"])
def opened(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Load a model from its folder, in this process or in a host."""
    isolation: Any = request.getfixturevalue("isolation") if request.param == "host" else None
    resolver = Resolver(None)

    def load_folder(folder: Path) -> LoadedModel:
        return load(resolver, resolver.resolve_argument(str(folder)), isolation=isolation)

    yield load_folder
    resolver.close()
