"""Find the feature that a misspelt name probably means, in time that grows with the letters and no faster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

#: Names compared on either side, and letters of the longest one: requests with thousands of keys cost milliseconds.
MAX_NAMES = 200
MAX_LETTERS = 64
#: A shorter name is near only to itself in another case or with other separators.
MIN_LETTERS = 4

_SEPARATORS = re.compile(r"[\W_]+")
_NOT_DIGITS = re.compile(r"\D+")


def near_names(missing: Sequence[str], sent: Iterable[object]) -> dict[str, str]:
    """Match names that were sent to names that were expected and are missing.

    Parameters
    ----------
    missing : sequence of str
    sent : iterable
        Names that mean nothing; those that are no text are skipped.

    Returns
    -------
    dict of str to str
        Name sent to name meant: they differ in case, separators or one letter (one more, one less, another one, two
        swapped), and never in a digit (``return_1`` is not meant by ``return_5``). Each name is matched once.
    """
    meant = [name for name in missing[:MAX_NAMES] if len(name) <= MAX_LETTERS]
    lengths = {len(name) + more for name in meant for more in range(-4, 5)}
    by_form: dict[str, str] = {}
    for expected in meant:
        for form in _forms(expected):
            by_form.setdefault(form, expected)
    found: dict[str, str] = {}
    tried = 0
    for name in sent:
        if not isinstance(name, str) or len(name) not in lengths:
            continue
        tried += 1
        if tried > MAX_NAMES:
            break
        near = next((by_form[form] for form in _forms(name) if form in by_form), None)
        if near is not None and near not in found.values() and _digits(near) == _digits(name):
            found[name] = near
    return found


def _forms(name: str) -> list[str]:
    """The name without case and separators, and the same without each of its letters: near names share one."""
    plain = _SEPARATORS.sub("", name.casefold())
    if len(plain) < MIN_LETTERS:
        return [plain] if plain else []
    return [plain, *(plain[:i] + plain[i + 1 :] for i in range(len(plain)))]


def _digits(name: str) -> str:
    return _NOT_DIGITS.sub("", name)
