"""YAML that somebody else wrote, read as plain data in bounded time, memory and stack."""

from __future__ import annotations

from typing import Any

import yaml

#: Far more than MLflow writes: a model's MLmodel has about a hundred values, five deep.
MAX_DEPTH, MAX_VALUES = 50, 100_000
#: Most characters of a number; PyYAML takes quadratic time for one to the base of 60 (``1:1:1:...``).
_MAX_DIGITS = 100

# libyaml's parser is ten times as fast, and is there wherever PyYAML is installed from a wheel
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc] # chosen when imported
    """PyYAML's safe loader without long numbers."""


def _number(tag: str) -> Any:
    construct = _Base.yaml_constructors[tag]

    def bounded(loader: Any, node: yaml.Node) -> Any:
        if isinstance(node.value, str) and len(node.value) > _MAX_DIGITS:
            raise yaml.constructor.ConstructorError(problem="a number of too many digits")
        return construct(loader, node)

    return bounded


for _tag in ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float"):
    _Loader.add_constructor(_tag, _number(_tag))


def parse(content: bytes) -> Any:
    """Read one YAML document.

    Raises
    ------
    ValueError
        It is none, is nested too deep, holds too many values, or merges mappings (``<<``): merges of merges make a
        small text into values without end. MLflow writes no merges.
    """
    try:
        _check(content)
        return yaml.load(content, _Loader)
    except (yaml.YAMLError, OverflowError, RecursionError) as e:
        raise ValueError(f"it is no YAML that is read here: {e}") from e


def _check(content: bytes) -> None:
    """Look at the parser's events first: libyaml composes them by recursion, and its stack overflows."""
    depth = 0
    for i, event in enumerate(yaml.parse(content, _Loader)):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH or i > MAX_VALUES or (isinstance(event, yaml.ScalarEvent) and event.value == "<<"):
            raise ValueError("it is nested too deep, holds too many values, or merges mappings")
