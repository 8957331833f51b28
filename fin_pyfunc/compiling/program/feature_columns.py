"""The features of a model as the columns that a program starts from."""

from __future__ import annotations

from typing import Any

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Column
from fin_pyfunc.model.feature import NUMERIC, Feature


def column_of(feature: Feature) -> Column:
    """What a feature's column of the matrix holds, and which values of it are let through.

    Raises
    ------
    NotCompilable
        It is text without a dictionary.
    """
    nullable = feature.nullable or feature.optional or feature.kind == "any"
    null: Any = None if feature.none_is_null else float("nan")
    if feature.kind in NUMERIC or feature.kind == "any":
        possible = frozenset({0.0, 1.0}) if feature.kind == "boolean" else None
        if feature.known is not None:
            possible = frozenset(float(value) for value in feature.known)
        dtype = feature.dtype if feature.kind in NUMERIC else "float64"
        return Column(name=feature.name, possible=possible, nullable=nullable, dtype=dtype)
    values = getattr(feature, "codes", None)
    values = feature.categories if values is None else values
    if values is None:
        raise NotCompilable(f"feature {feature.name!r} is text that no encoder of it knows")
    codes = None if feature.kind != "category" else frozenset(map(float, range(len(values))))
    if feature.known is not None:
        # Python takes True for 1; one dictionary does not hold both
        taken = set(feature.known)
        codes = frozenset(float(i) for i, value in enumerate(values) if value in taken)
    return Column(tuple(values), null, feature.name, codes, nullable)
