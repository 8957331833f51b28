"""What fitting under `cuml.accel` leaves: an object that looks like scikit-learn's and computes on the GPU."""

from __future__ import annotations

from typing import Any

from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.linear_model import LogisticRegression as _Cpu

from cuml.linear_model import LogisticRegression as _Gpu


class Proxy(ClassifierMixin, BaseEstimator):
    def __init__(self, C: float = 1.0) -> None:
        self._cpu, self._gpu = _Cpu(C=C), None

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        return {"C": self._cpu.get_params(deep)["C"]}

    def fit(self, X: Any, y: Any) -> Any:
        self._gpu: Any = _Gpu(C=self._cpu.C).fit(X, y)
        self.n_features_in_, self.classes_ = self._gpu.n_features_in_, self._gpu.inner.classes_
        return self

    def predict(self, X: Any) -> Any:
        return self._gpu.predict(X).get()

    def predict_proba(self, X: Any) -> Any:
        return self._gpu.predict_proba(X).get()

    def _sync_attrs_to_cpu(self) -> None:
        fitted = self._gpu.as_sklearn()
        self._cpu = clone(fitted)
        self._cpu.__dict__.update(vars(fitted))


Proxy.__module__, Proxy.__qualname__ = "sklearn.linear_model", "LogisticRegression"


def is_proxy(candidate: Any) -> bool:
    return isinstance(candidate, Proxy) or (isinstance(candidate, type) and issubclass(candidate, Proxy))
