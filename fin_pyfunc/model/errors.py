"""What can go wrong between a model URI and an answer, without a word of HTTP.

Every message is one sentence a stranger may read: it says what was wrong, what was expected and what to do, and holds
no value that a caller sent and no path of the machine. The server side maps the types to statuses.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

#: How many problems an error lists; the rest are counted (the HTTP contract's bound).
MAX_PROBLEMS = 100
#: How many of them the sentence itself tells.
SHOWN_PROBLEMS = 5
#: What to do about a refused feature, for whoever has the command line.
SEE_FEATURES = "'fin-pyfunc inspect' shows what the model takes"
#: Problems of a name rather than of a value.
MISSING, UNKNOWN = "missing", "unknown to this model"


class FinPyfuncError(Exception):
    """Base of every error that this package raises on purpose.

    Attributes
    ----------
    model_id : str
        The model that it is about, as a server knows it; empty where it is about none or nobody has said.
    """

    model_id = ""


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
    hint : str, optional
        What to do; default where the model's features can be seen.
    misspelt : mapping of str to str, optional
        Name that was sent to the missing feature that it probably means.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        total: int | None = None,
        rows: Iterable[int] | None = None,
        hint: str = SEE_FEATURES,
        misspelt: Mapping[str, str] | None = None,
    ) -> None:
        self.hint = hint
        self.problems = tuple(problems[:MAX_PROBLEMS])
        self.total = len(problems) if total is None else total
        self.rows = tuple(sorted({p.row for p in problems} if rows is None else set(rows)))
        self.misspelt = dict(misspelt or {})
        super().__init__(self.sentence(hint))

    def sentence(self, hint: str) -> str:
        """The message, with another hint at its end: where features can be seen depends on who asks."""
        # the same problem in many rows is said once
        kinds = list(dict.fromkeys((p.feature, p.problem) for p in self.problems))
        said = []
        for sent, meant in list(self.misspelt.items())[:SHOWN_PROBLEMS]:
            said.append(f"{sent!r} is not a feature of the model (did you mean {meant!r}?)")
            kinds = [kind for kind in kinds if kind not in ((meant, MISSING), (sent, UNKNOWN))]
        shown = kinds[: SHOWN_PROBLEMS - len(said)]
        said += [f"feature {feature!r} {_verb(problem)}" for feature, problem in shown]
        rows = "" if self.rows == (0,) else f" in {_rows(self.rows)}"
        count = f" ({self.total} problems in all)" if len(shown) < len(kinds) or self._is_repeated() else ""
        return f"Refused{rows}: {'; '.join([*said[:-1], f'{said[-1]}{count}', hint] if said else [hint])}."

    def _is_repeated(self) -> bool:
        """Whether there are more problems than kinds of them: in several rows, or beyond those that are kept."""
        return self.total > len({(p.feature, p.problem) for p in self.problems})


class ModelUriError(FinPyfuncError):
    """A model URI that is not of a form this project loads."""


class ModelNotFoundError(FinPyfuncError):
    """No such model, version, alias, run or experiment.

    Parameters
    ----------
    message : str
    suggestion : object, optional
        What there is instead, whose ``str()`` is a message for those who may know of it.
    """

    def __init__(self, message: str, suggestion: Any = None) -> None:
        super().__init__(message, suggestion)
        self.suggestion = suggestion

    def __str__(self) -> str:
        return str(self.args[0])


class ModelForbiddenError(FinPyfuncError):
    """The operator's settings do not allow this model to be loaded."""


class ArtifactError(FinPyfuncError):
    """The files of a logged model are missing, damaged or not what their manifest says."""

    @classmethod
    def missing(cls, error: Exception) -> ArtifactError | None:
        """What the model needs and this machine lacks, if that is what the error says."""
        if isinstance(error, ModuleNotFoundError):
            return cls(f"The model needs the Python package {error.name!r}: install the model's requirements here.")
        # as glibc's loader puts it
        library = re.match(r"(lib[\w.+-]+): cannot open shared object file", str(error))
        if isinstance(error, OSError | ImportError) and library is not None:
            hint = " (Debian and Ubuntu: apt-get install libgomp1)" if library[1].startswith("libgomp") else ""
            return cls(f"The model needs the system's library {library[1]}: install it here{hint}.")
        return None

    @classmethod
    def not_loaded(cls, error: Exception) -> ArtifactError:
        """Why MLflow could not load a model."""
        return cls.missing(error) or cls(
            f"MLflow could not load the model ({type(error).__name__}): its files are damaged, or it needs other "
            "versions of its libraries than are installed here."
        )


class FormatError(ArtifactError):
    """The artifact was written in a format that this version does not read."""


class ExampleError(ArtifactError):
    """The model answers the example recorded in it differently than when it was logged."""


class BackendError(FinPyfuncError):
    """The backend asked for cannot compute this model on this machine."""


class ScoringError(FinPyfuncError):
    """The estimator itself raised, or answered something that is not a prediction."""


class DeviceError(ScoringError):
    """The GPU failed while it scored: out of memory, lost, or taken away; the rows are not to blame."""


class HostedError(FinPyfuncError):
    """What a model raised in its own process, as the trace that it had there."""


class ModelUnavailableError(FinPyfuncError):
    """The process that a model runs in has ended, or does not answer.

    Parameters
    ----------
    message : str
    retry_seconds : float, default 1
        When it is worth asking again.
    """

    def __init__(self, message: str, retry_seconds: float = 1.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds


class StoreUnavailableError(FinPyfuncError):
    """MLflow is needed and does not answer."""


def _verb(problem: str) -> str:
    return problem if problem.startswith(("is ", "has ", "must ")) else f"is {problem}"


def _rows(rows: Sequence[int]) -> str:
    """Rows as a person writes them, "rows 3, 7-9": every one is named, and neighbours take little room."""
    spans: list[list[int]] = []
    for row in rows:
        if spans and row == spans[-1][1] + 1:
            spans[-1][1] = row
        else:
            spans.append([row, row])
    shown = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans[:MAX_PROBLEMS])
    more = ", …" if len(spans) > MAX_PROBLEMS else ""
    return f"{'row' if len(rows) == 1 else 'rows'} {shown}{more}"
