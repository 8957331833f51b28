"""The settings of the server, section by section: names, types, defaults, checks and what each one means.

These types are the only list of settings: the names of environment variables, the checks, the messages and the
reference in the documentation are all read off them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from fin_pyfunc.serving.settings_wording import ROOT, SettingsError

_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1)]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Mlflow(_Section, frozen=True):
    """Where models come from."""

    tracking_uri: Annotated[
        _Text | None,
        Meta(description="MLflow tracking server or store; null leaves the choice to MLflow."),
    ] = None
    experiment_name: Annotated[
        str, Meta(min_length=1, description="Experiment that `GET /models` lists when the request names none.")
    ] = "financial_ml"
    probe_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds between two background checks that MLflow answers.")
    ] = 10.0


class Cors(_Section, frozen=True):
    """Which web pages of other origins a browser lets call the API."""

    allow_origins: Annotated[
        tuple[_Text, ...], Meta(description='Origins that may call, such as `https://example.com`; `"*"` is every one.')
    ] = ()
    allow_credentials: Annotated[
        bool, Meta(description='Whether browsers may send cookies and credentials; not together with the origin `"*"`.')
    ] = False
    allow_methods: Annotated[tuple[_Text, ...], Meta(description="HTTP methods that other origins may use.")] = (
        "GET",
        "POST",
    )
    allow_headers: Annotated[tuple[_Text, ...], Meta(description="Request headers that other origins may send.")] = (
        "Content-Type",
        "Authorization",
        "X-Request-ID",
    )

    def __post_init__(self) -> None:
        if self.allow_credentials and "*" in self.allow_origins:
            raise SettingsError(
                [
                    f"{ROOT}.cors.allow_origins: '*' cannot be combined with {ROOT}.cors.allow_credentials: true; "
                    "list the exact origins instead, or set allow_credentials to false"
                ]
            )


class Cache(_Section, frozen=True):
    """Models kept in memory."""

    enabled: Annotated[bool, Meta(description="Whether a model stays in memory after the request that loaded it.")] = (
        True
    )
    max_models: Annotated[
        int, Meta(ge=1, description="Models that one worker keeps; the least recently used goes first.")
    ] = 10


class Models(_Section, frozen=True):
    """Which models a request may name."""

    trust: Annotated[
        Literal["store", "all"],
        Meta(description="`store` loads what MLflow holds; `all` also loads pickle files below `file_roots`."),
    ] = "store"
    file_roots: Annotated[
        tuple[_Text, ...], Meta(description="Directories below which `file://` models may be loaded; none by default.")
    ] = ()
    refresh_seconds: Annotated[
        float, Meta(ge=0, le=86400, description="Longest time in seconds that a moved alias may go unnoticed.")
    ] = 30.0
    load_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Longest time in seconds that loading a model may take.")
    ] = 120.0


class Limits(_Section, frozen=True):
    """How much one request, and one worker, takes on."""

    max_batch_rows: Annotated[int, Meta(ge=1, description="Rows of one batch; 413 beyond.")] = 10_000
    max_body_bytes: Annotated[int, Meta(ge=1, description="Bytes of one request body; 413 beyond.")] = 33_554_432
    request_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds that a request may take; 504 beyond.")
    ] = 30.0
    max_waiting: Annotated[
        int, Meta(ge=1, description="Predictions waiting or running in one worker; 503 with `Retry-After` beyond.")
    ] = 256
    score_threads: Annotated[
        _Count | None, Meta(description="Scoring threads of one worker; null is one a CPU, at most 4.")
    ] = None


class Auth(_Section, frozen=True):
    """Who may call."""

    mode: Annotated[
        Literal["off", "keys", "external"],
        Meta(description="Who checks callers: nobody, this server by API keys, or (`external`) a proxy before it."),
    ] = "off"
    keys_file: Annotated[
        _Text | None, Meta(description="File of API keys that `fin-pyfunc keys` makes; the mode `keys` needs it.")
    ] = None

    def __post_init__(self) -> None:
        if self.mode == "keys" and self.keys_file is None:
            raise SettingsError(
                [
                    f"{ROOT}.auth.keys_file: {ROOT}.auth.mode is keys, which needs a key file; "
                    "make one with 'fin-pyfunc keys add NAME --scope predict --file keys.json' and name it here"
                ]
            )


class Rate(_Section, frozen=True):
    """How often one caller may ask."""

    requests: Annotated[
        _Text | None,
        Meta(
            description="Requests that one caller, an API key or else an address, may send to each worker, "
            "such as `100/second`; 429 beyond; null is no limit."
        ),
    ] = None

    def __post_init__(self) -> None:
        if self.requests is None:
            return
        from limits import parse_many  # a tenth of a second, for those who set a rate

        try:
            rates = parse_many(self.requests)
        except ValueError:
            rates = []
        if len(rates) != 1 or rates[0].amount < 1:
            raise SettingsError(
                [f"{ROOT}.rate.requests: expected one rate, such as 100/second, 5000/minute or 1/day, got another text"]
            )


class Admin(_Section, frozen=True):
    """What operators decide while the server runs."""

    state_file: Annotated[
        _Text | None,
        Meta(description="File that keeps what was stopped over a restart; null keeps it until the server ends."),
    ] = None


class Shadow(_Section, frozen=True):
    """A second model that sees a share of the traffic, and whose answers nobody gets."""

    model_uri: Annotated[_Text | None, Meta(description="The model in the shadow; null is none.")] = None
    share: Annotated[float, Meta(ge=0, le=1, description="Share of the requests that it sees.")] = 0.1
    of: Annotated[
        _Text | None,
        Meta(description="URI of the model whose requests it sees, as clients send it; null is the default model."),
    ] = None
    tolerance: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None,
        Meta(
            description="Difference in a probability from which on a row is recorded even if its class is the same; "
            "null records rows of another class alone."
        ),
    ] = None
    max_rows: Annotated[
        int, Meta(ge=1, description="Rows that wait for the shadow in one worker; what comes beyond is dropped.")
    ] = 10_000
    differences_file: Annotated[
        _Text | None,
        Meta(
            description="File of JSON lines, one a row that the models differ on; null writes some of them to the log."
        ),
    ] = None
    differences_bytes: Annotated[
        int, Meta(ge=1, description="Bytes of that file; a full one is kept once, with `.1` at the end of its name.")
    ] = 67_108_864


class Settings(_Section, frozen=True):
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
    model_uri: Annotated[
        _Text | None,
        Meta(description="Model of a request that names none, loaded at start; null has each request name its own."),
    ] = None
    backend: Annotated[
        _Text | None, Meta(description="Backend that computes every prediction; null chooses one for each model.")
    ] = None
    drain_seconds: Annotated[
        int, Meta(ge=0, le=86400, description="Seconds that requests in flight get to finish when a worker stops.")
    ] = 30
    mlflow: Annotated[Mlflow, Meta(description="Where models come from.")] = Mlflow()
    cors: Annotated[Cors, Meta(description="Which web pages of other origins may call the API.")] = Cors()
    auth: Annotated[Auth, Meta(description="Who may call.")] = Auth()
    rate: Annotated[Rate, Meta(description="How often one caller may ask.")] = Rate()
    cache: Annotated[Cache, Meta(description="Models kept in memory.")] = Cache()
    models: Annotated[Models, Meta(description="Which models a request may name.")] = Models()
    limits: Annotated[Limits, Meta(description="How much one request, and one worker, takes on.")] = Limits()
    admin: Annotated[Admin, Meta(description="What operators decide while the server runs.")] = Admin()
    shadow: Annotated[Shadow, Meta(description="A second model that sees a share of the traffic.")] = Shadow()
