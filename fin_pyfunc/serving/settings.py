"""What can be set for the server, and how a file, the environment and the command line become one `Settings`.

The types below are the only list of settings: the names of environment variables, the checks, the messages and the
reference in the documentation are all read off them.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_type_hints

import msgspec
import msgspec.inspect as inspect
import yaml
from msgspec import Meta

from fin_pyfunc.model.errors import FinPyfuncError

#: Where the settings stand in a configuration file.
ROOT = "deployment.api"
#: Two underscores, because Kubernetes gives every pod FIN_PYFUNC_PORT=tcp://… when a service is called fin-pyfunc.
PREFIX = "FIN_PYFUNC__"
#: MLflow's own variables that are heeded, weaker than ours for the same setting.
MLFLOW_VARIABLES = {"MLFLOW_TRACKING_URI": "mlflow.tracking_uri", "MLFLOW_EXPERIMENT_NAME": "mlflow.experiment_name"}
#: The largest configuration file that is read, in bytes.
MAX_FILE_BYTES = 1 << 20

_MAX_SHOWN = 10
_REFERENCE = re.compile(r"\$\{(?P<name>[A-Za-z_]\w*)(?::(?P<default>[^}]*))?\}", re.ASCII)
_BOOLEANS = dict.fromkeys(("true", "1", "yes", "on"), True) | dict.fromkeys(("false", "0", "no", "off"), False)

_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=1)]


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


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class Mlflow(_Section, frozen=True):
    """Where models come from."""

    tracking_uri: Annotated[
        _Text | None,
        Meta(description="MLflow tracking server or store; null leaves the choice to MLflow."),
    ] = None
    experiment_name: Annotated[
        str, Meta(min_length=1, description="Experiment that `GET /models` lists when the request names none.")
    ] = "financial_ml"
    probe_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds between two background checks that MLflow answers.")
    ] = 10.0


class Cors(_Section, frozen=True):
    """Which web pages of other origins a browser lets call the API."""

    allow_origins: Annotated[
        tuple[_Text, ...], Meta(description='Origins that may call, such as `https://example.com`; `"*"` is every one.')
    ] = ()
    allow_credentials: Annotated[
        bool, Meta(description='Whether browsers may send cookies and credentials; not together with the origin `"*"`.')
    ] = False
    allow_methods: Annotated[tuple[_Text, ...], Meta(description="HTTP methods that other origins may use.")] = (
        "GET",
        "POST",
    )
    allow_headers: Annotated[tuple[_Text, ...], Meta(description="Request headers that other origins may send.")] = (
        "Content-Type",
        "Authorization",
        "X-Request-ID",
    )

    def __post_init__(self) -> None:
        if self.allow_credentials and "*" in self.allow_origins:
            raise SettingsError(
                [
                    f"{ROOT}.cors.allow_origins: '*' cannot be combined with {ROOT}.cors.allow_credentials: true; "
                    "list the exact origins instead, or set allow_credentials to false"
                ]
            )


class Cache(_Section, frozen=True):
    """Models kept in memory."""

    enabled: Annotated[bool, Meta(description="Whether a model stays in memory after the request that loaded it.")] = (
        True
    )
    max_models: Annotated[
        int, Meta(ge=1, description="Models that one worker keeps; the least recently used goes first.")
    ] = 10


class Models(_Section, frozen=True):
    """Which models a request may name."""

    trust: Annotated[
        Literal["store", "all"],
        Meta(description="`store` loads what MLflow holds; `all` also loads pickle files below `file_roots`."),
    ] = "store"
    file_roots: Annotated[
        tuple[_Text, ...], Meta(description="Directories below which `file://` models may be loaded; none by default.")
    ] = ()
    refresh_seconds: Annotated[
        float, Meta(ge=0, le=86400, description="Longest time in seconds that a moved alias may go unnoticed.")
    ] = 30.0
    load_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Longest time in seconds that loading a model may take.")
    ] = 120.0


class Limits(_Section, frozen=True):
    """How much one request, and one worker, takes on."""

    max_batch_rows: Annotated[int, Meta(ge=1, description="Rows of one batch; 413 beyond.")] = 10_000
    max_body_bytes: Annotated[int, Meta(ge=1, description="Bytes of one request body; 413 beyond.")] = 33_554_432
    request_seconds: Annotated[
        float, Meta(gt=0, le=86400, description="Seconds that a request may take; 504 beyond.")
    ] = 30.0
    max_waiting: Annotated[
        int, Meta(ge=1, description="Predictions waiting or running in one worker; 503 with `Retry-After` beyond.")
    ] = 256
    score_threads: Annotated[
        _Count | None, Meta(description="Scoring threads of one worker; null is one a CPU, at most 4.")
    ] = None


class Settings(_Section, frozen=True):
    """Everything that can be set for the server, under ``deployment.api`` in a configuration file."""

    enabled: Annotated[bool, Meta(description="Whether the API may be started with this configuration.")] = True
    host: Annotated[str, Meta(min_length=1, description="Address to listen on; `0.0.0.0` is every interface.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, Meta(ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")] = 8000
    workers: Annotated[int, Meta(ge=1, description="Worker processes, each with its own models in memory.")] = 1
    log_level: Annotated[
        Literal["debug", "info", "warning", "error", "critical"], Meta(description="Least severe level that is logged.")
    ] = "info"
    model_uri: Annotated[
        _Text | None,
        Meta(description="Model of a request that names none, loaded at start; null has each request name its own."),
    ] = None
    backend: Annotated[
        _Text | None, Meta(description="Backend that computes every prediction; null chooses one for each model.")
    ] = None
    drain_seconds: Annotated[
        int, Meta(ge=0, le=86400, description="Seconds that requests in flight get to finish when a worker stops.")
    ] = 30
    mlflow: Annotated[Mlflow, Meta(description="Where models come from.")] = Mlflow()
    cors: Annotated[Cors, Meta(description="Which web pages of other origins may call the API.")] = Cors()
    cache: Annotated[Cache, Meta(description="Models kept in memory.")] = Cache()
    models: Annotated[Models, Meta(description="Which models a request may name.")] = Models()
    limits: Annotated[Limits, Meta(description="How much one request, and one worker, takes on.")] = Limits()


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


class _Given(NamedTuple):
    """A value that one source has for one setting."""

    name: str
    value: object
    is_text: bool  # to be converted from text; else it has its type already
    origin: str


class _BadValueError(ValueError):
    """What is wrong with one value, without its key."""


def fields(section: type[msgspec.Struct] = Settings, prefix: str = "") -> Iterator[Setting]:
    """Every setting, in the order of the configuration file."""
    hints = get_type_hints(section, include_extras=True)
    for field in msgspec.structs.fields(section):
        kind = inspect.type_info(hints[field.name])
        assert isinstance(kind, inspect.Metadata), field.name  # noqa: S101  a description is part of every setting
        description = (kind.extra_json_schema or {})["description"]
        if isinstance(kind.type, inspect.StructType):
            yield from fields(kind.type.cls, f"{prefix}{field.name}.")
        else:
            words = _words(kind.type)
            if isinstance(kind.type, inspect.LiteralType):  # msgspec sorts them; severities have an order of their own
                words = "one of " + ", ".join(get_args(get_args(hints[field.name])[0]))
            yield Setting(prefix + field.name, words, field.default, description, hints[field.name], kind.type)


def load(
    config: Path | str | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Settings from the command line, the environment and a file, the earlier of these the stronger.

    Every value is checked, one that a stronger source overrides too; only a ``${NAME}`` that nobody needs may be unset.

    Parameters
    ----------
    config : path, optional
        A YAML file with a ``deployment.api`` section, in which ``${NAME}`` and ``${NAME:default}`` stand for
        environment variables; whatever else the file holds is not looked at. Default: no file.
    environ : mapping of str to str, optional
        ``FIN_PYFUNC__…`` for any setting, ``MLFLOW_TRACKING_URI`` and ``MLFLOW_EXPERIMENT_NAME``; default
        ``os.environ``.
    overrides : mapping of str to object, optional
        Dotted name such as ``mlflow.tracking_uri`` to value; a value of None is no override.

    Raises
    ------
    SettingsError
        Where the file cannot be read, a name is unknown or a value is not of its type; it names all of them.
    """
    environ = os.environ if environ is None else environ
    known = {setting.name: setting for setting in fields()}
    problems: list[str] = []
    values: dict[str, object] = {}
    # lazily, strongest first: when the file's turn comes, `values` holds what the others gave
    for given in chain(
        _from_overrides(overrides or {}, known, problems),
        _from_environment(environ, known, problems),
        () if config is None else _from_file(config, environ, known, problems, values),
    ):
        setting = known[given.name]
        try:
            value = _from_text(str(given.value), setting) if given.is_text else given.value
            value = msgspec.convert(value, setting.annotation)
        except _BadValueError as error:
            problems.append(f"{setting.key}: {error} (from {given.origin})")
        except msgspec.ValidationError:
            problems.append(f"{setting.key}: expected {_a(setting.type)}, got {_got(value)} (from {given.origin})")
        else:
            values.setdefault(given.name, value)
    if problems:
        raise SettingsError(problems)
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, leaf = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[leaf] = value
    return msgspec.convert(nested, Settings)


