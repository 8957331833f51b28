"""What was measured on, without saying whose it is."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.drive import driver

LIBRARIES = (
    *("fin_pyfunc", "mlflow", "gunicorn", "uvicorn", "uvloop", "httptools", "msgspec", "orjson", "onnxruntime"),
    *("skl2onnx", "treelite", "scikit-learn", "lightgbm", "xgboost-cpu", "numpy", "pandas", "pyarrow"),
)


def machine() -> dict[str, Any]:
    """Processor, cores, memory, system and versions."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {platform.machine()}",
        "kernel": platform.release(),
        "python": platform.python_version(),
        "driver": driver(),
        "commit": commit(),
        "versions": versions,
    }


def processor() -> str:
    """Its model, where the system says."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or "unknown"


def commit() -> str:
    """The commit that was measured, "+" where the tree holds more than it; "unknown" outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True)
        # the results themselves may differ from what is committed
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--", ":/", ":(top,exclude)benchmarks/results"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")
