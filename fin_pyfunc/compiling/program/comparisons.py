"""Every constant that a program compares something with, and rows at each of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fin_pyfunc.compiling.comparisons import Comparison
from fin_pyfunc.compiling.hard_rows import HardRows, hard_rows
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.feature import NUMERIC
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.program.arithmetic import IsMissing
from fin_pyfunc.model.program.categories import Categorise, OneHot
from fin_pyfunc.model.program.numbers import Threshold
from fin_pyfunc.model.program.program import Program
from fin_pyfunc.model.program.quantiles import Bins
from fin_pyfunc.model.program.votes import Choose

#: Nodes that make whole numbers, which are either those of scikit-learn or others.
_WHOLE = (Bins, Categorise, Choose, IsMissing, OneHot, Threshold)


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


def is_exact(program: Program) -> bool:
    """Whether a program's answer is scikit-learn's to the last bit, where it has one."""
    rounded = [False]
    for step in program.steps:  # a vote that may go either way is withheld
        rounds = step.node.rounds or any(rounded[i] for i in step.of)
        rounded.append(rounds and not isinstance(step.node, Choose))
    return not rounded[-1]


def _comparisons(program: Program) -> Iterator[Comparison]:
    rounded = [False]
    for step in program.steps:
        is_whole = isinstance(step.node, _WHOLE)
        rounded.append(not is_whole and (step.node.rounds or any(rounded[i] for i in step.of)))
        for edge in step.node.edges():
            of = step.of[edge.of]
            yield Comparison(
                str(of), None, edge.constant.astype(np.float64), edge.column,
                is_rounded=rounded[of], is_tree=edge.is_tree,
            )  # fmt: skip
