"""What an installation holds: every package of ours, and of other projects what serving needs."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from fin_pyfunc.authoring.requirements import installed_version
from tests.models import bars
from tests.servers import clean_environment, serving

ROOT = Path(__file__).parents[1]
#: Logs a model where the modules that `sitecustomize` blocks cannot be imported.
LOG = """
import mlflow, fin_pyfunc
from tests.models import small_forest
mlflow.set_experiment("financial_ml")
with mlflow.start_run():
    fin_pyfunc.log_model(small_forest().estimator, small_forest().train, registered_model_name="small")
"""


def settings() -> ConfigParser:
    config = ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def test_every_package_is_installed() -> None:
    installed = settings()["options"]["packages"].split()
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "fin_pyfunc").rglob("__init__.py")}
    assert sorted({*found, "fin_pyfunc_cli"}) == sorted(installed)


def test_mlflow_has_the_version_of_whichever_of_its_distributions_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tmp_path / "mlflow_skinny-3.99.dist-info"
    found.mkdir()
    (found / "METADATA").write_text("Metadata-Version: 2.1\nName: mlflow-skinny\nVersion: 3.99\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert installed_version("mlflow") == "3.99"
    with pytest.raises(PackageNotFoundError):
        installed_version("pandas")


def closure(names: set[str]) -> set[str]:
    """Distributions and all that they want, without extras."""
    seen: set[str] = set()
    pending = [canonicalize_name(name) for name in names]
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            wanted = [Requirement(line) for line in requires(name) or ()]
        except PackageNotFoundError:
            continue
        pending += [canonicalize_name(each.name) for each in wanted if each.marker is None or each.marker.evaluate()]
    return seen


def test_logging_and_serving_want_none_of_the_packages_of_mlflows_own_server(tmp_path: Path) -> None:
    ours = {Requirement(line).name for line in settings()["options"]["install_requires"].strip().split("\n")}
    missing = closure({"mlflow"}) - closure(ours)
    if "flask" not in missing:
        pytest.skip("MLflow's own server is not installed here")
    modules = [
        module for module, owners in packages_distributions().items() if {*map(canonicalize_name, owners)} <= missing
    ]
    assert {"flask", "matplotlib", "docker"} <= set(modules)
    code = f"import sys\nsys.modules.update(dict.fromkeys({modules!r}))\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    env = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}", "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", LOG], cwd=tmp_path, env=clean_environment(env), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with serving("-m", "models:/small/1", folder=tmp_path, env=env) as server:
        row = bars().iloc[0].to_dict()
        assert server.predict(row).status_code == 200
        assert server.predict_batch([row]).status_code == 200
        assert server._post("/invocations", {"dataframe_records": [row]}).status_code == 200
        assert server.wait_for("/models").json()["count"] == 1
