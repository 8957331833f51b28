"""The settings of the server, section by section: names, types, defaults, checks and what each one means.

These types are the only list of settings: the names of environment variables, the checks, the messages and the
reference in the documentation are all read off them.
"""

from __future__ import annotations

import ipaddress
import re
from importlib.util import find_spec
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from fin_pyfunc.serving.settings_wording import ROOT, SettingsError
from fin_pyfunc.serving.trust.allow import EVERY

_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1)]
_Positive = Annotated[float, Meta(gt=0)]


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is part of
        return False


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
        Literal["data", "store", "all"],
        Meta(
            description="`data` loads nothing executable; `store` also pickles and custom code, from the MLflow store "
            "alone; `all` also from below `file_roots`."
        ),
    ] = "store"
    allow: Annotated[
        tuple[_Text, ...],
        Meta(description="Patterns of `runs:/` and `models:/` URIs that may be asked for; `*` is any characters."),
    ] = EVERY
    file_roots: Annotated[
        tuple[_Text, ...], Meta(description="Directories below which `file://` models may be loaded; none by default.")
    ] = ()
    artifact_roots: Annotated[
        tuple[_Text, ...],
        Meta(
            description="Where the MLflow store's models may lie, as URIs or folders; by default its own artifact root."
        ),
    ] = ()
    max_bytes: Annotated[int, Meta(ge=1, description="Bytes of the largest model that is fetched or opened.")] = (
        2_147_483_648
    )
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

    def __post_init__(self) -> None:
        if odd := [pattern for pattern in self.allow if not pattern.startswith(("runs:/", "models:/"))]:
            raise SettingsError(
                [
                    f"{ROOT}.models.allow: expected patterns that begin with runs:/ or models:/, such as "
                    f"models:/eurusd_*@champion, got {len(odd)} of another kind; files are allowed by "
                    f"{ROOT}.models.file_roots"
                ]
            )


class Limits(_Section, frozen=True):
    """How much one request, and one worker, takes on."""

    max_batch_rows: Annotated[int, Meta(ge=1, description="Rows of one batch; 413 beyond.")] = 10_000
    max_body_bytes: Annotated[int, Meta(ge=1, description="Bytes of one request body; 413 beyond.")] = 33_554_432
    max_row_bytes: Annotated[
        int, Meta(ge=1, description="Bytes of the body of a single row (`/predict`); 413 beyond.")
    ] = 1_048_576
    max_row_keys: Annotated[int, Meta(ge=1, description="Keys that one row may have; 422 beyond.")] = 10_000
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
        _Count | None, Meta(description="Scoring threads of one worker; null is one a CPU, at most 4.")
    ] = None
    worker_memory: Annotated[
        _Count | None,
        Meta(description="Bytes of memory beyond which a worker is replaced by a new one; null is no limit."),
    ] = None


