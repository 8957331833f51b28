"""What an installation holds: every package there is, which an editable one would find anyway."""

from __future__ import annotations

from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_installed() -> None:
    settings = ConfigParser()
    settings.read(ROOT / "setup.cfg")
    installed = settings["options"]["packages"].split()
    found = {".".join(file.parent.relative_to(ROOT).parts) for file in (ROOT / "fin_pyfunc").rglob("__init__.py")}
    assert sorted({*found, "fin_pyfunc_cli"}) == sorted(installed)
