"""What can go wrong between a model URI and an answer, without a word of HTTP.

Every message is one sentence a stranger may read: it says what was wrong, what was expected and what to do, and holds
no value that a caller sent and no path of the machine. The server side maps the types to statuses.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

#: How many problems an error lists; the rest are counted (the HTTP contract's bound).
MAX_PROBLEMS = 100


class FinPyfuncError(Exception):
    """Base of every error that this package raises on purpose."""


class NotLoggableError(FinPyfuncError):
    """The estimator, the sample or an option cannot be logged; raised when logging so that serving never has to."""


class Problem(NamedTuple):
    """One feature of one row that was refused."""

    row: int
    feature: str
    problem: str


class FeatureError(FinPyfuncError):
    """One or more features were refused.

    Parameters
    ----------
    problems : sequence of Problem
        What was found, in row order; at most the first 100 are kept.
    total : int, optional
        How many there were in all; default ``len(problems)``.
    rows : iterable of int, optional
        Index of every bad row; default those of `problems`.
    """

    def __init__(
        self, problems: Sequence[Problem], total: int | None = None, rows: Iterable[int] | None = None
    ) -> None:
        self.problems = tuple(problems[:MAX_PROBLEMS])
        self.total = len(problems) if total is None else total
        self.rows = tuple(sorted({p.row for p in problems} if rows is None else set(rows)))
        super().__init__(self._sentence())

    def _sentence(self) -> str:
        first = self.problems[0]
        found = f"feature {first.feature!r} {_verb(first.problem)}"
        if self.total > 1:
            found += f", and {self.total - 1} more"
        where = "" if self.rows == (0,) else f" in {_rows(self.rows)}"
        count = f"{self.total} feature {_plural(self.total, 'problem')}"
        return f"{count}{where}: {found}; see the model's features with 'fin-pyfunc inspect'."


class ModelUriError(FinPyfuncError):
    """A model URI that is not of a form this project loads."""


class ModelNotFoundError(FinPyfuncError):
    """No such model, version, alias, run or experiment."""


class ModelForbiddenError(FinPyfuncError):
    """The operator's settings do not allow this model to be loaded."""


class ArtifactError(FinPyfuncError):
    """The files of a logged model are missing, damaged or not what their manifest says."""

    @classmethod
    def missing_package(cls, error: ModuleNotFoundError) -> ArtifactError:
        """The model needs a package that is not installed."""
        return cls(f"The model needs the Python package {error.name!r}: install the model's requirements here.")


class FormatError(ArtifactError):
    """The artifact was written in a format that this version does not read."""


class BackendError(FinPyfuncError):
    """The backend asked for cannot compute this model on this machine."""


class ScoringError(FinPyfuncError):
    """The estimator itself raised, or answered something that is not a prediction."""


class StoreUnavailableError(FinPyfuncError):
    """MLflow is needed and does not answer."""


def _plural(n: int, noun: str) -> str:
    return noun if n == 1 else noun + "s"


def _verb(problem: str) -> str:
    return problem if problem.startswith(("is ", "has ", "must ")) else f"is {problem}"


def _rows(rows: Sequence[int]) -> str:
    shown = ", ".join(map(str, rows[:MAX_PROBLEMS]))
    more = f" and {len(rows) - MAX_PROBLEMS} more" if len(rows) > MAX_PROBLEMS else ""
    return f"{_plural(len(rows), 'row')} {shown}{more}"
