"""Types of `_boosted.c`."""

from typing import Any

import numpy as np

_Integers = np.ndarray[Any, np.dtype[np.int32]]
_Numbers = np.ndarray[Any, np.dtype[np.float64]]

class Boosted:
    def __new__(
        cls,
        n_features: int,
        rounds: bool,
        single: bool,
        roots: np.ndarray[Any, np.dtype[np.int64]],
        left: _Integers,
        right: _Integers,
        feature: _Integers,
        threshold: _Numbers,
        nan_left: np.ndarray[Any, np.dtype[np.bool_]],
        value: _Numbers,
        target: _Integers,
        base: _Numbers,
        /,
    ) -> Boosted: ...
    def score(self, X: _Numbers, out: _Numbers, /) -> None: ...

def link(scores: _Numbers, which: int, single: bool, /) -> None: ...
