"""What a setting is called, and what is said of a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import msgspec.inspect as inspect

from fin_pyfunc.model.errors import FinPyfuncError

#: Where the settings stand in a configuration file.
ROOT = "deployment.api"
#: Two underscores, because Kubernetes gives every pod FIN_PYFUNC_PORT=tcp://… when a service is called fin-pyfunc.
PREFIX = "FIN_PYFUNC__"

_MAX_SHOWN = 10


class SettingsError(FinPyfuncError):
    """One or more settings are wrong, or the configuration file cannot be read.

    Parameters
    ----------
    problems : sequence of str
        What was found, each with the full name of its key or variable; the first 10 are shown, all are kept.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        more = len(self.problems) - _MAX_SHOWN
        super().__init__("; ".join(self.problems[:_MAX_SHOWN]) + (f"; and {more} more" if more > 0 else ""))


class Setting(NamedTuple):
    """One setting, for the documentation and for whatever else lists them."""

    name: str  #: dotted, below ``deployment.api``
    type: str  #: in words, such as ``integer from 0 to 65535``
    default: object
    description: str
    annotation: Any  #: what msgspec converts to
    kind: inspect.Type  #: the same without its description

    @property
    def key(self) -> str:
        """Full name in a configuration file."""
        return f"{ROOT}.{self.name}"

    @property
    def variable(self) -> str:
        """Name in the environment."""
        return PREFIX + self.name.upper().replace(".", "__")


def words(kind: inspect.Type) -> str:
    """What values a setting takes, such as ``integer from 0 to 65535``."""
    match kind:
        case inspect.UnionType():
            return " or ".join(words(k) for k in kind.types)
        case inspect.NoneType():
            return "null"
        case inspect.BoolType():
            return "boolean"
        case inspect.StrType():
            return "non-empty string" if kind.min_length else "string"
        case inspect.LiteralType():
            return "one of " + ", ".join(map(str, kind.values))
        case inspect.VarTupleType():
            return f"list of {words(kind.item_type)}s"
        case inspect.IntType() | inspect.FloatType():
            noun = "integer" if isinstance(kind, inspect.IntType) else "number"
            low = f"at least {kind.ge}" if kind.ge is not None else f"more than {kind.gt}"
            if kind.le is None:
                return f"{noun} of {low}"
            return (
                f"{noun} from {kind.ge} to {kind.le}" if kind.ge is not None else f"{noun} of {low}, at most {kind.le}"
            )
    raise TypeError(f"no words for a setting of {kind}")


def with_article(words: str) -> str:
    """The words of a type within a sentence."""
    return words if words.startswith("one of") else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def got(value: object) -> str:
    """What a value is, and the value only where it cannot be a secret."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value}" if abs(value) < 1e15 else "a number out of range"
        case str():
            return "a string" if value else "an empty string"
        case list() | tuple():
            odd = [
                got(v) if not isinstance(v, list | tuple) else "a list"
                for v in value
                if not v or not isinstance(v, str)
            ]
            return f"a list that holds {odd[0]}" if odd else "a list"
        case dict():
            return "a mapping"
    return with_article(type(value).__name__)


def shown(key: object) -> str:
    """A key of a file, fit to be printed on one line."""
    text = str(key)[:60]
    return text if text.isprintable() else ascii(text)


def hint(name: str, names: Collection[str], exact: Sequence[str] = ()) -> str:
    """What a mistyped name may have meant, as the end of a sentence."""
    close = exact or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
