from __future__ import annotations

from typing import Any

import treelite
from sklearn.ensemble import RandomForestClassifier as _Cpu

from cuml.base import Base, Interop, Probabilities


class RandomForestClassifier(Interop, Probabilities, Base):
    cpu_class = _Cpu


class TreesOnly(Probabilities, Base):
    """A forest that hands out its trees, and no scikit-learn form."""

    cpu_class = _Cpu

    def as_treelite(self) -> Any:
        return treelite.sklearn.import_model(self.inner)
