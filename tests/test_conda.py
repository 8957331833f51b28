"""The conda environments hold what setup.cfg asks for, in the same versions."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import venv
from pathlib import Path
from typing import Any

import jsonschema
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
    wanted = [extras[name] for name in ("boosting", "mlflow", "notebooks")]
    lines = "\n".join([config["options"]["install_requires"], *wanted]).split("\n")
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


#: What conda reads in such a file (its user guide, "Creating an environment file manually"); it ignores other keys,
#: which a misspelt one would be.
SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "required": ["name", "channels", "dependencies"],
    "properties": {
        "name": {"type": "string", "pattern": r"^[^/ :#]+$"},
        "channels": {"type": "array", "minItems": 1, "items": {"type": "string"}},
        "dependencies": {
            "type": "array",
            "items": {
                "oneOf": [
                    # a match specification: [channel::]name, then conditions on the version, then on the build
                    {
                        "type": "string",
                        "pattern": r"^([\w.-]+::)?[a-z0-9_][a-z0-9._-]*"
                        r"( ?(=|==|>=|<=|!=|~=|>|<)[\w.*+!]+([,|](=|==|>=|<=|!=|~=|>|<)[\w.*+!]+)*(=[\w.*]+)?)?$",
                    },
                    {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["pip"],
                        "properties": {"pip": {"type": "array", "items": {"type": "string"}}},
                    },
                ]
            },
        },
        "variables": {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        "prefix": {"type": "string"},
    },
}


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_conda_can_read_it(name: str) -> None:
    jsonschema.validate(environment(name), SCHEMA)


def test_the_gpus_versions_are_those_of_the_extras() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    lines = [line for line in f"{extras['gpu']}\n{extras['cuml']}".split("\n") if line and not line.startswith("%")]
    asked = {package.name: package.specifier for package in map(Requirement, lines)}
    ours = asked_for(environment("gpu")["dependencies"])
    assert {name.removesuffix("-cu13"): versions for name, versions in asked.items()} == {
        "nvforest": ours["nvforest"],
        "cuml": ours["cuml"],
    }
    assert str(ours["cuda-version"]) == "==13.*"


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_what_it_takes_from_pypi_installs_in_a_fresh_environment_where_the_demo_runs(tmp_path: Path) -> None:
    (cpu,), (gpu,) = ([d["pip"] for d in environment(n)["dependencies"] if isinstance(d, dict)] for n in ("cpu", "gpu"))
    assert cpu == gpu  # RAPIDS itself comes from conda's channels, which no test here reaches
    (tmp_path / "pip.txt").write_text("\n".join(cpu))
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    # as conda runs pip: beside the file, so that `..` is this checkout
    install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "-r", tmp_path / "pip.txt"]
    subprocess.run([*install, "-c", ROOT / "constraints.txt"], cwd=ROOT / "conda", check=True, timeout=900)
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW_", "FIN_PYFUNC"))}
    demo = [tmp_path / "env" / "bin" / "fin-pyfunc", "demo", "--trees", "5"]
    said = subprocess.run(demo, cwd=tmp_path, env=environ, check=True, timeout=240, capture_output=True, text=True)
    assert "models:/eurusd_rf" in said.stdout
