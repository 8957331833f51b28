"""Problems of rows, gathered while they are checked."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable
from typing import Any

from fin_pyfunc.model import errors
from fin_pyfunc.model.errors import MAX_PROBLEMS, FeatureError, Problem
from fin_pyfunc.model.near_names import near_names


def _row_of(problem: Problem) -> int:
    return problem.row


class Problems:
    """Problems found so far: the first ones kept, all of them counted."""

    def __init__(self, hint: str | None = None) -> None:
        self._hint = {} if hint is None else {"hint": hint}
        self.kept: list[Problem] = []
        self.total = 0
        self.rows: set[int] = set()

    def add(self, row: int, feature: str, problem: str) -> None:
        self.add_all((row,), feature, problem)

    def add_all(self, rows: Iterable[int], feature: str, problem: str) -> None:
        for row in rows:
            self.total += 1
            self.rows.add(row)
            found = Problem(row, feature, problem)
            # the first by row, however they are found; within a row in the order of the features
            if len(self.kept) < MAX_PROBLEMS or row < self.kept[-1].row:
                insort(self.kept, found, key=_row_of)
                del self.kept[MAX_PROBLEMS:]

    def raise_if_any(self, unknown: Callable[[int], Iterable[Any]] | None = None) -> None:
        """Raise what was found; `unknown` gives the names in a row that mean nothing, to look for misspelt ones."""
        if not self.kept:
            return
        missing = [problem for problem in self.kept if problem.problem == errors.MISSING]
        misspelt = {}
        if missing and unknown is not None:
            row = missing[0].row
            misspelt = near_names([problem.feature for problem in missing if problem.row == row], unknown(row))
        raise FeatureError(self.kept, self.total, self.rows, misspelt=misspelt, **self._hint)
