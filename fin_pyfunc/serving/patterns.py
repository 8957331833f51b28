"""Patterns of model URIs, of an operator or of a credential: `*` is any text, and may be empty."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

from fin_pyfunc.serving.uris import MAX_LENGTH


def allows(patterns: Sequence[str], uri: str) -> bool:
    """Whether one of the patterns matches a whole model URI as it was sent; `*` is any text, and may be empty."""
    return len(uri) <= MAX_LENGTH and _allows(tuple(patterns), uri)


@lru_cache(maxsize=1024)
def _allows(patterns: tuple[str, ...], uri: str) -> bool:
    return any(_compiled(pattern).fullmatch(uri) for pattern in patterns)


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    first, *others = [re.escape(part) for part in re.sub(r"\*+", "*", pattern).split("*")]
    if not others:
        return re.compile(first)
    # each part between two `*` is taken at its first place and for good, so that no text makes the search long
    middle = "".join(f"(?>(?s:.*?){part})" for part in others[:-1])
    return re.compile(f"{first}{middle}(?s:.*){others[-1]}")
