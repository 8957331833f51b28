"""Every constant that a program compares something with, and rows at each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fin_pyfunc.compiling.comparisons import Comparison
from fin_pyfunc.compiling.hard_rows import HardRows, hard_rows
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.feature import NUMERIC
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.program.arithmetic import Fill, IsMissing, Scale
from fin_pyfunc.model.program.categories import Categorise, Lookup, OneHot
from fin_pyfunc.model.program.columns import Concat, Select
from fin_pyfunc.model.program.numbers import Clip, Function, Threshold
from fin_pyfunc.model.program.polynomials import Polynomials
from fin_pyfunc.model.program.power import Power
from fin_pyfunc.model.program.program import Program
from fin_pyfunc.model.program.quantiles import Bins, Quantiles
from fin_pyfunc.model.program.spline_bases import SplineBases
from fin_pyfunc.model.program.vouch import Vouch

#: Nodes that make the same bits of the same bits as scikit-learn; all others round in another order.
_EXACT = (Concat, Clip, Fill, Function, Lookup, Polynomials, Power, Quantiles, Scale, Select, SplineBases, Vouch)
#: Nodes that make whole numbers, which are either those of scikit-learn or others.
_WHOLE = (Bins, Categorise, IsMissing, OneHot, Threshold)


def program_rows(program: Program, spec: FeatureSpec, plain: Array) -> HardRows:
    """Rows at every constant of a program; see `hard_rows`."""
    found = list(_comparisons(program))
    wanted = [int(each.value) for each in found]
    part = Program(n_features=program.n_features, steps=program.steps[: max(wanted, default=0)])

    def run(rows: Array) -> list[Array]:
        values = part.values(rows)
        return [values[i] for i in wanted]

    is_fixed = np.array([feature.kind not in NUMERIC for feature in spec.features])
    return hard_rows(run, found, plain, is_fixed)


def _comparisons(program: Program) -> Iterator[Comparison]:
    rounded = [False]
    for step in program.steps:
        is_exact = isinstance(step.node, _EXACT) and not any(rounded[i] for i in step.of)
        rounded.append(not (is_exact or isinstance(step.node, _WHOLE)))
        for edge in step.node.edges():
            of = step.of[edge.of]
            yield Comparison(
                str(of), None, edge.constant.astype(np.float64), edge.column,
                is_rounded=rounded[of], is_tree=edge.is_tree,
            )  # fmt: skip
