"""The settings of what is seen, kept and decided of a running server."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from fin_pyfunc.serving.settings.section import Count, Positive, Section, Text, is_installed
from fin_pyfunc.serving.settings.wording import ROOT, SettingsError


class Record(Section, frozen=True):
    """What is written down of each prediction."""

    folder: Annotated[
        Text | None,
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
        Text | None,
        Meta(description="File with the key of the digests, at least 32 bytes; `features: digest` needs it."),
    ] = None
    rotate_bytes: Annotated[
        int, Meta(ge=4096, description="Bytes from which on a segment is closed and another one begun.")
    ] = 67_108_864
    compress: Annotated[bool, Meta(description="Whether closed segments are packed, with zstd.")] = True
    keep_days: Annotated[
        Positive | None, Meta(description="Days after which closed segments are removed; null keeps them.")
    ] = None
    keep_bytes: Annotated[
        Count | None,
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


class Admin(Section, frozen=True):
    """What operators decide while the server runs."""

    socket: Annotated[
        Text | None,
        Meta(
            description="Unix socket that answers `/admin/…` without a credential, to the server's own user alone: an "
            "absolute path in a folder that only this user can enter, `auto` for one that `fin-pyfunc models` finds by "
            "itself, null for none."
        ),
    ] = "auto"
    state_file: Annotated[
        Text | None,
        Meta(description="File that keeps what was stopped over a restart; null keeps it until the server ends."),
    ] = None

    def __post_init__(self) -> None:
        if self.socket not in (None, "auto") and not self.socket.startswith("/"):
            raise SettingsError(
                [
                    f"{ROOT}.admin.socket: expected auto or an absolute path such as /run/fin-pyfunc/admin.sock, got "
                    "another text; null in the file, or an empty variable, is no socket"
                ]
            )


class Shadow(Section, frozen=True):
    """A second model that sees a share of the traffic, and whose answers nobody gets."""

    model_uri: Annotated[Text | None, Meta(description="The model in the shadow; null is none.")] = None
    share: Annotated[float, Meta(ge=0, le=1, description="Share of the requests that it sees.")] = 0.1
    of: Annotated[
        Text | None,
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
            description="Part of one processor's time that the shadow of a worker may take, of what nobody else wants; "
            "what it has no time for is dropped.",
        ),
    ] = 0.003
    max_rows: Annotated[
        int,
        Meta(ge=1, description="Rows of a worker that its shadow has not answered yet; what is beyond is dropped."),
    ] = 10_000
    differences_file: Annotated[
        Text | None,
        Meta(
            description="File of JSON lines, one a row that the models differ on; null writes some of them to the log."
        ),
    ] = None
    differences_bytes: Annotated[
        int, Meta(ge=1, description="Bytes of that file; a full one is kept once, with `.1` at the end of its name.")
    ] = 67_108_864


class Metrics(Section, frozen=True):
    """What is counted."""

    enabled: Annotated[bool, Meta(description="Whether the server counts, for Prometheus to ask at `/metrics`.")] = True


class Tracing(Section, frozen=True):
    """Spans of each request."""

    enabled: Annotated[
        bool,
        Meta(
            description="Whether requests are traced with OpenTelemetry, as its own `OTEL_…` variables say; needs the "
            "extra `tracing`."
        ),
    ] = False

    def __post_init__(self) -> None:
        if self.enabled and not is_installed("opentelemetry.exporter.otlp.proto.http"):
            raise SettingsError(
                [
                    f"{ROOT}.tracing.enabled: true needs OpenTelemetry, which is not installed; "
                    "run pip install 'fin_pyfunc[tracing]', or set it to false"
                ]
            )
