"""`fin-pyfunc score` on this machine: every row once, whatever happens to the process; and only one model a folder."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fin_pyfunc
from fin_pyfunc.demo.bars import make_bars
from tests.models import forest
from tests.tables import features_of

COMMAND = [sys.executable, "-m", "fin_pyfunc_cli", "score"]


class Scored(NamedTuple):
    """A model's folder, a folder of bars, and what an undisturbed run made of it."""

    model: Path
    bars: Path
    preds: Path


def run(model: Path, source: Path, target: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, "-m", str(model), "--input", str(source), "--output", str(target), *more]
    return subprocess.run(command, capture_output=True, text=True, timeout=200)


def content(folder: Path) -> dict[str, bytes]:
    """All that a run wrote, but for times."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    return {name: data for name, data in files.items() if name.endswith(".parquet") or name.startswith(".")}
