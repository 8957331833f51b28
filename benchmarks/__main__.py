"""All benchmarks, or some: builds the models, measures, and writes the results beside this file.

    python -m benchmarks
    python -m benchmarks --only serve,batch --rounds 3 --seconds 3
    python -m benchmarks --with litserve,bentoml,mlserver

Everything listens on 127.0.0.1 alone, and is ended when its turn is over.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from benchmarks import report
from benchmarks.bench import Bench
from benchmarks.contenders.extras import EXTRAS
from benchmarks.machine import machine
from benchmarks.models import build
from benchmarks.row import Row

#: Module to what it measures, in the order they run.
BENCHMARKS = {
    "micro": "one row and many within one process (points 2, 4, 7)",
    "serve": "one row a request, beside other servers (points 1, 7)",
    "batch": "5,000 rows a request (point 3)",
    "desk": "pipelines with text and numbers, within one process and served (issue 22)",
    "native": "one row answered by the estimator itself, beside its own call (issue 22)",
    "joined": "estimators that cannot be compiled (point 5)",
    "outage": "what others notice while a model's process ends, and when it is back",
    "start": "start-up and memory (point 6)",
    "first_seconds": "latency in the first seconds after a server is ready, against the next ones",
    "many": "many models in one server (point 8)",
    "shadow": "what a second model in the shadow adds to the first one's latency",
    "guard": "authentication, limits and checks (point 9)",
    "abuse": "the others' answers while clients mean harm (point 10)",
    "overhead": "what metrics and logs cost",
    "record": "what the record of predictions costs",
}
#: `--quick`: to see that everything runs, not to learn anything.
QUICK = {"rounds": 2, "seconds": 1.0}
#: Blocks of a call within this process cost little: so many for each round of a server.
BLOCKS = 3


def main() -> None:
    """Measure, print and write; the exit status is 1 where a benchmark failed."""
    given = _options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that the servers are ended then too
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    with tempfile.TemporaryDirectory(prefix="bench-") as temporary:
        print("training and logging the models", flush=True)
        bench = Bench(build(given.folder or Path(temporary)), given.rounds, given.seconds, given.extras)
        rows: list[Row] = []
        failed = False
        for name in given.only:
            print(f"{name}: {BENCHMARKS[name]}", flush=True)
            bench.rounds = given.rounds * BLOCKS if name == "micro" else given.rounds
            try:
                rows += import_module(f"benchmarks.{name}").measure(bench)
            except (RuntimeError, OSError, EOFError) as e:  # the others are still worth having
                failed = True
                bench.left_out[name] = str(e).partition("\n")[0]
                print(f"{name} failed: {e}", file=sys.stderr, flush=True)
    settings = {
        "rounds": given.rounds,
        "blocks": given.rounds * BLOCKS,
        "seconds": given.seconds,
        "arguments": _arguments(given),
        "left_out": bench.left_out,
    }
    report.write(given.out, rows, machine(), settings, bench.latencies)
    print((given.out / "results.md").read_text(encoding="utf-8"))
    sys.exit(int(failed))


def _arguments(given: argparse.Namespace) -> str:
    """What leads to the same measurement elsewhere: no folders of this machine."""
    words = [] if list(given.only) == list(BENCHMARKS) else ["--only", ",".join(given.only)]
    words += ["--with", ",".join(given.extras)] if given.extras else []
    return "".join(f" {word}" for word in [*words, "--rounds", str(given.rounds), "--seconds", f"{given.seconds:g}"])


def _options() -> argparse.Namespace:
    options = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__.partition("\n")[0],
        formatter_class=argparse.RawTextHelpFormatter,
    )
    listed = "\n".join(f"  {name}: {what}" for name, what in BENCHMARKS.items())
    options.add_argument(
        "--only", type=_some(BENCHMARKS), default=list(BENCHMARKS), metavar="A,B", help=f"some of them:\n{listed}"
    )
    options.add_argument(
        *("--with",),
        dest="extras",
        type=_some(EXTRAS),
        default=(),
        metavar="A,B",
        help=f"further servers, each installed into its own environment below .bench/: {', '.join(EXTRAS)}",
    )
    options.add_argument("--rounds", type=int, default=5, help="alternating rounds (default 5)")
    options.add_argument("--seconds", type=float, default=5.0, help="length of one measurement (default 5)")
    options.add_argument("--quick", action="store_true", help="two rounds of a second, to try everything out")
    options.add_argument("--folder", type=Path, help="keep the models here, and find them here the next time")
    options.add_argument("--out", type=Path, default=report.RESULTS, help="where the results go")
    given = options.parse_args()
    if given.quick:
        given.rounds, given.seconds = QUICK["rounds"], QUICK["seconds"]
    return given


def _some(known: Mapping[str, object]) -> Callable[[str], tuple[str, ...]]:
    """An argument type: names, separated by commas, of those that are known."""

    def names(text: str) -> tuple[str, ...]:
        chosen = tuple(part.strip() for part in text.split(",") if part.strip())
        unknown = [name for name in chosen if name not in known]
        if unknown or not chosen:
            raise argparse.ArgumentTypeError(f"expected some of {', '.join(known)}, separated by commas")
        return chosen

    return names


if __name__ == "__main__":
    main()
