"""Where settings are read: the command line, the environment and a configuration file."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import msgspec.inspect as inspect
import yaml

from fin_pyfunc.model.choice import VARIABLE as BACKEND_VARIABLE
from fin_pyfunc.serving.settings.wording import PREFIX, ROOT, Setting, SettingsError, got, hint, shown

#: Variables that others than this server heed too, weaker than ours for the same setting.
SHARED_VARIABLES = {
    "MLFLOW_TRACKING_URI": "mlflow.tracking_uri",
    "MLFLOW_EXPERIMENT_NAME": "mlflow.experiment_name",
    BACKEND_VARIABLE: "backend",
}
#: The largest configuration file that is read, in bytes.
MAX_FILE_BYTES = 1 << 20

_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::(?P<default>[^}]*))?\}", re.ASCII)
_BOOLEANS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)


class Given(NamedTuple):
    """A value that one source has for one setting."""

    name: str
    value: object
    is_text: bool  # to be converted from text; else it has its type already
    origin: str


class BadValueError(ValueError):
    """What is wrong with one value, without its key."""


def from_overrides(
    overrides: Mapping[str, object], known: Mapping[str, Setting], problems: list[str]
) -> Iterator[Given]:
    """What the command line has."""
    for name, value in overrides.items():
        if name not in known:
            problems.append(f"{ROOT}.{name}: unknown key{hint(name, known)} (from the command line)")
        elif value is not None:
            yield Given(name, value, False, "the command line")


def from_environment(environ: Mapping[str, str], known: Mapping[str, Setting], problems: list[str]) -> Iterator[Given]:
    """What the environment has, ours before those that others heed too."""
    names = {setting.variable: name for name, setting in known.items()}
    for variable in sorted(environ):
        if variable in names:
            origin = f"the environment variable {variable}"
            yield Given(names[variable], environ[variable], True, origin)
        elif variable.startswith(PREFIX):
            problems.append(f"{variable}: unknown setting in the environment{hint(variable, names)}")
    for variable, name in SHARED_VARIABLES.items():
        if environ.get(variable):  # an empty one is none, as it is for MLflow
            yield Given(name, environ[variable], True, f"the environment variable {variable}")


def from_file(
    path: Path | str,
    environ: Mapping[str, str],
    known: Mapping[str, Setting],
    problems: list[str],
    taken: Collection[str],
) -> Iterator[Given]:
    """What a file has; a reference that cannot be resolved is no problem where its setting is `taken` already."""
    inner = {name.rpartition(".")[0] for name in known} - {""}

    def walk(section: Mapping[object, object], prefix: str) -> Iterator[Given]:
        for key, value in section.items():
            name = prefix + shown(key)
            if name in inner and isinstance(value, dict | None):  # a section of comments only is null
                yield from walk(value or {}, name + ".")
            elif name in inner:
                problems.append(f"{ROOT}.{name}: expected a mapping of settings, got {got(value)} (from {path})")
            elif name not in known:
                siblings = [n.removeprefix(prefix).partition(".")[0] for n in known if n.startswith(prefix)]
                elsewhere = [n for n in known if n.endswith("." + shown(key))]
                problems.append(f"{ROOT}.{name}: unknown key{hint(shown(key), siblings, elsewhere)} (from {path})")
            else:
                if value is False and isinstance(known[name].kind, inspect.LiteralType):
                    value = "off"  # as it was written: YAML reads off without quotes as false
                try:
                    yield Given(name, *_interpolate(value, environ), str(path))
                except BadValueError as error:
                    if name not in taken:
                        problems.append(f"{ROOT}.{name}: {error} (from {path})")

    yield from walk(_section(path), "")


class _Loader(yaml.SafeLoader):
    """The safe loader, which takes a key given twice for the mistake that it is."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key '{shown(key.value)}' stands there twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return node


def _section(path: Path | str) -> Mapping[object, object]:
    """The ``deployment.api`` mapping of a file."""
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable path"
        raise SettingsError([f"{path}: the configuration file cannot be read ({reason.lower()})"]) from None
    if len(content) > MAX_FILE_BYTES:
        raise SettingsError([f"{path}: a configuration file may have at most {MAX_FILE_BYTES} bytes"])
    try:
        node = _Loader(content).get_single_data()
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise SettingsError([f"{path}: not valid YAML, {line}{' '.join(str(error.problem).split())}"]) from None
    except RecursionError:
        raise SettingsError([f"{path}: not valid YAML, nested too deeply"]) from None
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, OverflowError):
        # not text at all, or a scalar that PyYAML's own constructors stumble over, such as the date 2024-13-45
        raise SettingsError([f"{path}: not valid YAML, a character or a scalar in it cannot be read"]) from None
    for name in ROOT.split("."):
        if not isinstance(node, dict) or name not in node:
            raise SettingsError(
                [f"{path}: has no '{ROOT}' section; put the settings under '{ROOT.replace('.', ': ')}'"]
            )
        node = node[name]
    if not isinstance(node, dict | None):
        raise SettingsError([f"{ROOT}: expected a mapping of settings, got {got(node)} (from {path})"])
    return node or {}


def _interpolate(value: object, environ: Mapping[str, str]) -> tuple[object, bool]:
    """A scalar, or a list's items, with ``${…}`` put in; and whether the outcome is text yet to be converted."""
    if isinstance(value, list):
        return [_interpolate(item, environ)[0] if isinstance(item, str) else item for item in value], False
    if not isinstance(value, str) or "${" not in value:
        return value, False

    def put(match: re.Match[str]) -> str:
        found, default = environ.get(match["name"]), match["default"]
        if default is not None and default.startswith("-"):
            raise BadValueError(f"write ${{{match['name']}:default}}, without the '-' that a shell has after the colon")
        if found:
            return found
        if default is None:
            raise BadValueError(
                f"needs the environment variable {match['name']}, which is not set; "
                f"set it, or give a default as in ${{{match['name']}:default}}"
            )
        return default

    if "${" in _REFERENCE.sub("", value):
        raise BadValueError("holds a '${' that is neither ${NAME} nor ${NAME:default}")
    return _REFERENCE.sub(put, value), True


def from_text(text: str, setting: Setting) -> object:
    """Text of the environment as a value of the setting's type, or as it is where it cannot be one."""
    kind = setting.kind
    if isinstance(kind, inspect.UnionType):
        if not text:
            return None
        kind = next(k for k in kind.types if not isinstance(k, inspect.NoneType))
    try:
        if isinstance(kind, inspect.BoolType):
            return _BOOLEANS.get(text.strip().lower(), text)
        if isinstance(kind, inspect.IntType):
            return int(text)
        if isinstance(kind, inspect.FloatType):
            return float(text)
        if isinstance(kind, inspect.VarTupleType):
            if text.lstrip().startswith("["):
                return msgspec.json.decode(text)
            return [item.strip() for item in text.split(",") if item.strip()]
    except msgspec.DecodeError:
        raise BadValueError("expected items with commas between them, or a JSON list, got a broken JSON list") from None
    except ValueError:
        pass  # the check that follows says what was expected
    return text
