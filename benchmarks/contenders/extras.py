"""LitServe, BentoML and MLServer, each installed in an environment of its own below a folder that git ignores."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.contenders import Contender, compact
from benchmarks.data import NAMES
from benchmarks.http_client import HOST
from benchmarks.servers import ROOT, free_port

ENVIRONMENTS = ROOT / ".bench"
INSTALL_SECONDS, TRAIN_SECONDS = 600.0, 120.0
HERE, DATA = Path(__file__).parent, ROOT / "benchmarks" / "data.py"


class Extra(NamedTuple):
    """A server to install.

    Parameters
    ----------
    packages : tuple of str
        What pip is asked for.
    main : str
        The package whose version tells which server it was.
    contender : callable
        The name, the environment's folder of commands and the forest's file to the contender.
    """

    packages: tuple[str, ...]
    main: str
    contender: Callable[[str, Path, Path], Contender]


class NotToBeHadError(Exception):
    """A server that cannot be installed here, and why."""


def prepare(extra: str) -> Contender:
    """Install a server where it is not there yet, and train the forest with the scikit-learn that came with it.

    Raises
    ------
    NotToBeHadError
        It cannot be installed, or cannot train the forest.
    """
    folder, what = ENVIRONMENTS / extra, EXTRAS[extra]
    commands, forest = folder / "bin", folder / "forest.joblib"
    python = str(commands / "python")
    ENVIRONMENTS.mkdir(exist_ok=True)
    (ENVIRONMENTS / ".gitignore").write_text("*\n")
    if not forest.exists():
        _run([sys.executable, "-m", "venv", str(folder)], INSTALL_SECONDS, "its environment could not be made")
        pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, *what.packages], INSTALL_SECONDS, "it could not be installed")
        _run([python, str(DATA), str(forest)], TRAIN_SECONDS, "the forest could not be trained with its libraries")
    code = "import sys; from importlib.metadata import version; print(version(sys.argv[1]))"
    version = _run([python, "-c", code, what.main], TRAIN_SECONDS, "its version is not to be found").strip()
    return what.contender(f"{what.main} {version}", commands, forest)


def _run(command: list[str], seconds: float, problem: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=True)
    except subprocess.TimeoutExpired as e:
        raise NotToBeHadError(f"{problem} within {seconds:g} s") from e
    except subprocess.CalledProcessError as e:
        said = next((line for line in reversed(e.stderr.splitlines()) if line.strip()), "")
        raise NotToBeHadError(f"{problem}: {said}") from e
    return done.stdout


def values(row: dict[str, float]) -> list[float]:
    """A row as a list, which is what these servers take."""
    return [row[name] for name in NAMES]


def litserve(name: str, commands: Path, forest: Path) -> Contender:
    """LitServe, with its batching."""
    return Contender(
        name,
        lambda port: [str(commands / "python"), str(HERE / "litserve_app.py"), HOST, str(port)],
        "/predict",
        lambda row: compact({"row": values(row)}),
        lambda answer: answer["prediction"],
        {"BENCH_FOREST": str(forest)},
    )


def bentoml(name: str, commands: Path, forest: Path) -> Contender:
    """BentoML, with its adaptive batching."""
    options = ["--host", HOST, "--working-dir", str(HERE)]
    return Contender(
        name,
        lambda port: [str(commands / "bentoml"), "serve", "bentoml_service:Forest", *options, "--port", str(port)],
        "/predict",
        lambda row: compact({"rows": [values(row)]}),
        lambda answer: answer[0],
        {
            "BENCH_FOREST": str(forest),
            "BENTOML_DO_NOT_TRACK": "True",
            "BENTOML_HOME": str(commands.parent / "home"),
            "PATH": os.pathsep.join([str(commands), os.environ.get("PATH", "")]),
        },
    )


def mlserver(name: str, commands: Path, forest: Path) -> Contender:
    """MLServer, with its adaptive batching."""
    folder = commands.parent / "models"
    (folder / "forest").mkdir(parents=True, exist_ok=True)
    settings = {
        "name": "forest",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": {"uri": str(forest)},
        "max_batch_size": 64,
        "max_batch_time": 0.005,
    }
    (folder / "forest" / "model-settings.json").write_text(json.dumps(settings))

    def command(port: int) -> list[str]:
        ports = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port()}
        ours = {"host": HOST, **ports, "parallel_workers": 0, "debug": False}
        (folder / "settings.json").write_text(json.dumps(ours))
        return [str(commands / "mlserver"), "start", str(folder)]

    return Contender(
        name,
        command,
        "/v2/models/forest/infer",
        lambda row: v2_request([values(row)]),
        lambda answer: answer["outputs"][0]["data"][0],
    )


def v2_request(rows: list[list[float]]) -> bytes:
    """Rows as one flat array, as the Open Inference Protocol (version 2) has it."""
    flat = np.asarray(rows).ravel().tolist()
    tensor = {"name": "rows", "shape": [len(rows), len(NAMES)], "datatype": "FP64", "data": flat}
    return compact({"inputs": [tensor]})


EXTRAS = {
    "litserve": Extra(("litserve", "scikit-learn", "joblib"), "litserve", litserve),
    "bentoml": Extra(("bentoml", "scikit-learn", "joblib"), "bentoml", bentoml),
    # its scikit-learn runtime is an optional package that pins neither
    "mlserver": Extra(("mlserver", "mlserver-sklearn", "joblib"), "mlserver", mlserver),
}
