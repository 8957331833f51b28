"""What a step of scikit-learn's takes, and which rows a program leaves to the estimator for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fin_pyfunc.compiling.program.ranges import ranges
from fin_pyfunc.compiling.program.values import NUMBER, Builder, Value
from fin_pyfunc.model.backends.nameless import type_name
from fin_pyfunc.model.program.vouch import Vouch

#: Modules whose estimators compute in float32, and refuse what that does not hold.
_SINGLE = ("sklearn.ensemble._forest", "sklearn.ensemble._gb", "sklearn.tree._classes")
#: Modules whose estimators look at no number, or leave it to others that they hold.
_UNCHECKED = (
    "sklearn.compose._column_transformer", "sklearn.ensemble._hist_gradient_boosting", "sklearn.pipeline",
    "sklearn.preprocessing._function_transformer",
)  # fmt: skip
_HOLDING = ("estimator", "estimators", "estimator_", "estimators_", "best_estimator_", "calibrated_classifiers_")


def require_input(builder: Builder, step: Any, value: Value) -> None:
    """Say of a transformer's or classifier's input what its own check of it says."""
    module, _, _ = type_name(step).rpartition(".")
    if module.startswith("xgboost"):
        builder.require(value, takes_missing=True)  # it refuses infinity
    if not module.startswith("sklearn.") or module in _UNCHECKED:
        return
    is_single, is_selector = module in _SINGLE, hasattr(step, "get_support")
    if not is_single and not is_selector and any(hasattr(step, name) for name in _HOLDING):
        return
    greatest = float(np.finfo(np.float32).max) if is_single else np.inf
    builder.require(value, takes_missing=_takes_missing(step), greatest=greatest)


def vouched(builder: Builder, scores: Value, is_missing: Any) -> Value:
    """Add what holds back the scores of rows that the estimator would refuse.

    Parameters
    ----------
    builder : Builder
    scores : Value
    is_missing : ndarray of shape (n_features,), bool
        Which features may be missing.
    """
    found = ranges(builder.steps, is_missing)
    held: dict[int, tuple[float, bool]] = {}
    for at, takes_missing, greatest in builder.required:
        size, may_miss = found[at]
        if at and ((size > greatest).any() or np.isinf(size).any() or (may_miss.any() and not takes_missing)):
            before = held.get(at, (np.inf, True))
            held[at] = (min(before[0], greatest), before[1] and takes_missing)
    if not held:
        return scores
    node = Vouch(
        greatest=np.array([greatest for greatest, _ in held.values()]),
        takes_missing=np.array([takes for _, takes in held.values()], dtype=np.int64),
    )
    return builder.add(node, scores, *(Value(at, (NUMBER,) * len(found[at][0])) for at in held))


def _takes_missing(step: Any) -> bool:
    try:
        from sklearn.utils import get_tags

        return bool(get_tags(step).input_tags.allow_nan)
    except ImportError:  # scikit-learn 1.5
        return bool(step._get_tags()["allow_nan"])
