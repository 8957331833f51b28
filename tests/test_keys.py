"""Key files, and `fin-pyfunc keys`, which makes them."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fin_pyfunc.model.errors import FinPyfuncError
from fin_pyfunc.serving.callers.keys import Key, KeyFile, KeyFileError
from fin_pyfunc.serving.callers.principal import Scope

NAMES = st.text(alphabet="abcXYZ09 ._@-", min_size=1, max_size=20).filter(lambda s: s[0].isalnum())
SCOPES = st.sets(st.sampled_from(Scope), min_size=1)


def key_file(folder: Path) -> KeyFile:
    return KeyFile(folder / "keys.json")


def reader(folder: Path) -> KeyFile:
    """The file as a server that starts now sees it."""
    file = key_file(folder)
    file.load()
    return file


def test_a_token_is_made_of_its_keys_id_and_a_secret_and_only_its_digest_is_kept(tmp_path: Path) -> None:
    token = key_file(tmp_path).add("desk", [Scope.PREDICT])
    (key,) = key_file(tmp_path).list()
    prefix, key_id, secret = token.split("_", 2)
    assert (prefix, key_id) == ("fpk", key.id)
    assert len(secret) == 43  # 32 bytes
    kept = (tmp_path / "keys.json").read_text()
    assert secret not in kept
    assert list(json.loads(kept)["keys"][0]) == ["name", "id", "sha256", "scopes", "created"]


def test_a_key_file_is_its_owners_alone_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        key_file(tmp_path).add("a", [Scope.PREDICT])
        (tmp_path / "keys.json").chmod(0o644)
        key_file(tmp_path).add("b", [Scope.PREDICT])
    finally:
        os.umask(umask)
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["keys.json"]


def test_a_linked_key_file_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    KeyFile(tmp_path / "real" / "k.json").add("a", [Scope.PREDICT])
    (tmp_path / "keys.json").symlink_to("real/k.json")
    key_file(tmp_path).add("b", [Scope.PREDICT])
    assert (tmp_path / "keys.json").is_symlink()
    assert [key.name for key in KeyFile(tmp_path / "real" / "k.json").list()] == ["a", "b"]


@settings(max_examples=25, deadline=None)
@given(made=st.dictionaries(NAMES, SCOPES, max_size=5), data=st.data())
def test_a_token_is_known_from_when_it_is_made_until_its_key_is_revoked(
    tmp_path_factory: pytest.TempPathFactory, made: dict[str, set[Scope]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("keys")
    tokens = {name: key_file(folder).add(name, scopes) for name, scopes in made.items()}
    gone = set(data.draw(st.lists(st.sampled_from(sorted(made)), unique=True))) if made else set()
    for name in gone:
        by = name if data.draw(st.booleans()) else next(k.id for k in key_file(folder).list() if k.name == name)
        assert key_file(folder).revoke(by).name == name
    if not made:
        return
    known = reader(folder)
    for name, token in tokens.items():
        key = known.verify(token)
        assert (key is None) == (name in gone)
        assert key is None or (key.name, set(key.scopes)) == (name, made[name])
    assert [key.name for key in key_file(folder).list()] == [name for name in made if name not in gone]


@pytest.fixture(scope="module")
def one_key(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyFile, str]:
    folder = tmp_path_factory.mktemp("one-key")
    token = key_file(folder).add("desk", [Scope.PREDICT])
    return reader(folder), token


@given(data=st.data())
def test_a_token_with_any_other_character_is_not_known(one_key: tuple[KeyFile, str], data: st.DataObject) -> None:
    known, token = one_key
    assert known.verify(token) is not None
    place = data.draw(st.integers(0, len(token)))
    length = data.draw(st.integers(0, 2))
    changed = token[:place] + data.draw(st.text(max_size=2)) + token[place + length :]
    assert changed == token or known.verify(changed) is None


@given(text=st.text(max_size=80))
def test_no_text_but_a_token_is_known(one_key: tuple[KeyFile, str], text: str) -> None:
    assert one_key[0].verify(text) is None


@given(content=st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_any_other_file_is_damaged_and_the_sentence_that_says_so_shows_none_of_it(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    file = tmp_path_factory.getbasetemp() / "any-keys.json"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(KeyFileError) as caught:
        KeyFile(file).load()
    assert isinstance(caught.value, FinPyfuncError)
    assert str(caught.value).startswith(f"The key file {file} is damaged")
    assert "\n" not in str(caught.value)


RECORD = {
    "name": "desk",
    "id": "0123456789ab",
    "sha256": "0" * 64,
    "scopes": ["predict"],
    "created": "2026-01-01T00:00:00Z",
}


def test_a_record_that_is_as_it_should_be_is_read(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [RECORD]}))
    (key,) = key_file(tmp_path).list()
    assert isinstance(key, Key)
    assert key.scopes == (Scope.PREDICT,)


@pytest.mark.parametrize(
    ("records", "where"),
    [
        ([RECORD | {"id": "x"}], "at $.keys[0].id:"),
        ([RECORD | {"id": "0123456789ab\n"}], "at $.keys[0].id:"),
        ([RECORD | {"sha256": "secret-looking"}], "at $.keys[0].sha256:"),
        ([RECORD | {"scopes": ["predict", "everything"]}], "at $.keys[0].scopes[1]:"),
        ([RECORD | {"scopes": []}], "at $.keys[0].scopes:"),
        ([RECORD | {"created": "yesterday"}], "at $.keys[0].created:"),
        ([RECORD | {"models": ["https://elsewhere/*"]}], "at $.keys[0].models[0]:"),
        ([RECORD | {"hours": "9-17"}], "at $.keys[0]:"),
        ([RECORD, RECORD], "damaged:"),
        ([RECORD, RECORD | {"name": "other"}], "damaged:"),
        ([RECORD, RECORD | {"name": RECORD["id"], "id": "ffffffffffff"}], "damaged:"),
    ],
)
def test_a_wrong_record_damages_the_file_and_its_place_is_named(
    tmp_path: Path, records: list[dict[str, object]], where: str
) -> None:
    (tmp_path / "keys.json").write_text(json.dumps({"keys": records}))
    with pytest.raises(KeyFileError) as caught:
        key_file(tmp_path).load()
    assert where in str(caught.value)
    assert "secret-looking" not in str(caught.value)


def test_a_pipe_or_a_folder_is_no_key_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, tmp_path / "missing.json"):
        with pytest.raises(KeyFileError):
            KeyFile(path).load()


def test_what_cannot_be_added_or_revoked_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    file.add("desk", [Scope.PREDICT])
    before = (tmp_path / "keys.json").read_bytes()
    for name, scopes in (("desk", ["predict"]), (file.list()[0].id, ["predict"]), ("", ["predict"]), ("a", [])):
        with pytest.raises(KeyFileError):
            file.add(name, [Scope(scope) for scope in scopes])
    with pytest.raises(KeyFileError):
        file.add("a\nb", [Scope.PREDICT])
    with pytest.raises(KeyFileError):
        file.revoke("nobody")
    with pytest.raises(KeyFileError):
        KeyFile(tmp_path / "no" / "folder" / "keys.json").add("a", [Scope.PREDICT])
    assert (tmp_path / "keys.json").read_bytes() == before


def test_keys_that_are_made_at_once_are_all_kept(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        tokens = list(pool.map(lambda i: key_file(tmp_path).add(f"desk-{i}", [Scope.PREDICT]), range(24)))
    known = reader(tmp_path)
    assert all(known.verify(token) for token in tokens)


# --- the command ------------------------------------------------------------------------------------------------------


def keys_command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fin_pyfunc_cli", "keys", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=60)


def test_the_command_makes_lists_and_revokes_keys(tmp_path: Path) -> None:
    added = keys_command(tmp_path, "add", "desk-1", "--scope", "predict", "--scope", "models")
    token = added.stdout.strip()
    assert (added.returncode, added.stdout) == (0, f"{token}\n")
    key = reader(tmp_path).verify(token)
    assert key is not None
    assert key.scopes == (Scope.MODELS, Scope.PREDICT)

    listed = keys_command(tmp_path, "list", "--file", "keys.json").stdout
    assert listed.split("\t")[:3] == [key.id, "desk-1", "models,predict"]
    assert key.sha256 not in listed

    assert keys_command(tmp_path, "revoke", "desk-1").stdout == f"revoked desk-1 ({key.id})\n"
    again = keys_command(tmp_path, "revoke", "desk-1")
    assert again.returncode == 1
    assert again.stderr.startswith("Error: There is no key of this id or name")
    assert again.stderr.count("\n") == 1