class Auth(_Section, frozen=True):
    """Who may call."""

    mode: Annotated[
        Literal["off", "keys", "jwt", "keys+jwt", "external"],
        Meta(
            description="Who checks callers: nobody; this server, by API keys, by JWT, or by either; or (`external`) "
            "a proxy before it."
        ),
    ] = "off"
    keys_file: Annotated[
        _Text | None, Meta(description="File of API keys that `fin-pyfunc keys` makes; the modes with `keys` need it.")
    ] = None
    jwks: Annotated[
        _Text | None,
        Meta(description="File or `https://` address of the issuer's public keys (a JWKS); the modes with `jwt` do."),
    ] = None
    issuer: Annotated[_Text | None, Meta(description="What a JWT's `iss` must be; the modes with `jwt` need it.")] = (
        None
    )
    audience: Annotated[
        _Text | None, Meta(description="What a JWT's `aud` must be, or hold; the modes with `jwt` need it.")
    ] = None
    scopes_claim: Annotated[
        str, Meta(min_length=1, description="Claim with the scopes of a JWT: words in one text, or a list.")
    ] = "scope"
    models_claim: Annotated[
        str, Meta(min_length=1, description="Claim with the patterns of model URIs that a JWT is for; without it: all.")
    ] = "models"
    leeway_seconds: Annotated[
        float, Meta(ge=0, le=86400, description="Seconds by which the issuer's clock and this one may differ.")
    ] = 30.0
    jwks_seconds: Annotated[float, Meta(gt=0, le=86400, description="Seconds after which the JWKS is read again.")] = (
        300.0
    )

    @property
    def by_keys(self) -> bool:
        """Whether API keys are taken."""
        return "keys" in self.mode

    @property
    def by_jwt(self) -> bool:
        """Whether JWT are taken."""
        return "jwt" in self.mode

    @property
    def is_on(self) -> bool:
        """Whether this server checks callers itself."""
        return self.by_keys or self.by_jwt

    def __post_init__(self) -> None:
        if self.by_keys and self.keys_file is None:
            raise SettingsError(
                [
                    f"{ROOT}.auth.keys_file: {ROOT}.auth.mode is {self.mode}, which needs a key file; "
                    "make one with 'fin-pyfunc keys add NAME --scope predict --file keys.json' and name it here"
                ]
            )
        wanted = {"jwks": self.jwks, "issuer": self.issuer, "audience": self.audience}
        if self.by_jwt and (missing := [name for name, value in wanted.items() if value is None]):
            raise SettingsError(
                [
                    f"{ROOT}.auth.{name}: {ROOT}.auth.mode is {self.mode}, which needs it: what the tokens' issuer says"
                    for name in missing
                ]
            )
        if self.jwks is not None and not _is_safe_address(self.jwks):
            raise SettingsError(
                [f"{ROOT}.auth.jwks: expected a file or an https:// address (http:// on loopback), got another address"]
            )


class Rate(_Section, frozen=True):
    """How often one caller may ask."""

    requests: Annotated[
        _Text | None,
        Meta(
            description="Requests that one caller, a key, a token's subject or else an address, may send, such as "
            "`100/second`; 429 beyond; null is no limit."
        ),
    ] = None
    storage: Annotated[
        str,
        Meta(
            min_length=1,
            description="Where requests are counted: `memory://` is each worker by itself, `redis://host:port/0` all "
            "workers and hosts together.",
        ),
    ] = "memory://"
    storage_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds that Redis may take to count a request.")
    ] = 0.25
    when_storage_fails: Annotated[
        Literal["open", "closed"],
        Meta(description="While Redis does not answer: `open` lets requests through, `closed` answers 503."),
    ] = "open"
    trusted_proxies: Annotated[
        tuple[_Text, ...],
        Meta(
            description="Addresses and networks of proxies whose `X-Forwarded-For` and `X-Forwarded-Proto` are "
            "believed; from any other address they are not looked at."
        ),
    ] = ("127.0.0.1", "::1")

    def __post_init__(self) -> None:
        problems = [
            f"{ROOT}.rate.trusted_proxies: expected addresses and networks such as 10.1.0.0/16, got another text"
            for proxy in self.trusted_proxies
            if not _is_network(proxy)
        ][:1]
        if re.fullmatch(r"memory://|rediss?://\S+", self.storage) is None:
            problems.append(f"{ROOT}.rate.storage: expected memory://, redis://host:port/0 or rediss://…, got another")
        if self.requests is not None and not _is_rate(self.requests):
            problems.append(
                f"{ROOT}.rate.requests: expected one rate, such as 100/second, 5000/minute or 1/day, got another text"
            )
        if problems:
            raise SettingsError(problems)


class Tls(_Section, frozen=True):
    """HTTPS without a proxy."""

    certfile: Annotated[
        _Text | None, Meta(description="PEM file of the server's certificate and its chain; null serves plain HTTP.")
    ] = None
    keyfile: Annotated[
        _Text | None, Meta(description="PEM file of the certificate's private key, where `certfile` does not hold it.")
    ] = None


def _is_rate(text: str) -> bool:
    from limits import parse_many  # a tenth of a second, for those who set a rate

    try:
        rates = parse_many(text)
    except ValueError:
        return False
    return len(rates) == 1 and rates[0].amount >= 1


def _is_network(text: str) -> bool:
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


