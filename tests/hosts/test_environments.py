"""Environments of models: what is read of them, how they are kept, and what a failure leaves behind.

Nothing here needs a package index; `test_environments_built` builds real ones.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.serving.hosts import environments
from fin_pyfunc.serving.hosts.environments import Environments, default_folder, read_spec
from fin_pyfunc.serving.settings import Settings, SettingsError
from fin_pyfunc.serving.settings.sections import Models

OWN = f"{sys.version_info[0]}.{sys.version_info[1]}"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "requirements.txt").write_text("scikit-learn==1.6.1\nno-such-distribution-of-ours==1\n")
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """uv asks no index, so that it fails at once."""
    monkeypatch.setenv("UV_OFFLINE", "1")


# what is read


@pytest.mark.parametrize(
    ("python_env", "mlmodel", "version"),
    [
        ("python: 3.12.1\n", None, "3.12"),
        ("python: '3.13'\n", None, "3.13"),
        ("python: 3.12.0rc1+\n", None, "3.12"),
        (None, "flavors: {python_function: {python_version: 3.12.7}}\n", "3.12"),
        ("build_dependencies: [pip]\n", "flavors: {python_function: {python_version: 3.12.7}}\n", "3.12"),
        (None, "flavors: {sklearn: {}}\n", OWN),
        ("[", None, OWN),
        (None, None, OWN),
    ],
)
def test_the_version_of_python_is_that_of_the_model(
    model: Path, python_env: str | None, mlmodel: str | None, version: str
) -> None:
    for name, text in (("python_env.yaml", python_env), ("MLmodel", mlmodel)):
        if text is not None:
            (model / name).write_text(text)
    assert read_spec(model).python == version


@pytest.mark.parametrize(
    "python",
    ["/tmp/evil/python", "3.12 --system", "../3.12", "pypy3.12", "3.12.1;x", "2.7.18", "[3.12]", "3.10", "311"],
)
def test_a_version_of_python_that_is_none_or_a_path_is_refused(model: Path, python: str) -> None:
    (model / "python_env.yaml").write_text(f"python: {python}\n")
    with pytest.raises(ArtifactError, match="version of Python is none"):
        read_spec(model)


def test_a_python_that_we_do_not_run_on_is_refused_with_what_to_do(model: Path) -> None:
    (model / "python_env.yaml").write_text("python: 3.9.18\n")
    with pytest.raises(ArtifactError, match=r"with Python 3\.9, and .* runs on >=3\.11: .*environment: server"):
        read_spec(model)


def test_our_own_package_is_not_taken_from_the_model(model: Path) -> None:
    (model / "requirements.txt").write_text("--find-links code\nfin_pyfunc==0.0.1\nnumpy==2\nfin.pyfunc>3\n")
    assert [each.text for each in read_spec(model).requirements] == ["numpy==2"]


def test_requirements_that_are_not_there_or_not_plain_are_refused(model: Path) -> None:
    (model / "requirements.txt").write_text("numpy\n-r /etc/passwd\n")
    with pytest.raises(ArtifactError, match="Line 2"):
        read_spec(model)
    (model / "requirements.txt").unlink()
    with pytest.raises(ArtifactError, match=r"requirements\.txt cannot be read .*environment: model"):
        read_spec(model)


def test_a_build_dependency_and_a_lock_file_of_the_model_are_not_looked_at(model: Path) -> None:
    spec = read_spec(model)
    (model / "python_env.yaml").write_text(f"python: {OWN}.1\nbuild_dependencies: ['-r /etc/passwd', evil]\n")
    (model / "uv.lock").write_text("version = 1\n")
    (model / "pyproject.toml").write_text("[tool.uv]\nindex-url = 'http://127.0.0.1:1/'\n")
    assert read_spec(model) == spec


# how they are kept


def test_the_same_requirements_are_the_same_environment_and_others_another(model: Path) -> None:
    key = environments._key(read_spec(model))
    (model / "requirements.txt").write_text("# again\nno_such_distribution-of.ours==1\r\nScikit_Learn == 1.6.1\r\n")
    assert environments._key(read_spec(model)) == key
    (model / "requirements.txt").write_text("scikit-learn==1.6.2\nno-such-distribution-of-ours==1\n")
    assert environments._key(read_spec(model)) != key


def test_the_host_s_packages_are_added_where_the_model_names_none(model: Path) -> None:
    (model / "requirements.txt").write_text("mlflow-skinny==3.1\nNumPy==2.1.0\n")
    text = environments._text(read_spec(model)).split()
    assert text == ["mlflow-skinny==3.1", "numpy==2.1.0", "msgspec", "pandas", "pyarrow"]


def test_the_folder_is_in_the_user_s_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_folder() == tmp_path / "fin_pyfunc" / "environments"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert default_folder() == tmp_path / "home" / ".cache" / "fin_pyfunc" / "environments"


def test_a_folder_that_others_may_write_to_is_refused(model: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ArtifactError, match="written to by other users"):
        Environments(shared, 60).python_of(model)
    (tmp_path / "file").touch()
    with pytest.raises(ArtifactError, match="cannot be made"):
        Environments(tmp_path / "file" / "below", 60).python_of(model)


# what a failure leaves behind


@pytest.mark.usefixtures("offline")
def test_a_failure_is_one_sentence_and_is_remembered(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "environments"
    kept = Environments(folder, 60)
    with caplog.at_level(logging.DEBUG), pytest.raises(ArtifactError, match="uv could not install") as first:
        kept.python_of(model)
    assert str(tmp_path) not in str(first.value)
    said = [record for record in caplog.records if record.name.startswith("fin_pyfunc")]
    assert [record.levelname for record in said] == ["INFO", "DEBUG", "WARNING"]
    assert "for no-such-distribution-of-ours, scikit-learn" in said[0].message
    assert "\n" not in said[2].message
    assert sorted(entry.suffix for entry in folder.iterdir()) == [".failed", ".lock"]

    caplog.clear()
    with pytest.raises(ArtifactError, match="uv could not install"):
        Environments(folder, 60).python_of(model)  # as another worker would
    assert "building" not in caplog.text
    monkeypatch.setattr(environments, "FAILURE_SECONDS", 0)
    with caplog.at_level(logging.INFO), pytest.raises(ArtifactError):
        kept.python_of(model)
    assert "building environment" in caplog.text


def test_a_build_whose_time_is_up_is_ended(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "uv"
    program.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/pid\nsleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(environments, "find_uv", lambda: str(program))
    begun = time.monotonic()
    with pytest.raises(ArtifactError, match="environment_seconds"):
        Environments(tmp_path / "environments", 1.0).python_of(model)
    assert time.monotonic() - begun < 10
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_disk_that_takes_nothing_is_said(model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "environments"
    folder.mkdir(mode=0o700)
    (folder / f"{environments._key(read_spec(model))}.lock").mkdir()  # root may write to a folder of mode 0500
    with pytest.raises(ArtifactError, match="could not be written"):
        Environments(folder, 60).python_of(model)


def test_uv_that_is_not_there_is_said(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "find_uv", lambda: None)
    with pytest.raises(ArtifactError, match=r"uv is not installed here: run pip install 'fin_pyfunc\[environments\]'"):
        Environments(tmp_path / "environments", 60).python_of(model)


def test_a_python_that_is_not_here_is_said(model: Path, tmp_path: Path) -> None:
    (model / "python_env.yaml").write_text("python: 3.99.1\n")
    with pytest.raises(ArtifactError, match=r"Python 3\.99, which uv does not find here"):
        Environments(tmp_path / "environments", 60).python_of(model)


@pytest.mark.usefixtures("offline")
def test_an_index_that_the_folders_above_name_is_not_asked(
    model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "uv.toml").write_text("this is no TOML\n")
    with caplog.at_level(logging.DEBUG), pytest.raises(ArtifactError):
        Environments(tmp_path / "environments", 60).python_of(model)
    assert "TOML" not in caplog.text
    assert "no-such-distribution-of-ours" in caplog.text


def test_one_builds_and_the_others_wait(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "uv"  # makes as much of an environment as is looked at
    program.write_text(
        f"#!/bin/sh\necho $4 >> {tmp_path}/runs\n"
        "if [ $4 = venv ]; then sleep 0.5; mkdir -p environment/bin; touch environment/bin/python; fi\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(environments, "find_uv", lambda: str(program))
    pythons: list[Path] = []
    kept = [Environments(tmp_path / "environments", 60) for _ in range(4)]
    threads = [threading.Thread(target=lambda each=each: pythons.append(each.python_of(model))) for each in kept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "runs").read_text().split() == ["venv", "pip"]
    assert len(set(pythons)) == 1
    assert len(pythons) == 4
    # a process that dies leaves the lock to the next, and one that hangs is not waited for for ever
    other = Environments(tmp_path / "environments", 0.5)
    (model / "requirements.txt").write_text("numpy\n")
    key = environments._key(read_spec(model))
    with (
        environments._locked(tmp_path / "environments" / f"{key}.lock", time.monotonic() + 9),
        pytest.raises(ArtifactError, match="still being built"),
    ):
        other.python_of(model)
    assert kept[0].python_of(model).parent.parent.name == key


def test_the_setting_needs_uv(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().models.environment == "server"
    assert Models(environment="model").environment_seconds == 900
    monkeypatch.setattr("fin_pyfunc.serving.settings.sections.find_uv", lambda: None)
    with pytest.raises(SettingsError, match=r"fin_pyfunc\[environments\]"):
        Models(environment="model")
