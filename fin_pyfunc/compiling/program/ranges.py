"""How great the numbers of a program may become on the way, and which may be missing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.program.arithmetic import Fill, IsMissing, Scale
from fin_pyfunc.model.program.calibration import Isotonic, Platt, Temperature
from fin_pyfunc.model.program.categories import Categorise, Lookup, OneHot
from fin_pyfunc.model.program.classifiers import Linear, TreeEnsemble
from fin_pyfunc.model.program.columns import Concat, Select
from fin_pyfunc.model.program.links import Link
from fin_pyfunc.model.program.numbers import Clip, Function, Normalize, Threshold
from fin_pyfunc.model.program.polynomials import Polynomials
from fin_pyfunc.model.program.power import Power
from fin_pyfunc.model.program.program import Step
from fin_pyfunc.model.program.quantiles import Bins, Quantiles
from fin_pyfunc.model.program.spline_bases import SplineBases
from fin_pyfunc.model.program.votes import Average, Choose, Pairs, Spread

#: A row with a number beyond this is asked of the estimator in any case (`CompiledBackend`).
_FAR = float(np.sqrt(np.finfo(np.float32).max))
#: For each column the greatest number, by size, and whether it may be missing.
Range = tuple[Array, Array]
_BOUNDED = frozenset({
    "arctan", "cos", "erf", "erfc", "expit", "ndtr", "sign", "sin", "tanh",
})  # fmt: skip
_NO_GREATER = frozenset({"absolute", "ceil", "fabs", "floor", "negative", "positive", "rint", "trunc"})


def ranges(steps: Sequence[Step], is_missing: Array) -> list[Range]:
    """The range of each value of a program, the rows' first.

    Parameters
    ----------
    steps : sequence of Step
    is_missing : ndarray of shape (n_features,), bool
        Which features may be missing.
    """
    found: list[Range] = [(np.full(len(is_missing), _FAR), is_missing)]
    with np.errstate(all="ignore"):
        for step in steps:
            inputs = [found[i] for i in step.of]
            of = _RANGES.get(type(step.node))
            n = step.node.width(*(len(size) for size, _ in inputs))
            size, missing = (np.full(n, np.inf), np.ones(n, dtype=bool)) if of is None else of(step.node, *inputs)
            found.append((np.where(np.isnan(size), np.inf, np.broadcast_to(size, n)), np.broadcast_to(missing, n)))
    return found


def _scale(node: Scale, given: Range) -> Range:
    size, missing = given
    by = abs(node.by)
    made = {"add": size + by, "subtract": size + by, "multiply": size * by, "divide": size / by}[node.how]
    return made, missing | np.isnan(by)


def _lookup(node: Lookup, _: Range) -> Range:
    each = np.split(node.table, np.cumsum(node.sizes + 2)[:-1])
    return np.array([abs(np.nan_to_num(of)).max() for of in each]), np.array([np.isnan(of).any() for of in each])


def _function(node: Function, given: Range) -> Range:
    size, missing = given
    if node.name in _BOUNDED:
        return np.full(1, 2.0), missing
    if node.name in _NO_GREATER:
        return size + 1, missing
    return np.full(1, np.inf), np.ones(1, dtype=bool)


def _polynomials(node: Polynomials, given: Range) -> Range:
    size, missing = given
    made = size.tolist()
    for start, end, by in node.blocks.tolist():
        made += [of * size[by] for of in made[start:end]]
    return np.array([1.0] * node.has_bias + made[node.first :]), np.atleast_1d(missing.any())


def _linear(node: Linear, given: Range) -> Range:
    size, missing = given
    made = abs(node.coef) @ size + abs(node.intercept) if node.link in ("none", "relu") else np.ones(1)
    return made, np.atleast_1d(missing.any())


def _splines(node: SplineBases, given: Range) -> Range:
    size, _ = given
    if node.mode not in ("beyond", "periodic"):
        return np.full(1, np.inf), np.zeros(1, dtype=bool)
    lines = abs(node.lines)
    return np.full(1, 1 + 2 * lines.max() + 2 * lines.max() * (size.max() + abs(node.ends).max())), np.zeros(
        1, dtype=bool
    )


def _link(node: Link, given: Range) -> Range:
    size, missing = given
    is_bounded = node.how not in ("none", "pair", "difference", "relu")
    return np.full(1, 1.0 if is_bounded else 2 * size.max()), np.atleast_1d(missing.any())


def _average(node: Average, *given: Range) -> Range:
    weights = abs(node.weights) if len(node.weights) else np.ones(len(given))
    size = sum(weight * of for weight, (of, _) in zip(weights, given, strict=True))
    return np.asarray(size / abs(node.divisor)), np.any([missing for _, missing in given], axis=0)


_NEVER = np.zeros(1, dtype=bool)
# what a classifier withholds is no missing value: it is handed on
_RANGES: dict[type, Callable[..., Range]] = {
    Average: _average,
    Choose: lambda node, given: (abs(node.table).max(axis=0), np.atleast_1d(given[1].any())),
    Isotonic: lambda node, given: (np.full(1, abs(node.y).max()), given[1]),
    Link: _link,
    Pairs: lambda node, *_: (np.full(1, 2.0 * node.n_classes), _NEVER),
    Platt: lambda _, given: (np.ones(1), given[1]),
    Spread: lambda _, given: (np.full(1, given[0].max()), np.atleast_1d(given[1].any())),
    Temperature: lambda _, given: (np.ones(1), np.atleast_1d(given[1].any())),
    TreeEnsemble: lambda node, _: (np.full(1, node.greatest), _NEVER),
    Bins: lambda node, _: (node.sizes, _NEVER),
    Categorise: lambda node, given: (node.sizes, given[1]),
    Clip: lambda node, given: (np.full(1, max(abs(node.least), abs(node.greatest))), given[1]),
    Concat: lambda _, *given: tuple(np.concatenate(each) for each in zip(*given, strict=True)),
    Fill: lambda node, given: (np.maximum(given[0], abs(np.nan_to_num(node.values))), given[1] & np.isnan(node.values)),
    Function: _function,
    IsMissing: lambda *_: (np.ones(1), _NEVER),
    Linear: _linear,
    Lookup: _lookup,
    Normalize: lambda _, given: (np.full(1, 2.0), np.atleast_1d(given[1].any())),
    OneHot: lambda *_: (np.ones(1), _NEVER),
    Polynomials: _polynomials,
    Power: lambda _, given: (np.full(1, np.inf), given[1]),
    Quantiles: lambda _, given: (np.full(1, 10.0), given[1]),
    Scale: _scale,
    Select: lambda node, given: (given[0][node.columns], given[1][node.columns]),
    SplineBases: _splines,
    Threshold: lambda *_: (np.ones(1), _NEVER),
}
