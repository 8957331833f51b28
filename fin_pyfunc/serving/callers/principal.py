"""What a credential allows, whichever kind it is."""

from __future__ import annotations

from collections.abc import Collection
from enum import StrEnum
from typing import Annotated, Protocol

import msgspec
from msgspec import Meta
from starlette.types import Scope as AsgiScope

from fin_pyfunc.model.errors import ModelForbiddenError
from fin_pyfunc.serving.patterns import allows

#: A pattern of model URIs: what a URI may hold, and `*` for any text.
Pattern = Annotated[str, Meta(pattern=r"\A(models|runs|file):/[^\x00-\x20\\%#?;\x7f]{1,500}\Z")]


class Scope(StrEnum):
    """What a credential may be used for."""

    PREDICT = "predict"
    MODELS = "models"
    METRICS = "metrics"
    ADMIN = "admin"


class Principal(Protocol):
    """Who calls."""

    @property
    def id(self) -> str:
        """What rates are counted by, and what goes into records: no secret."""

    @property
    def scopes(self) -> Collection[Scope]:
        """The routes that are allowed."""

    @property
    def models(self) -> tuple[str, ...]:
        """Patterns of the model URIs that are allowed; empty is all of them."""


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A principal that a JWT speaks for; the attributes are those of `Principal`."""

    id: str
    scopes: frozenset[Scope]
    models: tuple[str, ...] = ()


def require_model(scope: AsgiScope, asked: str | None, default: str | None) -> None:
    """Refuse a model that the caller's credential is not for, before anything is looked up.

    Parameters
    ----------
    scope : ASGI scope
        Whose ``state`` has the patterns of the caller, if it has any.
    asked : str or None
        The model URI as it was sent.
    default : str or None
        What is asked where none was sent.

    Raises
    ------
    ModelForbiddenError
    """
    patterns = scope["state"].get("models")
    if patterns is not None and (uri := default if asked is None else asked) is not None and not allows(patterns, uri):
        raise ModelForbiddenError(
            "The credential is not for this model: ask the server's operator for one whose patterns take its URI."
        )


def may_list(scope: AsgiScope, uri: str) -> bool:
    """Whether the caller may be told of a model: one that ``GET /models`` would show."""
    state = scope["state"]
    patterns = state.get("models")
    return Scope.MODELS in state.get("scopes", (Scope.MODELS,)) and (patterns is None or allows(patterns, uri))
