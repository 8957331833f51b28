from __future__ import annotations

from typing import Any

from sklearn.linear_model import LogisticRegression as _Cpu
from sklearn.linear_model import SGDClassifier as _Sgd

from cuml.base import Base, Interop, Probabilities, UnsupportedOnCPU


class LogisticRegression(Interop, Probabilities, Base):
    cpu_class = _Cpu


class MBSGDClassifier(Probabilities, Base):
    """Has no form for the CPU."""

    cpu_class = _Sgd

    def as_sklearn(self) -> Any:
        raise UnsupportedOnCPU("mini-batches are not supported")
