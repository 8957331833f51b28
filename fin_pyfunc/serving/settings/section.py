"""What every section of the settings is made of."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

import msgspec
from msgspec import Meta

Text = Annotated[str, Meta(min_length=1)]
Count = Annotated[int, Meta(ge=1)]
Positive = Annotated[float, Meta(gt=0)]


class Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings that belong together; an unknown one is refused."""


def is_installed(module: str) -> bool:
    """Whether a library that a setting needs is there."""
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even the package that it is part of
        return False
