"""Encoders of categories."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.program.values import Builder, Column, Value
from fin_pyfunc.model.program.categories import OneHot


def one_hot_encoder(builder: Builder, step: Any, value: Value) -> Value:
    """Add a OneHotEncoder (sklearn/preprocessing/_encoders.py)."""
    raise NotCompilable(f"not yet: {step}, {value}, {builder}, {OneHot}, {Column}, {np}")
