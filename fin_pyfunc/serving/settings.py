"""How a file, the environment and the command line become one `Settings`; `settings_sections` says what can be set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, get_args, get_type_hints

import msgspec
import msgspec.inspect as inspect

from fin_pyfunc.serving.settings_sections import (
    Admin,
    Auth,
    Cache,
    Cors,
    Limits,
    Metrics,
    Mlflow,
    Models,
    Rate,
    Record,
    Settings,
    Shadow,
    Tls,
    Tracing,
)
from fin_pyfunc.serving.settings_sources import (
    MAX_FILE_BYTES,
    SHARED_VARIABLES,
    BadValueError,
    from_environment,
    from_file,
    from_overrides,
    from_text,
)
from fin_pyfunc.serving.settings_wording import PREFIX, ROOT, Setting, SettingsError, got, with_article, words

__all__ = [
    "MAX_FILE_BYTES",
    "PREFIX",
    "ROOT",
    "SHARED_VARIABLES",
    "Admin",
    "Auth",
    "Cache",
    "Cors",
    "Limits",
    "Metrics",
    "Mlflow",
    "Models",
    "Rate",
    "Record",
    "Setting",
    "Settings",
    "SettingsError",
    "Shadow",
    "Tls",
    "Tracing",
    "fields",
    "load",
]


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
            described = words(kind.type)
            if isinstance(kind.type, inspect.LiteralType):  # msgspec sorts them; severities have an order of their own
                described = "one of " + ", ".join(get_args(get_args(hints[field.name])[0]))
            yield Setting(prefix + field.name, described, field.default, description, hints[field.name], kind.type)


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
        ``FIN_PYFUNC__…`` for any setting, ``MLFLOW_TRACKING_URI``, ``MLFLOW_EXPERIMENT_NAME`` and
        ``FIN_PYFUNC_BACKEND``; default ``os.environ``.
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
        from_overrides(overrides or {}, known, problems),
        from_environment(environ, known, problems),
        () if config is None else from_file(config, environ, known, problems, values),
    ):
        setting = known[given.name]
        try:
            value = from_text(str(given.value), setting) if given.is_text else given.value
            value = msgspec.convert(value, setting.annotation)
        except BadValueError as error:
            problems.append(f"{setting.key}: {error} (from {given.origin})")
        except msgspec.ValidationError:
            problems.append(
                f"{setting.key}: expected {with_article(setting.type)}, got {got(value)} (from {given.origin})"
            )
        else:
            values.setdefault(given.name, value)
    if problems:
        raise SettingsError(problems)
    nested: dict[str, Any] = {}
    for name, value in values.items():
        section, _, leaf = name.rpartition(".")
        (nested.setdefault(section, {}) if section else nested)[leaf] = value
    return msgspec.convert(nested, Settings)
