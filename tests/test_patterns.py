"""Patterns of model URIs, as keys and tokens have them."""

from __future__ import annotations

import fnmatch

from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.serving.patterns import allows

PIECES = st.lists(st.sampled_from(["models:/", "runs:/", "a", "b", "@", "/", ".", "(", "+", "*", "**"]), max_size=8)


@given(pattern=PIECES.map("".join), uri=PIECES.map("".join))
def test_a_pattern_takes_what_a_shells_star_would_take(pattern: str, uri: str) -> None:
    assert allows([pattern], uri) == bool(fnmatch.fnmatchcase(uri, pattern))
    assert allows([pattern], pattern.replace("*", "x/y"))
    assert not allows([], uri)


def test_no_pattern_makes_a_search_long() -> None:
    pattern = "models:/" + "*a" * 200 + "b"
    assert not allows([pattern], "models:/" + "a" * 1000)