def _is_safe_address(text: str) -> bool:
    """A path, or an address that nobody on the way can answer in the issuer's place."""
    if "://" not in text or text.startswith("https://"):
        return True
    host = urlsplit(text).hostname if text.startswith("http://") else None
    return host == "localhost" or (host is not None and _is_network(host) and ipaddress.ip_address(host).is_loopback)


class Record(_Section, frozen=True):
    """What is written down of each prediction."""

    folder: Annotated[
        _Text | None,
        Meta(description="Folder of the record, made if it is not there; null records nothing. The workers share it."),
    ] = None
    sync: Annotated[
        Literal["always", "interval"],
        Meta(
            description="`always`: an answer leaves only after its record is safe on the disk, and is 503 where that "
            "fails; `interval`: records are made safe every `interval_seconds`, and answers do not wait."
        ),
    ] = "always"
    interval_seconds: Annotated[
        float, Meta(gt=0, le=3600, description="Seconds between two syncs of the disk under `sync: interval`.")
    ] = 1.0
    features: Annotated[
        Literal["values", "digest"],
        Meta(description="`values` keeps rows as they were sent, `digest` an HMAC-SHA256 of each row by `key_file`."),
    ] = "values"
    key_file: Annotated[
        _Text | None,
        Meta(description="File with the key of the digests, at least 32 bytes; `features: digest` needs it."),
    ] = None
    rotate_bytes: Annotated[
        int, Meta(ge=4096, description="Bytes from which on a segment is closed and another one begun.")
    ] = 67_108_864
    compress: Annotated[bool, Meta(description="Whether closed segments are packed, with zstd.")] = True
    keep_days: Annotated[
        _Positive | None, Meta(description="Days after which closed segments are removed; null keeps them.")
    ] = None
    keep_bytes: Annotated[
        _Count | None,
        Meta(description="Bytes of the folder from which on the oldest closed segments are removed; null is no limit."),
    ] = None
    max_waiting_bytes: Annotated[
        int,
        Meta(
            ge=4096,
            description="Bytes of records of one worker that may wait for the disk; beyond, `always` answers 503, and "
            "`interval` loses records, which the record then says.",
        ),
    ] = 67_108_864

    def __post_init__(self) -> None:
        if self.features == "digest" and self.key_file is None:
            raise SettingsError(
                [
                    f"{ROOT}.record.key_file: {ROOT}.record.features is digest, which needs a key file; "
                    "make one with 'openssl rand -hex 32' and name it here"
                ]
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
    part_of_time: Annotated[
        float,
        Meta(
            gt=0,
            le=1,
            description="Part of a worker's time that the shadow may take, which is about the part of all answers that "
            "it may make late; what it has no time for is dropped.",
        ),
    ] = 0.002
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


class Metrics(_Section, frozen=True):
    """What is counted."""

    enabled: Annotated[bool, Meta(description="Whether the server counts, for Prometheus to ask at `/metrics`.")] = True


class Tracing(_Section, frozen=True):
    """Spans of each request."""

    enabled: Annotated[
        bool,
        Meta(
            description="Whether requests are traced with OpenTelemetry, as its own `OTEL_…` variables say; needs the "
            "extra `tracing`."
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.enabled and not _is_installed("opentelemetry.exporter.otlp.proto.http"):
            raise SettingsError(
                [
                    f"{ROOT}.tracing.enabled: true needs OpenTelemetry, which is not installed; "
                    "run pip install 'fin_pyfunc[tracing]', or set it to false"
                ]
            )


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
    log_format: Annotated[
        Literal["text", "json"], Meta(description="`text` for people, or `json`: one object a line.")
    ] = "text"
    log_requests: Annotated[
        Literal["auto", "all", "failed"],
        Meta(description="Which requests are a line of the log; `auto` is `all` as JSON and `failed` as text."),
    ] = "auto"
    model_uri: Annotated[
        _Text | None,
        Meta(description="Model of a request that names none, loaded at start; null has each request name its own."),
    ] = None
    preload: Annotated[
        tuple[_Text, ...], Meta(description="Further models, loaded and warm before the server is ready.")
    ] = ()
    backend: Annotated[
        _Text | None,
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
