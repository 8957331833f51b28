"""Configuration files as the tests of the settings write them, and what is said about a mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.settings import Settings, SettingsError, fields, load

ALL = {setting.name: setting for setting in fields()}


def write(path: Path, text: str) -> str:
    file = path / "api.yaml"
    file.write_text(text, encoding="utf-8")
    return str(file)


def api(path: Path, text: str) -> str:
    """A file with `text` as its deployment.api section."""
    return write(path, "deployment:\n  api:\n" + "".join(f"    {line}\n" for line in text.splitlines()))


def value_of(settings: Settings, name: str) -> object:
    found: Any = settings
    for part in name.split("."):
        found = getattr(found, part)
    return found


def refusal(*args: Any, **kwargs: Any) -> str:
    kwargs.setdefault("environ", {})
    with pytest.raises(SettingsError) as caught:
        load(*args, **kwargs)
    assert isinstance(caught.value, FinPyfuncError)
    message = str(caught.value)
    assert "\n" not in message
    return message
