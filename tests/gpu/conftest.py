"""nvForest for one test, from the folder that `make` puts it in; and a GPU that is none, to see what we do with one.

No machine of CI has a GPU. `tests/gpu/standin` holds modules with the names and the interface of the GPU's libraries;
they compute with treelite and scikit-learn, hand out arrays that refuse to become NumPy's by themselves, as cupy's do,
and fail when a test says so. What only a device can show is in test_device.py, with the marker `gpu`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fin_pyfunc.model import device
from fin_pyfunc.model.backends import nvforest as nvforest_backend

STANDIN = Path(__file__).parent / "standin"
#: nvForest without its dependencies, beside the environment's own packages, which are to do without it.
NVFOREST = Path(sys.prefix) / "nvforest"
_LIBRARIES = ("cuda", "cupy", "rmm", "nvforest", "cuml")


@contextmanager
def on_path(folder: Path) -> Iterator[None]:
    """Let libraries of a GPU be imported from a folder; afterwards they are not known any more."""

    def take() -> dict[str, object]:
        return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in _LIBRARIES}

    def forget() -> None:
        """What is remembered of one library is not to be taken for another's."""
        nvforest_backend._FORESTS.clear()
        nvforest_backend._openmp.cache_clear()
        vars(nvforest_backend._THIS_THREAD).clear()

    before = take()
    forget()
    sys.path.insert(0, str(folder))
    device.probe.cache_clear()
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        take()
        forget()
        sys.modules.update(before)  # type: ignore[arg-type] # what was there
        device.probe.cache_clear()


@pytest.fixture(scope="session")
def _real_nvforest() -> Iterator[Path]:
    """Where nvForest is; once imported, its libraries stay loaded, and so do its modules."""
    if os.environ.get("FIN_PYFUNC_TEST_NVFOREST") == "installed":  # `make test-gpu`: the whole of it, with a device
        yield Path(sys.prefix)
        return
    if not (NVFOREST / "nvforest").is_dir():
        pytest.skip(
            "nvForest has no wheel for this platform, or could not be installed: see tests/gpu/requirements.txt"
        )
    sys.path.append(str(NVFOREST))
    import rmm  # noqa: F401 - first
    import nvforest  # noqa: F401  # isort: skip

    sys.path.remove(str(NVFOREST))
    yield NVFOREST


@pytest.fixture
def nvforest(_real_nvforest: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """nvForest as if it were installed, for one test."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(_real_nvforest)])
    return _real_nvforest


@pytest.fixture
def standin() -> Iterator[Path]:
    """A GPU, as far as its libraries' interface goes, for one test."""
    with on_path(STANDIN):
        yield STANDIN


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small forest as an artifact of ours."""
    import fin_pyfunc
    from tests.models import small_forest

    folder = tmp_path_factory.mktemp("saved") / "model"
    fin_pyfunc.save_model(small_forest().estimator, small_forest().train, folder)
    return folder
