"""All hostile models: every form, led elsewhere in every way, with every kind of payload. The same in every run."""

from __future__ import annotations

import random

from tests.security.hostile import Case
from tests.security.hostile_files import beside, data_files, linked
from tests.security.hostile_mlmodel import led_elsewhere, led_out, rewritten, signed


def cases() -> list[Case]:
    """Every case, in one order for good."""
    made = [*led_elsewhere(), *led_out(), *rewritten(), *beside(), *linked(), *data_files(), *signed()]
    if len({case.name for case in made}) != len(made):
        raise ValueError("two cases have one name")
    return made


def sample(made: list[Case], n: int) -> list[Case]:
    """A part of the cases, the same in every run: of each way and form some."""
    return sorted(random.Random(20).sample(made, min(n, len(made))), key=lambda case: case.name)
