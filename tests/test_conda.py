"""The conda environments hold what setup.cfg asks for, in the same versions."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parent.parent
#: What conda calls otherwise than PyPI does.
RENAMED = {
    "prometheus_client": "prometheus-client",
    "py-xgboost-cpu": "xgboost-cpu",
    "py-xgboost-gpu": "xgboost-cpu",
    "uvicorn-standard": "uvicorn",
}
#: What an extra of a package on PyPI, such as `pyjwt[crypto]`, is a package of its own for on conda-forge.
OF_AN_EXTRA = {"cryptography"}
RAPIDS = {"cuda-version", "cuml", "nvforest"}


def environment(name: str) -> Any:
    return yaml.safe_load((ROOT / "conda" / f"{name}.yaml").read_text(encoding="utf-8"))


def asked_for(dependencies: list[Any]) -> dict[str, SpecifierSet]:
    """Package to versions, by PyPI's name."""
    from_pypi = [line for more in dependencies if isinstance(more, dict) for line in more["pip"]]
    lines = [line for line in (*dependencies, *from_pypi) if isinstance(line, str) and not line.startswith("--")]
    as_pypi = (re.sub(r"(?<=\w)=([\d.]+)$", r"==\1.*", line) for line in lines)  # conda's = is any of that version
    return {RENAMED.get(asked.name, asked.name): asked.specifier for asked in map(Requirement, as_pypi)}


def declared() -> dict[str, SpecifierSet]:
    """What setup.cfg asks for, with the extras that a data scientist has use for."""
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    lines = "\n".join([config["options"]["install_requires"], extras["boosting"], extras["notebooks"]]).split("\n")
    return {asked.name: asked.specifier for asked in map(Requirement, filter(None, lines))}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_conda_asks_for_what_setup_cfg_does(name: str) -> None:
    asked = asked_for(environment(name)["dependencies"])
    more = {"python", "pip"} | OF_AN_EXTRA | (RAPIDS if name == "gpu" else set())
    assert {package: versions for package, versions in asked.items() if package not in more} == declared()
    assert more <= set(asked)


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_it_installs_this_checkout_on_a_python_that_it_supports(name: str) -> None:
    made = environment(name)
    assert made["dependencies"][-1]["pip"][-1] == "--editable .."
    assert (ROOT / "conda" / ".." / "setup.py").is_file()
    version = str(asked_for(made["dependencies"])["python"]).removeprefix("==").removesuffix(".*")
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    assert version in SpecifierSet(config["options"]["python_requires"])
    assert made["channels"][-1] == "nodefaults"


def test_the_gpu_reads_the_treelite_that_models_are_logged_with() -> None:
    assert asked_for(environment("gpu")["dependencies"])["treelite"] == declared()["treelite"]
    assert environment("gpu")["channels"][0] == "rapidsai"
