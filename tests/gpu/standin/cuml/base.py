from __future__ import annotations

import copy
from typing import Any

import cupy
import numpy as np


class UnsupportedOnCPU(ValueError):  # noqa: N818 - its name there
    pass


class Base:
    cpu_class: Any = None
    #: added to each probability of the first class: what computing in float32 may do
    drift = 0.0

    def __init__(self, **params: Any) -> None:
        self.inner = self.cpu_class(**params)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        params: dict[str, Any] = self.inner.get_params(deep)
        return params

    def set_params(self, **params: Any) -> Any:
        self.inner.set_params(**params)
        return self

    def fit(self, X: Any, y: Any) -> Any:
        self.inner.fit(np.asarray(X), y)
        self.n_features_in_, self.classes_ = self.inner.n_features_in_, cupy.asarray(self.inner.classes_)
        return self

    def predict(self, X: Any) -> Any:
        return cupy.asarray(self.inner.predict(np.asarray(X)))

    def __sklearn_tags__(self) -> Any:
        return self.inner.__sklearn_tags__()


class Probabilities:
    inner: Any
    drift: float

    def predict_proba(self, X: Any) -> Any:
        p = self.inner.predict_proba(np.asarray(X))
        p[:, 0] = np.clip(p[:, 0] + self.drift, 0, 1)
        return cupy.asarray(p)


class Interop:
    inner: Any

    def as_sklearn(self) -> Any:
        return copy.deepcopy(self.inner)

    @classmethod
    def from_sklearn(cls, model: Any) -> Any:
        made: Any = cls()
        made.inner = copy.deepcopy(model)
        made.n_features_in_, made.classes_ = model.n_features_in_, cupy.asarray(model.classes_)
        return made
