"""What may be asked for: the operator's patterns, before anybody is asked."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fin_pyfunc.model.errors import ModelForbiddenError, StoreUnavailableError
from fin_pyfunc.serving.resolver import Resolver
from fin_pyfunc.serving.trust.allow import Allowed
from fin_pyfunc.serving.uris import parse
from tests.test_uris import ID, model_uris

#: Nobody listens there: whoever is asked all the same does not answer.
NOBODY = "http://127.0.0.1:9"
PATTERNS = ("models:/eurusd_*@champion", "runs:/*", "models:/gbpusd_rf/1", "models:/[a]?/1")


@pytest.mark.parametrize(
    ("text", "is_allowed"),
    [
        ("models:/eurusd_rf@champion", True),
        ("models:/eurusd_@champion", True),
        ("models:/eurusd_rf@challenger", False),
        ("models:/eurusd_rf/1", False),
        ("models:/eurusd_rf/latest", False),
        ("models:/usdjpy_rf@champion", False),
        ("models:/x-models:eurusd_rf@champion", False),
        ("models:/gbpusd_rf/1", True),
        ("models:/gbpusd_rf/11", False),
        ("models:/GBPUSD_rf/1", False),
        ("models:/a/1", False),  # only * is more than itself
        (f"models:/m-{ID}", False),
        ("runs:/abc/model", True),
        ("runs:/abc/deep/er/model", True),
    ],
)
def test_what_is_not_allowed_is_refused_before_anybody_is_asked(text: str, is_allowed: bool) -> None:
    if ":" in text.removeprefix("models:/").removeprefix("runs:/"):
        return  # no such URI gets through the grammar
    resolver = Resolver(NOBODY, allow=PATTERNS)
    with pytest.raises(StoreUnavailableError if is_allowed else ModelForbiddenError) as refused:
        resolver.resolve(parse(text))
    assert is_allowed or "deployment.api.models.allow" in str(refused.value)


@given(model_uris)
def test_every_model_of_the_store_is_allowed_by_default_and_none_by_no_pattern(uri: object) -> None:
    Allowed().check(uri)  # type: ignore[arg-type]
    if not str(uri).startswith("file:"):
        with pytest.raises(ModelForbiddenError):
            Allowed(()).check(uri)  # type: ignore[arg-type]


@given(model_uris, st.text("rm:/*.@[]?+ab", max_size=12))
def test_a_pattern_takes_what_its_star_could_stand_for(uri: object, pattern: str) -> None:
    if str(uri).startswith("file:"):
        return
    expected = re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), str(uri), re.S) is not None
    try:
        Allowed([pattern]).check(uri)  # type: ignore[arg-type]
    except ModelForbiddenError:
        assert not expected
    else:
        assert expected


def test_the_operators_own_argument_is_not_held_to_it() -> None:
    with pytest.raises(StoreUnavailableError):
        Resolver(NOBODY, allow=()).resolve_argument("models:/anything/1")
