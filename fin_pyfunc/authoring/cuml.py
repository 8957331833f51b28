"""Estimators of cuML, and those fitted under `cuml.accel`: their scikit-learn twins, which need no GPU."""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fin_pyfunc.authoring.verify import Reference
from fin_pyfunc.model.backends.native import NativeBackend
from fin_pyfunc.model.decision import Scores
from fin_pyfunc.model.errors import FinPyfuncError, NotLoggableError
from fin_pyfunc.model.parts import exchanged, qualified_name

logger = logging.getLogger("fin_pyfunc")

#: How far, in probability, a twin may be from what the GPU itself answers, most of which is computed in float32.
TOLERANCE = 1e-4
#: A class may differ only where the GPU's two highest scores are no further apart than this many times the greatest
#: difference.
TIE = 2.0


@dataclass
class Twin:
    """What stands for an estimator that holds parts of cuML's.

    Parameters
    ----------
    estimator : object
        The same with scikit-learn's parts; the given one, where it has no form for the CPU.
    parts : dict of str to str
        scikit-learn class to the cuML class that can be made of it again.
    refusal : str or None
        Why there is no form for the CPU, as half a sentence; None where there is one.
    """

    estimator: Any
    parts: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None

    @property
    def is_gpu_only(self) -> bool:
        """Whether it computes on a GPU and nowhere else."""
        return self.refusal is not None


class _NoTwinError(Exception):
    """A part has no form for the CPU; the argument says why, as half a sentence."""


def twin_of(estimator: Any) -> Twin | None:
    """The twin of an estimator; None where nothing in it is cuML's.

    It is looked for in whatever holds it: a Pipeline, a search, a vote.
    """
    if "cuml" not in sys.modules:  # then there can be none, and the estimator need not be walked through
        return None
    found: list[Any] = []
    parts: dict[str, str] = {}

    def instead(part: Any) -> Any:
        if (twin := _part(part, parts)) is not None:
            found.append(part)
        return twin

    try:
        made = exchanged(estimator, instead)
    except _NoTwinError as e:
        return Twin(estimator, refusal=str(e))
    except Exception:  # it cannot be written down at all, which its own file will say better
        return None
    return Twin(made, parts) if found else None


def checked_twin(estimator: Any, answers: Reference) -> None:
    """Hold a twin to what the GPU itself answers on the sample.

    Parameters
    ----------
    estimator : object
        With its parts of cuML's.
    answers : Reference
        The twin's.

    Raises
    ------
    NotLoggableError
        They differ by more than float32 explains, or the GPU fails.
    """
    spec, own = answers.spec, answers.scores
    try:
        table = spec.check(answers.rows)
        on_gpu = NativeBackend(estimator, spec, own.classes, "gpu").score(table)
    except FinPyfuncError as e:
        raise NotLoggableError(f"{type(estimator).__name__} fails on the GPU on the sample itself: {e}.") from e
    error = _apart(on_gpu, own)
    differ = on_gpu.index != own.index
    if on_gpu.probabilities is not None and differ.any():
        ranked = np.sort(on_gpu.probabilities[differ], axis=1)
        differ[differ] = ranked[:, -1] - ranked[:, -2] > TIE * error
    if not error <= TOLERANCE or differ.any():
        raise NotLoggableError(
            f"the scikit-learn form of {type(estimator).__name__} answers otherwise than the GPU (off by {error:.1g}, "
            f"another class on {int(differ.sum()):,} of {len(differ):,} rows): log it as GPU-only, with "
            "backend='gpu' and serialization='cloudpickle'."
        )
    logger.info("the scikit-learn form of %s is within %.1g of the GPU", type(estimator).__name__, error)


def _apart(one: Scores, other: Scores) -> float:
    if one.probabilities is None or other.probabilities is None:
        return 0.0
    return float(np.abs(one.probabilities - other.probabilities).max(initial=0.0))


def _part(part: Any, parts: dict[str, str]) -> Any:
    """The twin of one part of cuML's, and a note of what it can be made into again; None for any other part."""
    if _is_proxy(part):
        part._sync_attrs_to_cpu()  # there is no public way from a proxy to its estimator but through a file
        cpu, on_gpu = _completed(part._cpu), part._gpu
        if hasattr(on_gpu, "from_sklearn"):  # None for one that was fitted on the CPU after all
            parts[qualified_name(type(cpu))] = qualified_name(type(on_gpu))
        return cpu
    kind = type(part)
    if not kind.__module__.startswith("cuml."):
        return None
    try:
        cpu = _completed(part.as_sklearn() if hasattr(part, "as_sklearn") else _from_trees(part))
    except Exception as e:  # cuML's UnsupportedOnCPU, or whatever else stands in the way
        said = str(e).strip().rstrip(".") or type(e).__name__
        raise _NoTwinError(f"{kind.__name__} has no scikit-learn form ({said})") from e
    if hasattr(kind, "from_sklearn"):
        parts[qualified_name(type(cpu))] = qualified_name(kind)
    return cpu


def _from_trees(part: Any) -> Any:
    """A forest of which cuML hands out the trees alone."""
    if not hasattr(part, "as_treelite"):
        raise _NoTwinError("cuML does not convert it")
    import treelite

    return treelite.sklearn.export_model(part.as_treelite())


def _completed(forest: Any) -> Any:
    """A forest with what scikit-learn's own has, and treelite, which cuML uses too, leaves out."""
    members = getattr(forest, "estimators_", None)
    if isinstance(members, list) and members and hasattr(members[0], "tree_"):
        forest.n_estimators = len(members)
        for member in members:
            if not hasattr(member, "n_features_in_"):
                member.n_features_in_ = forest.n_features_in_
            if not hasattr(member, "classes_"):  # a member knows the classes by their place
                member.classes_ = np.arange(len(forest.classes_), dtype=np.float64)
    return forest


def _is_proxy(part: Any) -> bool:
    accel = sys.modules.get("cuml.accel")
    return accel is not None and bool(accel.is_proxy(part))
