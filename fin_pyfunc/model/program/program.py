"""A program: its steps in order, each a node and where its inputs come from."""

from __future__ import annotations

import msgspec
import numpy as np

from fin_pyfunc.model.program.arithmetic import Fill, IsMissing, Scale
from fin_pyfunc.model.program.calibration import Isotonic, Platt, Temperature
from fin_pyfunc.model.program.categories import Categorise, Lookup, OneHot
from fin_pyfunc.model.program.classifiers import Constant, Linear, TreeEnsemble
from fin_pyfunc.model.program.columns import Concat, Select
from fin_pyfunc.model.program.densities import Counts, Gaussian, Quadratic
from fin_pyfunc.model.program.kernels import KernelMachine
from fin_pyfunc.model.program.links import Link
from fin_pyfunc.model.program.node import MAX_WIDTH, Array, expect, from_builtins, to_builtins
from fin_pyfunc.model.program.numbers import Clip, Function, Normalize, Threshold
from fin_pyfunc.model.program.polynomials import Polynomials
from fin_pyfunc.model.program.power import Power
from fin_pyfunc.model.program.quantiles import Bins, Quantiles
from fin_pyfunc.model.program.spline_bases import SplineBases
from fin_pyfunc.model.program.votes import Average, Choose, Pairs, Spread, Withhold
from fin_pyfunc.model.program.vouch import Vouch
from fin_pyfunc.model.soundness.trees import forged

#: What computes with numbers alone.
_Arithmetic = (
    Bins | Clip | Fill | Function | IsMissing | Normalize | Polynomials | Power | Quantiles | Scale | SplineBases
)

#: Every kind of node that a file may hold.
AnyNode = _Arithmetic | Categorise | Concat | Lookup | OneHot | Select | Threshold | Vouch
AnyNode |= Constant | Counts | Gaussian | KernelMachine | Linear | Link | Quadratic | TreeEnsemble
AnyNode |= Average | Choose | Isotonic | Pairs | Platt | Spread | Temperature | Withhold
#: Most steps of a program.
MAX_STEPS = 10_000
#: Most columns of all steps together: a row of them takes 16 MiB.
MAX_COLUMNS = 1 << 21


class Step(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One node, and what it reads.

    Parameters
    ----------
    of : tuple of int
        Numbers of the values that are its inputs: 0 is the row, n what the n-th step made.
    node : Node
    """

    of: tuple[int, ...]
    node: AnyNode


class Program(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, dict=True):
    """What is computed of a row, in order; the last step's value is the answer.

    Parameters
    ----------
    n_features : int
        Columns of the rows.
    steps : list of Step
    """

    n_features: int
    steps: list[Step]

    def check(self) -> list[int]:
        """Check every step; returns the number of columns of each value, the rows' first.

        Raises
        ------
        ArtifactError
        """
        expect(0 < self.n_features <= MAX_WIDTH and 0 < len(self.steps) <= MAX_STEPS, "rows")
        widths = [self.n_features]
        total = self.n_features
        for step in self.steps:
            expect(bool(step.of) and all(0 <= i < len(widths) for i in step.of), "inputs")
            widths.append(step.node.width(*(widths[i] for i in step.of)))
            total += widths[-1]
            expect(total <= MAX_COLUMNS, "columns")
        return widths

    def __call__(self, rows: Array) -> Array:
        """The answer for each row, of shape (n_rows, width of the last step), of rows (n_rows, n_features), float64."""
        return self.values(rows)[-1]

    def values(self, rows: Array) -> list[Array]:
        """Every value on the way: the rows, then what each step made."""
        values = [rows]
        with np.errstate(all="ignore"):  # a row far out may overflow, here as in scikit-learn
            for step in self.steps:
                values.append(step.node(*[values[i] for i in step.of]))
        return values


def written(program: Program) -> bytes:
    """The file's content."""
    return msgspec.msgpack.encode(program, enc_hook=to_builtins)


def read(content: bytes, n_scores: int) -> Program:
    """Read a file, and check it.

    Parameters
    ----------
    content : bytes
    n_scores : int
        How many columns its answer must have.

    Raises
    ------
    ArtifactError
    """
    try:
        program: Program = msgspec.msgpack.decode(content, type=Program, dec_hook=from_builtins)
    except (msgspec.MsgspecError, ValueError, TypeError) as e:
        raise forged("a program that is cut off or damaged") from e
    expect(program.check()[-1] == n_scores, "answer")
    return program