def _from_overrides(
    overrides: Mapping[str, object], known: Mapping[str, Setting], problems: list[str]
) -> Iterator[_Given]:
    for name, value in overrides.items():
        if name not in known:
            problems.append(f"{ROOT}.{name}: unknown key{_hint(name, known)} (from the command line)")
        elif value is not None:
            yield _Given(name, value, False, "the command line")


def _from_environment(
    environ: Mapping[str, str], known: Mapping[str, Setting], problems: list[str]
) -> Iterator[_Given]:
    names = {setting.variable: name for name, setting in known.items()}
    for variable in sorted(environ):
        if variable in names:
            origin = f"the environment variable {variable}"
            yield _Given(names[variable], environ[variable], True, origin)
        elif variable.startswith(PREFIX):
            problems.append(f"{variable}: unknown setting in the environment{_hint(variable, names)}")
    for variable, name in MLFLOW_VARIABLES.items():
        if environ.get(variable):  # an empty one is none, as it is for MLflow
            yield _Given(name, environ[variable], True, f"the environment variable {variable}")


def _from_file(
    path: Path | str,
    environ: Mapping[str, str],
    known: Mapping[str, Setting],
    problems: list[str],
    taken: Collection[str],
) -> Iterator[_Given]:
    inner = {name.rpartition(".")[0] for name in known} - {""}

    def walk(section: Mapping[object, object], prefix: str) -> Iterator[_Given]:
        for key, value in section.items():
            name = prefix + _shown(key)
            if name in inner and isinstance(value, dict | None):  # a section of comments only is null
                yield from walk(value or {}, name + ".")
            elif name in inner:
                problems.append(f"{ROOT}.{name}: expected a mapping of settings, got {_got(value)} (from {path})")
            elif name not in known:
                siblings = [n.removeprefix(prefix).partition(".")[0] for n in known if n.startswith(prefix)]
                elsewhere = [n for n in known if n.endswith("." + _shown(key))]
                problems.append(f"{ROOT}.{name}: unknown key{_hint(_shown(key), siblings, elsewhere)} (from {path})")
            else:
                try:
                    yield _Given(name, *_interpolate(value, environ), str(path))
                except _BadValueError as error:
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
                        problem=f"the key '{_shown(key.value)}' stands there twice", problem_mark=key.start_mark
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
        raise SettingsError([f"{ROOT}: expected a mapping of settings, got {_got(node)} (from {path})"])
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
            raise _BadValueError(
                f"write ${{{match['name']}:default}}, without the '-' that a shell has after the colon"
            )
        if found:
            return found
        if default is None:
            raise _BadValueError(
                f"needs the environment variable {match['name']}, which is not set; "
                f"set it, or give a default as in ${{{match['name']}:default}}"
            )
        return default

    if "${" in _REFERENCE.sub("", value):
        raise _BadValueError("holds a '${' that is neither ${NAME} nor ${NAME:default}")
    return _REFERENCE.sub(put, value), True


