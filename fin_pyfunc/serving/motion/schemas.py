"""The bodies of the routes for operators."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from fin_pyfunc.serving.motion.state import Name, Reason


class StopRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A model to be stopped."""

    name: Name
    reason: Reason


class StartRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A model to be let answer again."""

    name: Name


class ShadowRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, frozen=True):
    """A model to be put in the shadow."""

    model_uri: Annotated[
        Annotated[str, Meta(min_length=1)] | None,
        Meta(description="As clients may send it; null for no shadow.", examples=["models:/eurusd_rf@challenger"]),
    ]
    share: Annotated[float, Meta(ge=0, le=1, description="Share of the requests that it sees.")] = 1.0
    of: Annotated[
        str | None,
        Meta(description="URI of the model whose requests it sees, as clients send it; null is the default model."),
    ] = None


class StoppedModel(msgspec.Struct, kw_only=True, frozen=True):
    """One stop."""

    name: str
    reason: str
    since: Annotated[str, Meta(description="ISO 8601, UTC.")]
    by: Annotated[str | None, Meta(description="The id of the key it was made with.")]
    model_ids: Annotated[list[str], Meta(description="What the name is known to lead to.")]


class StopList(msgspec.Struct, kw_only=True, frozen=True):
    """Everything that is stopped, in all workers."""

    stopped: list[StoppedModel]
    kept: Annotated[bool, Meta(description="Whether it would still be stopped after a restart.")]


class PlanStep(msgspec.Struct, kw_only=True, frozen=True):
    """From this many rows on, this backend."""

    from_rows: int
    backend: str


class LoadedEntry(msgspec.Struct, kw_only=True, frozen=True):
    """A model in memory."""

    model_id: str
    run_id: str | None
    model_uris: Annotated[list[str], Meta(description="URIs that stand for it now.")]
    is_default: bool
    estimator: str | None
    backends: Annotated[list[str], Meta(description="What can compute it here, the one to prefer first.")]
    plan: Annotated[list[PlanStep] | None, Meta(description="What computes how many rows; null before it is measured.")]
    bytes: Annotated[int, Meta(description="Of its files; in memory it takes more.")]
    hits: Annotated[int, Meta(description="Requests that asked for it.")]
    loaded_at: Annotated[str, Meta(description="ISO 8601, UTC.")]
    stopped: Annotated[str | None, Meta(description="The operator's reason, where it is stopped.")]
    pid: Annotated[int | None, Meta(description="Of the process that it runs in, if that is one of its own.")]
    outage: Annotated[str | None, Meta(description="Why the process that it runs in does not answer now.")]


class RejectedVersion(msgspec.Struct, kw_only=True, frozen=True):
    """A version that stays out, while the one before it answers."""

    model_uri: str
    model_id: str | None
    reason: str
    times: int
    retry_in_seconds: float


class ShadowState(msgspec.Struct, kw_only=True, frozen=True):
    """The shadow of this worker, and its rows since it was chosen; another version, or model shadowed, begins anew."""

    model_uri: str | None
    model_id: str | None
    share: float
    of: str | None
    problem: Annotated[str | None, Meta(description="Why it sees nothing although it was chosen.")]
    agreed: int
    differed: Annotated[dict[str, int], Meta(description="By the class answered and the shadow's, as `1 -> -1`.")]
    dropped: int
    failed: int
    waiting: int
    max_difference: Annotated[float | None, Meta(description="Greatest difference of a probability.")]
    mean_difference: Annotated[
        float | None, Meta(description="Mean over the rows of a row's greatest difference of a probability.")
    ]


class LoadedModels(msgspec.Struct, kw_only=True, frozen=True):
    """What one worker, the one that answered, has in memory."""

    worker: Annotated[int, Meta(description="Its process id.")]
    models: list[LoadedEntry]
    stopped: list[StoppedModel]
    kept: bool
    rejected: list[RejectedVersion]
    shadow: ShadowState
