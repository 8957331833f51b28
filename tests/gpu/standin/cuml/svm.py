from __future__ import annotations

from typing import Any

import cupy
import numpy as np
from sklearn.svm import SVC as _Svc  # noqa: N811 - both are its name
from sklearn.svm import LinearSVC as _LinearSvc

from cuml.base import Base, Interop


class _Decides(Interop, Base):
    def decision_function(self, X: Any) -> Any:
        return cupy.asarray(self.inner.decision_function(np.asarray(X)))


class LinearSVC(_Decides):
    cpu_class = _LinearSvc


class SVC(_Decides):
    cpu_class = _Svc
