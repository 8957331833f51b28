"""The settings of the server, section by section: names, types, defaults, checks and what each one means.

The types here, in `callers` and in `watching` are the only list of settings: the names of environment variables, the
checks, the messages and the reference in the documentation are all read off them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fin_pyfunc.serving.hosts.uv_program import find_uv
from fin_pyfunc.serving.settings.callers import Auth, Cors, Rate, Tls
from fin_pyfunc.serving.settings.section import Count, Section, Text
from fin_pyfunc.serving.settings.watching import Admin, Metrics, Record, Shadow, Tracing
from fin_pyfunc.serving.settings.wording import ROOT, SettingsError
from fin_pyfunc.serving.trust.allow import EVERY


class Mlflow(Section, frozen=True):
    """Where models come from."""

    tracking_uri: Annotated[
        Text | None,
        Meta(description="MLflow tracking server or store; null leaves the choice to MLflow."),
    ] = None
    experiment_name: Annotated[
        str, Meta(min_length=1, description="Experiment that `GET /models` lists when the request names none.")
    ] = "financial_ml"
    upgrade_store: Annotated[
        bool,
        Meta(
            description="Whether a start may upgrade a database of an older MLflow, for good; by default it is not "
            "served, and `mlflow db upgrade` does it."
        ),
    ] = False
    probe_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds between two background checks that MLflow answers.")
    ] = 10.0


class Cache(Section, frozen=True):
    """Models kept in memory."""

    enabled: Annotated[bool, Meta(description="Whether a model stays in memory after the request that loaded it.")] = (
        True
    )
    max_models: Annotated[
        int, Meta(ge=1, description="Models that one worker keeps; the least recently used goes first.")
    ] = 10


class Models(Section, frozen=True):
    """Which models a request may name."""

    trust: Annotated[
        Literal["data", "store", "all"],
        Meta(
            description="`data` loads nothing executable; `store` also pickles and custom code, from the MLflow store "
            "alone; `all` also from below `file_roots`."
        ),
    ] = "store"
    allow: Annotated[
        tuple[Text, ...],
        Meta(description="Patterns of `runs:/` and `models:/` URIs that may be asked for; `*` is any characters."),
    ] = EVERY
    file_roots: Annotated[
        tuple[Text, ...], Meta(description="Directories below which `file://` models may be loaded; none by default.")
    ] = ()
    artifact_roots: Annotated[
        tuple[Text, ...],
        Meta(
            description="Where the MLflow store's models may lie, as URIs or folders; by default its own artifact root."
        ),
    ] = ()
    max_bytes: Annotated[int, Meta(ge=1, description="Bytes of the largest model that is fetched or opened.")] = (
        2_147_483_648
    )
    isolation: Annotated[
        Literal["process", "none"],
        Meta(
            description="`process` runs each model that may run code in a confined process of its own; `none` runs it "
            "in the server's."
        ),
    ] = "process"
    host_memory_bytes: Annotated[
        int,
        Meta(ge=1, description="Bytes of memory that a model may take in its process, beyond what its libraries do."),
    ] = 8_589_934_592
    host_environment: Annotated[
        tuple[Text, ...],
        Meta(description="Names of environment variables that a model's process may see, besides the usual ones."),
    ] = ()
    refresh_seconds: Annotated[
        float, Meta(ge=0, le=86400, description="Longest time in seconds that a moved alias may go unnoticed.")
    ] = 30.0
    load_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Longest time in seconds that loading a model may take.")
    ] = 120.0
    loads: Annotated[int, Meta(ge=1, description="Models that one worker loads at once; others wait.")] = 2
    unknown_seconds: Annotated[
        float,
        Meta(ge=0, le=86400, description="Seconds for which a model that is not there, or does not load, stays so."),
    ] = 5.0
    unknown_per_second: Annotated[
        int,
        Meta(ge=1, description="Unknown URIs that one worker asks the store about in a second; 503 for more of them."),
    ] = 20
    environment: Annotated[
        Literal["server", "model"],
        Meta(
            description="What a model host runs in: the server's own Python environment, or one built by uv from the "
            "`requirements.txt` of the model; `model` needs the extra `environments`."
        ),
    ] = "server"
    environments_folder: Annotated[
        Text | None,
        Meta(
            description="Folder of environments under `environment: model`, which nobody else may write to; null is "
            "`fin_pyfunc/environments` in the user's cache."
        ),
    ] = None
    environment_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Longest time in seconds that building an environment may take.")
    ] = 900.0

    def __post_init__(self) -> None:
        if self.environment == "model" and self.isolation == "none":
            raise SettingsError(
                [
                    f"{ROOT}.models.environment: model needs {ROOT}.models.isolation: process, because one process has "
                    "one environment; set one of the two to its default"
                ]
            )
        if self.environment == "model" and find_uv() is None:
            raise SettingsError(
                [
                    f"{ROOT}.models.environment: model needs uv, which is not installed; run pip install "
                    "'fin_pyfunc[environments]', or set it to server"
                ]
            )
        if odd := [pattern for pattern in self.allow if not pattern.startswith(("runs:/", "models:/"))]:
            raise SettingsError(
                [
                    f"{ROOT}.models.allow: expected patterns that begin with runs:/ or models:/, such as "
                    f"models:/eurusd_*@champion, got {len(odd)} of another kind; files are allowed by "
                    f"{ROOT}.models.file_roots"
                ]
            )


class Limits(Section, frozen=True):
    """How much one request, and one worker, takes on."""

    max_batch_rows: Annotated[int, Meta(ge=1, description="Rows of one batch; 413 beyond.")] = 10_000
    max_body_bytes: Annotated[int, Meta(ge=1, description="Bytes of one request body; 413 beyond.")] = 33_554_432
    max_row_bytes: Annotated[
        int, Meta(ge=1, description="Bytes of the body of a single row (`/predict`); 413 beyond.")
    ] = 262_144
    max_row_keys: Annotated[
        int,
        Meta(
            ge=1,
            description="Keys or columns that one row may have, or twice as many as its model has features, if that is "
            "more; 422 beyond.",
        ),
    ] = 2_500
    max_held_bytes: Annotated[
        int,
        Meta(
            ge=1,
            description="Bytes of bodies that one worker holds at once, those of at most 64 KiB aside; 503 with "
            "`Retry-After` beyond.",
        ),
    ] = 268_435_456
    max_headers: Annotated[int, Meta(ge=1, description="Header lines of one request; 431 beyond.")] = 100
    max_head_bytes: Annotated[
        int, Meta(ge=1, description="Bytes of a request's first line and headers; 431 beyond (414 for the address).")
    ] = 65_536
    max_connections: Annotated[
        int, Meta(ge=1, description="Connections open at one worker; further ones are answered 503 and closed.")
    ] = 4096
    client_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=86400,
            description="Seconds that a client may take to send a request's headers, to send its body (and one more "
            "for each 16 KiB of it), or to read an answer; the connection is closed beyond.",
        ),
    ] = 20.0
    request_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds that a request may take; 504 beyond.")
    ] = 30.0
    max_waiting: Annotated[
        int, Meta(ge=1, description="Predictions waiting or running in one worker; 503 with `Retry-After` beyond.")
    ] = 256
    score_threads: Annotated[
        Count | None, Meta(description="Scoring threads of one worker; null is one a CPU, at most 4.")
    ] = None
    worker_memory: Annotated[
        Count | None,
        Meta(description="Bytes of memory beyond which a worker is replaced by a new one; null is no limit."),
    ] = None


class Settings(Section, frozen=True):
    """Everything that can be set for the server, under ``deployment.api`` in a configuration file."""

    enabled: Annotated[bool, Meta(description="Whether the API may be started with this configuration.")] = True
    host: Annotated[str, Meta(min_length=1, description="Address to listen on; `0.0.0.0` is every interface.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")] = 8000
    workers: Annotated[int, Meta(ge=1, description="Worker processes, each with its own models in memory.")] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], Meta(description="Least severe level that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"], Meta(description="`text` for people, or `json`: one object a line.")
    ] = "text"
    log_requests: Annotated[
        Literal["auto", "all", "failed"],
        Meta(description="Which requests are a line of the log; `auto` is `all` as JSON and `failed` as text."),
    ] = "auto"
    model_uri: Annotated[
        Text | None,
        Meta(description="Model of a request that names none, loaded at start; null has each request name its own."),
    ] = None
    preload: Annotated[
        tuple[Text, ...], Meta(description="Further models, loaded and warm before the server is ready.")
    ] = ()
    backend: Annotated[
        Text | None,
        Meta(
            description="What computes predictions: `auto`, `cpu`, `gpu` or a backend's name; null leaves it to each "
            "model."
        ),
    ] = None
    drain_seconds: Annotated[
        int, Meta(ge=0, le=86400, description="Seconds that requests in flight get to finish when a worker stops.")
    ] = 30
    mlflow: Annotated[Mlflow, Meta(description="Where models come from.")] = Mlflow()
    cors: Annotated[Cors, Meta(description="Which web pages of other origins may call the API.")] = Cors()
    auth: Annotated[Auth, Meta(description="Who may call.")] = Auth()
    rate: Annotated[Rate, Meta(description="How often one caller may ask.")] = Rate()
    tls: Annotated[Tls, Meta(description="HTTPS without a proxy.")] = Tls()
    cache: Annotated[Cache, Meta(description="Models kept in memory.")] = Cache()
    models: Annotated[Models, Meta(description="Which models a request may name.")] = Models()
    limits: Annotated[Limits, Meta(description="How much one request, and one worker, takes on.")] = Limits()
    metrics: Annotated[Metrics, Meta(description="What is counted.")] = Metrics()
    tracing: Annotated[Tracing, Meta(description="Spans of each request.")] = Tracing()
    record: Annotated[Record, Meta(description="What is written down of each prediction.")] = Record()
    admin: Annotated[Admin, Meta(description="What operators decide while the server runs.")] = Admin()
    shadow: Annotated[Shadow, Meta(description="A second model that sees a share of the traffic.")] = Shadow()
