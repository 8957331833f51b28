"""Check every model of the zoo, and write docs/models.md; the exit status is 1 where one is wrong or has crashed."""

from __future__ import annotations

import argparse
import logging
import os
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

os.environ |= {
    name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS") if name not in os.environ
}  # before anything starts threads: each case has a process
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ |= {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_TRACKING_URI": "sqlite:////dev/null/none.db"}

import msgspec

if TYPE_CHECKING:
    from tests.zoo.case import Case, Outcome

MODULES = ("classifiers", "transformers", "pipelines", "boosting", "further", "refused")


def all_cases() -> list[Case]:
    """Every case, in the order of the page."""
    return [case for name in MODULES for case in import_module(f"tests.zoo.{name}").cases()]


def here(cases: list[Case]) -> list[Case]:
    """Those whose library is installed here."""
    from tests.zoo.further import PACKAGES

    return [case for case in cases if find_spec(PACKAGES.get(case.group, "sklearn")) is not None]


def prepare() -> None:
    """Import what every case needs, and start the process that compiles, before anything is forked."""
    import cloudpickle

    from fin_pyfunc.authoring import compile_child, requirements
    from fin_pyfunc.host import fork_server

    logging.disable(logging.ERROR)
    for name in MODULES:  # functions of the cases' own travel inside a pickle, as those of a notebook do
        cloudpickle.register_pickle_by_value(import_module(f"tests.zoo.{name}"))
    fork_server.CONVERTERS = (*fork_server.CONVERTERS, "tests.zoo.brief_timing")
    compile_child.start()
    for module in (
        "mlflow.pyfunc", "skops.io", "onnxruntime", "treelite", "lightgbm", "xgboost", "fin_pyfunc.authoring.log",
        "tests.zoo.check", "fin_pyfunc.model.wrapper", "fin_pyfunc.model.backends.forms",
    ):  # fmt: skip
        import_module(module)
    requirements._installed()


def run(cases: list[Case], n_processes: int, file: Path | None = None) -> list[Outcome]:
    """Check cases, saying how far it is; in their own order."""
    from tests.zoo.pool import outcomes

    found, started = {}, time.monotonic()
    for outcome in outcomes(cases, n_processes):
        found[outcome.group, outcome.name, outcome.data] = outcome
        if outcome.verdict in ("wrong", "crashed"):
            sys.stderr.write(
                f"\r{outcome.verdict}: {outcome.group} / {outcome.name} / {outcome.data}: {outcome.says}\n"
            )
        if file is not None:
            file.write_bytes(msgspec.json.format(msgspec.json.encode(list(found.values()))))
        sys.stderr.write(f"\r{len(found)} of {len(cases)}, {time.monotonic() - started:.0f} s ")
        sys.stderr.flush()
    sys.stderr.write("\n")
    return [found[case.group, case.name, case.data] for case in cases]


def elsewhere(cases: list[Case], python: str, n_processes: int) -> list[Outcome]:
    """Check cases whose libraries are in another environment, by its interpreter."""
    from tests.zoo.case import Outcome

    with tempfile.TemporaryDirectory(prefix="zoo-") as folder:
        file = Path(folder, "outcomes.json")
        groups = sorted({case.group for case in cases})
        command = [python, "-m", "tests.zoo", "--processes", str(n_processes), "--json", str(file), "--only", *groups]
        subprocess.run(command, check=False)
        return msgspec.json.decode(file.read_bytes(), type=list[Outcome])


def main() -> None:
    """Check, write, and say what is wrong."""
    from tests.zoo import transformers
    from tests.zoo.page import PAGE, page

    given = _options()
    cases = [case for case in all_cases() if any(text in case.key for text in given.only or [""])]
    ours = here(cases)
    prepare()
    found = run(ours, given.processes, given.json)
    if given.further is not None:
        found += elsewhere([case for case in cases if case not in ours], given.further, given.processes)
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
    if not given.only:
        order = {case.group: "" for case in cases} | {transformers.GROUP: transformers.note()}
        PAGE.write_text(page(found, order, PAGE.read_text("utf-8") if PAGE.exists() else ""), "utf-8")
    sys.exit(any(outcome.verdict in ("wrong", "crashed") for outcome in found))


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(prog="python -m tests.zoo", description=__doc__)
    options.add_argument("--only", nargs="+", metavar="TEXT", help="cases whose name has one of these; writes no page")
    options.add_argument("--processes", type=int, default=os.cpu_count() or 1, metavar="N")
    options.add_argument(
        "--further", metavar="PYTHON", help="interpreter of an environment with CatBoost, imbalanced-learn, InterpretML"
    )
    options.add_argument("--json", type=Path, metavar="FILE", help="where to write every outcome")
    return options.parse_args()


if __name__ == "__main__":
    main()
