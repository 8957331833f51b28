"""Why an estimator has no compiled form."""

from __future__ import annotations


class NotCompilable(Exception):  # noqa: N818 - no error of a user's; it becomes a clause of `Compiled.dropped`
    """An estimator cannot be compiled this way; the argument is one clause that says why."""
