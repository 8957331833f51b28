"""The words that an operator has for a model: a registered name, a URI, or an id."""

from __future__ import annotations

import re

LOGGED = re.compile(r"(?:models:/)?(m-[0-9a-f]{32})")
_REGISTERED = re.compile(r"models:/(?!m-[0-9a-f]{32}$)([^/@]+)(?:[/@].+)?")


def normal(text: str) -> str:
    """An operator's word in one form: a logged model's id as a URI, a registered model by its bare name."""
    if found := LOGGED.fullmatch(text):
        return f"models:/{found[1]}"
    found = _REGISTERED.fullmatch(text)
    return found[1] if found and text == f"models:/{found[1]}" else text


def registered_name(uri: str) -> str | None:
    """The registered model that a URI names, or None."""
    found = _REGISTERED.fullmatch(uri)
    return found[1] if found else None


def is_name(text: str) -> bool:
    """Whether this is a registered model's bare name: MLflow allows neither ``/`` nor ``:`` in one."""
    return "/" not in text and ":" not in text
