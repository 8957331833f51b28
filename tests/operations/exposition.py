"""What `/metrics` shows, as numbers."""

from __future__ import annotations

import time
from collections.abc import Callable

import requests
from prometheus_client.parser import text_string_to_metric_families

Numbers = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(url: str) -> Numbers:
    """Every sample, by its name and labels."""
    answered = requests.get(url + "/metrics", timeout=30)
    assert answered.status_code == 200, answered.text
    families = text_string_to_metric_families(answered.text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def total(numbers: Numbers, name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels."""
    wanted = set(labels.items())
    return sum(value for (sample, having), value in numbers.items() if sample == name and wanted <= having)


def wait_for(url: str, holds: Callable[[Numbers], bool], seconds: float = 120) -> Numbers:
    """Scrape until something holds: other workers write what they count several times a second."""
    deadline = time.monotonic() + seconds
    while not holds(numbers := scrape(url)):
        assert time.monotonic() < deadline, numbers
        time.sleep(0.1)
    return numbers