def _from_text(text: str, setting: Setting) -> object:
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
        raise _BadValueError(
            "expected items with commas between them, or a JSON list, got a broken JSON list"
        ) from None
    except ValueError:
        pass  # the check that follows says what was expected
    return text


def _words(kind: inspect.Type) -> str:
    match kind:
        case inspect.UnionType():
            return " or ".join(_words(k) for k in kind.types)
        case inspect.NoneType():
            return "null"
        case inspect.BoolType():
            return "boolean"
        case inspect.StrType():
            return "non-empty string" if kind.min_length else "string"
        case inspect.LiteralType():
            return "one of " + ", ".join(map(str, kind.values))
        case inspect.VarTupleType():
            return f"list of {_words(kind.item_type)}s"
        case inspect.IntType() | inspect.FloatType():
            noun = "integer" if isinstance(kind, inspect.IntType) else "number"
            low = f"at least {kind.ge}" if kind.ge is not None else f"more than {kind.gt}"
            if kind.le is None:
                return f"{noun} of {low}"
            return (
                f"{noun} from {kind.ge} to {kind.le}" if kind.ge is not None else f"{noun} of {low}, at most {kind.le}"
            )
    raise TypeError(f"no words for a setting of {kind}")


def _a(words: str) -> str:
    return words if words.startswith("one of") else f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _got(value: object) -> str:
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
                _got(v) if not isinstance(v, list | tuple) else "a list"
                for v in value
                if not v or not isinstance(v, str)
            ]
            return f"a list that holds {odd[0]}" if odd else "a list"
        case dict():
            return "a mapping"
    return _a(type(value).__name__)


def _shown(key: object) -> str:
    text = str(key)[:60]
    return text if text.isprintable() else ascii(text)


def _hint(name: str, names: Collection[str], exact: Sequence[str] = ()) -> str:
    close = exact or difflib.get_close_matches(name, names, n=1)
    return f"; did you mean '{close[0]}'?" if close else ""
