"""docs/operations.md names every member of a record, every setting of it and every command that reads it."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from fin_pyfunc.serving.record.chain import Start
from fin_pyfunc.serving.record.reading import Answer, Process, Record
from fin_pyfunc.serving.settings import fields
from fin_pyfunc_cli.record import record

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
SECTION = re.search(r"^## The record\n(.*?)^## ", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def words() -> str:
    assert SECTION is not None
    return SECTION[1]


def test_every_member_of_a_record_is_named() -> None:
    for kind in (Record, Process, Answer, Start):
        for name in msgspec.structs.fields(kind):
            assert f"`{name.name}`" in words() or name.name == "segment", name.name


def test_every_setting_of_the_record_is_named() -> None:
    for setting in fields():
        if setting.name.startswith("record."):
            assert f"`{setting.name}`" in words(), setting.name


def test_every_command_and_option_is_named() -> None:
    for name, command in record.commands.items():
        assert f"`fin-pyfunc record {name}" in words(), name
        for option in command.params:
            if option.name in ("heads", "row", "features", "key_file", "target"):
                assert option.opts[0] in words(), option.opts
