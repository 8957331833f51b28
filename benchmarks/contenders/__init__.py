"""The servers that are compared: how each is started, what it is asked, and what it answered."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from benchmarks.http_client import HOST, ask, request
from benchmarks.models import Models
from benchmarks.servers import ROOT, Running, environment, free_port, running, wait_for_all

#: The worker that `fin-pyfunc serve` itself runs in: uvicorn's, with uvloop, httptools and no access log.
WORKER = "fin_pyfunc.serving.life.worker.Worker"

OURS, MLFLOW, BARE, EMPTY = "fin-pyfunc serve", "mlflow models serve", "bare ASGI + ONNX Runtime", "empty ASGI"
MLFLOW_OURS = "mlflow models serve, our artifact"
MLFLOW_NOTHING = "mlflow models serve, a model that computes nothing"


class Contender(NamedTuple):
    """One server.

    Parameters
    ----------
    name : str
    command : callable
        The port to what is run.
    path : str
    body : callable
        One row, as a dict, to the body that asks about it.
    prediction : callable or None
        The decoded answer to the class; None where it holds none.
    environ : dict of str to str, default {}
        Further environment variables.
    workers : int, default 1
        Processes that answer.
    headers : tuple of str, default ()
        Further header lines of every request.
    """

    name: str
    command: Callable[[int], list[str]]
    path: str
    body: Callable[[dict[str, float]], bytes]
    prediction: Callable[[Any], Any] | None
    environ: dict[str, str] = {}  # noqa: RUF012 - never changed
    workers: int = 1
    headers: tuple[str, ...] = ()

    def bodies(self, rows: Sequence[dict[str, float]]) -> list[bytes]:
        """One body a row."""
        return [self.body(row) for row in rows]


def ours(uri: str | None, workers: int = 1, name: str = OURS, environ: dict[str, str] | None = None) -> Contender:
    """`fin-pyfunc serve` as it comes; without a URI it has no default model."""
    model = [] if uri is None else ["-m", uri]
    options = [*model, "--workers", str(workers), "--host", HOST]
    return Contender(
        name,
        lambda port: [sys.executable, "-m", "fin_pyfunc_cli", "serve", *options, "--port", str(port)],
        "/predict",
        lambda row: compact({"features": row}),
        lambda answer: answer["prediction"],
        environ or {},
        workers,
    )


def mlflow(uri: str, name: str = MLFLOW) -> Contender:
    """`mlflow models serve`, as it comes, in this environment; our artifact answers it with a table."""
    answered = None if name == MLFLOW_NOTHING else lambda answer: label_of(answer["predictions"][0])
    command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", uri, "--env-manager", "local"]
    return Contender(
        name,
        lambda port: [*command, "--workers", "1", "--host", HOST, "--port", str(port)],
        "/invocations",
        lambda row: compact({"dataframe_records": [row]}),
        answered,
    )


def bare(models: Models) -> Contender:
    """Decode, ONNX Runtime, encode, with no check: what there is to lose."""
    return Contender(
        BARE,
        lambda port: gunicorn("benchmarks.contenders.bare:app", port),
        "/predict",
        lambda row: compact({"features": row}),
        lambda answer: answer["prediction"],
        {"BENCH_ONNX": str(models.onnx)},
    )


def empty() -> Contender:
    """An application that only answers: the most that this gunicorn and this worker do."""
    return Contender(
        EMPTY,
        lambda port: gunicorn("benchmarks.contenders.empty:app", port),
        "/predict",
        lambda row: compact({"features": row}),
        None,
    )


def gunicorn(app: str, port: int) -> list[str]:
    """The command for an ASGI application under the gunicorn, the worker and the settings of `fin-pyfunc serve`."""
    options = ["--bind", f"{HOST}:{port}", "--workers", "1", "--timeout", "60", "--keep-alive", "75"]
    return [
        *(sys.executable, "-m", "gunicorn", "--worker-class", WORKER, "--chdir", str(ROOT)),
        *(*options, "--no-control-socket", app),
    ]


def compact(body: Any) -> bytes:
    """JSON without blanks."""
    return json.dumps(body, separators=(",", ":")).encode()


def label_of(prediction: Any) -> Any:
    """The class in what `mlflow models serve` answers for one row: itself, or a record that holds it."""
    return prediction["prediction"] if isinstance(prediction, dict) else prediction


@contextlib.contextmanager
def serving(
    contender: Contender, models: Models, rows: Sequence[dict[str, float]], expected: Sequence[Any]
) -> Iterator[Running]:
    """Start a contender, and see that it answers every row as the estimator does before anybody measures it.

    Raises
    ------
    RuntimeError
        It does not start, or answers another class.
    """
    port = free_port()
    bodies = contender.bodies(rows)
    environ = environment(models.tracking_uri, contender.environ)
    first = request(contender.path, bodies[0], headers=contender.headers)
    with running(contender.command(port), port, first, environ, contender.name) as server:
        if contender.workers > 1:
            wait_for_all(port, first, contender.workers)
        verify(contender, port, bodies, expected)
        yield server


def verify(contender: Contender, port: int, bodies: Sequence[bytes], expected: Sequence[Any]) -> None:
    """Ask about every row once, and compare.

    Raises
    ------
    RuntimeError
        It answers other than 200, or another class.
    """
    if contender.prediction is None:
        return
    for i, (body, label) in enumerate(zip(bodies, expected, strict=True)):
        status, answer = ask(port, request(contender.path, body, headers=contender.headers))
        if status != 200 or (got := contender.prediction(json.loads(answer))) != label:
            said = answer[:300].decode(errors="replace") if status != 200 else f"class {got!r}, expected {label!r}"
            raise RuntimeError(f"{contender.name} answered row {i} with {status}: {said}")
