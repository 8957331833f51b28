"""A model's requirements.txt is read as text: nothing that it names is opened, and nothing is imported."""

from __future__ import annotations

import codecs
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packaging.requirements import Requirement as Packaged
from sklearn.linear_model import LogisticRegression

from fin_pyfunc.host.opening import Opening
from fin_pyfunc.inspection import inspect
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.requirements_file import MAX_LINES, parse, parse_plain, text_of
from fin_pyfunc.serving.hosts.connection import Limits
from fin_pyfunc.serving.hosts.hosts import Hosts
from tests import models

SHA = "sha256:" + "0f" * 32

PLAIN = {
    "scikit-learn==1.6.1": "scikit-learn==1.6.1",
    "Scikit_Learn == 1.6.1": "scikit-learn==1.6.1",
    "mlflow[extras, Gateway] >=2,<3": "mlflow[Gateway,extras]<3,>=2",
    "torch==2.7.1+cu128": "torch==2.7.1+cu128",
    "numpy==2.2.6 ; python_full_version < '3.11'": 'numpy==2.2.6; python_full_version < "3.11"',
    "pandas (>=2)": "pandas>=2",
    "xgboost~=2.0  # as trained": "xgboost~=2.0",
    f"lightgbm==4.3.0 \\\n    --hash={SHA} \\\n    --hash={SHA}": f"lightgbm==4.3.0 --hash={SHA}",
    "six==1.*": "six==1.*",
}

REFUSED = {
    "-r other.txt": "an option",
    "-r/dev/zero": "an option",
    "--requirement=other.txt": "an option",
    "-c constraints.txt": "an option",
    "-e .": "an option",
    "-f https://example.com/wheels": "an option",
    "--find-links /tmp": "an option",
    "--find-links code/../..": "an option",
    "--find-links ./code": "an option",
    "--index-url https://user:secret@example.com/simple": "an option",
    "--extra-index-url https://example.com/simple": "an option",
    "--trusted-host example.com": "an option",
    "--pre": "an option",
    "--no-binary :all:": "an option",
    "--require-hashes": "an option",
    "six==1.16.0 --global-option=build": "an option",
    "six==1.16.0 --hash=md5:0123": "an option",
    "six==1.16.0 --hash=sha256:0123": "an option",
    "six -r other.txt": "an option",
    "six \\\n-r other.txt": "an option",
    "six @ https://example.com/six.whl": "a path or a URL",
    "six@file:///tmp/six.whl": "a path or a URL",
    "git+https://example.com/six.git@main": "a path or a URL",
    "https://example.com/six.whl": "a path or a URL",
    "file:six.whl": "a path or a URL",
    "./six.whl": "a path or a URL",
    "wheels/six.whl": "a path or a URL",
    "../six": "a path or a URL",
    "six.whl": "a path or a URL",
    "six-1.16.0.tar.gz": "a path or a URL",
    "six==${VERSION}": "an environment variable",
    "six ; os_name == '${HOME}'": "an environment variable",
    "six===1.16.0": "===",
    "six===../../x": "===",
    "s\u0456x==1": "no requirement",
    "six==1\\2": "no requirement",
    "six==1\x00": "no requirement",
    "six six": "no requirement",
    "six ;" + "(" * 5000: "no requirement",
    "=1": "no requirement",
    "six" + " " * 20_000 + "==1": "longer than",
}


@pytest.mark.parametrize("line", PLAIN)
def test_a_plain_requirement_is_read_into_its_canonical_form(line: str) -> None:
    (requirement,) = parse(line.encode())
    assert requirement.text == PLAIN[line]
    assert parse(requirement.text.encode()) == [requirement]


@pytest.mark.parametrize("line", REFUSED)
def test_whatever_would_have_to_be_followed_is_refused_by_line_and_not_by_value(line: str) -> None:
    with pytest.raises(ArtifactError) as e:
        parse(f"# a comment\nnumpy\n\n{line}\npandas".encode())
    assert str(e.value).startswith("Line 4 of the model's requirements.txt ")
    assert REFUSED[line] in str(e.value)
    assert line not in str(e.value)
    assert "secret" not in str(e.value)


@pytest.mark.parametrize("line", REFUSED)
def test_what_is_refused_is_passed_over_where_plain_lines_are_enough(line: str) -> None:
    assert [each.name for each in parse_plain(f"numpy\n{line}\npandas".encode())] == ["numpy", "pandas"]


@pytest.mark.parametrize(
    "content",
    [
        b"numpy==1\r\npandas==2\r\n",
        codecs.BOM_UTF8 + b"numpy==1\npandas==2",
        codecs.BOM_UTF16_LE + "numpy==1\r\npandas==2\r\n".encode("utf-16-le"),
        codecs.BOM_UTF16_BE + "numpy==1\r\npandas==2\r\n".encode("utf-16-be"),
        codecs.BOM_UTF32_LE + "numpy==1\npandas==2".encode("utf-32-le"),
        b"numpy==1\rpandas==2",
        b"  numpy==1 \n\t\n# pandas==1 \\\npandas\\\n==2\\",
        b"--find-links code\nnumpy==1\npandas==2",
    ],
)
def test_files_of_windows_and_of_pip_compile_are_read(content: bytes) -> None:
    assert [(each.name, each.version) for each in parse(content)] == [("numpy", "1"), ("pandas", "2")]


def test_markers_and_repeated_names_of_uv_export_are_kept() -> None:
    lines = ['numpy==2.2.6; python_full_version < "3.11"', 'numpy==2.4.3; python_full_version >= "3.11"']
    assert text_of(parse("\n".join(lines).encode())).splitlines() == lines


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"six\n" * (MAX_LINES + 1), "lines"),
        (b"#" * (3 << 20), "larger than"),
        (b"six==\xff", "not text"),
        (codecs.BOM_UTF16_LE + b"\x00", "not text"),
    ],
)
def test_a_file_that_is_no_text_or_too_large_is_refused(content: bytes, why: str) -> None:
    with pytest.raises(ArtifactError, match=why):
        parse(content)
    assert parse_plain(content) == []


OPENED: list[Any] = []
HOOKED: list[bool] = []


def _watch_opened_files() -> None:
    """Audit hooks stay for good, so there is one, and it notes only while the list of flags is not empty."""

    def note(event: str, arguments: tuple[Any, ...]) -> None:
        if HOOKED and (event in ("open", "import", "exec") or event.startswith(("os.", "socket.", "subprocess."))):
            OPENED.append((event, arguments[0] if arguments else None))

    sys.addaudithook(note)


_watch_opened_files()

FRAGMENTS = st.sampled_from(
    ["-r ", "-c ", "--hash=", SHA, "@", "/etc/passwd", "/dev/zero", "file://", "http://127.0.0.1:1/", "${HOME}", "\\\n",
     "\n", "\r", "\x0c", "#", " ", ";", "==", "1.0", "six", "numpy", "[x]", "python_version < '3'", "(", "'", ".whl",
     "--find-links code", "-e ", "\u2028", "\ufeff", "é"]
)  # fmt: skip
CONTENT = st.one_of(
    st.binary(max_size=300),
    st.text(max_size=200).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.lists(FRAGMENTS, max_size=25).map(lambda parts: "".join(parts).encode()),
    st.lists(FRAGMENTS, max_size=25).map(lambda parts: codecs.BOM_UTF16_LE + "".join(parts).encode("utf-16-le")),
)


@settings(max_examples=1500)
@given(CONTENT)
@example(b"six\\\n-r /dev/zero")
@example(b"six_")
def test_reading_opens_nothing_and_raises_one_error(content: bytes) -> None:
    OPENED.clear()
    HOOKED.append(True)
    try:
        plain = parse_plain(content)
        try:
            strict = parse(content)
        except ArtifactError:
            strict = None
    finally:
        HOOKED.clear()
    assert OPENED == []
    assert strict is None or strict == plain
    for requirement in plain:
        text, *hashes = requirement.text.split(" --hash=")
        parsed = Packaged(text)
        assert parsed.url is None
        assert parsed.name == requirement.name
        assert all(digest.startswith("sha") for digest in hashes)
    assert parse(text_of(plain).encode()) == plain


@settings(max_examples=300)
@given(content=CONTENT)
def test_mlflow_follows_nothing_in_what_is_written_of_it(content: bytes, tmp_path_factory: Any) -> None:
    from mlflow.utils.requirements_utils import _parse_requirements

    file = tmp_path_factory.getbasetemp() / "sanitised.txt"
    plain = parse_plain(content)
    file.write_text(text_of(plain))
    OPENED.clear()
    HOOKED.append(True)
    try:
        lines = [requirement.req_str for requirement in _parse_requirements(str(file), is_constraint=False)]
    finally:
        HOOKED.clear()
    assert [path for event, path in OPENED if event == "open"] == [str(file)]
    assert lines == [each.text for each in plain]


@pytest.fixture(scope="module")
def sklearn_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("followed") / "model"
    estimator = models.fit(LogisticRegression(), models.bars(), models.labels("down", "up")).estimator
    mlflow.sklearn.save_model(estimator, str(path), pip_requirements=["scikit-learn==1.6.1"])
    return path


def test_a_followed_file_is_not_read_when_mlflow_loads_what_was_written_of_it(sklearn_model: Path) -> None:
    file, kept = sklearn_model / "requirements.txt", (sklearn_model / "requirements.txt").read_bytes()
    program = (
        "import sys, mlflow.pyfunc\n"
        "sys.addaudithook(lambda event, arguments: print(arguments[0]) if event == 'open' else None)\n"
        "mlflow.pyfunc.load_model(sys.argv[1])\n"
    )
    secret = sklearn_model.parent / "secret.txt"
    secret.write_text("a-secret==1\n")
    hostile = kept + f"\n-r {secret}\n-c {secret}\n".encode()

    def opened(content: bytes) -> tuple[bool, str]:
        file.write_bytes(content)
        done = subprocess.run(
            [sys.executable, "-c", program, str(sklearn_model)], capture_output=True, text=True, env=os.environ
        )
        assert done.returncode == 0, done.stderr
        return str(secret) in done.stdout, done.stderr

    try:
        was_read, said = opened(hostile)
        assert was_read, "MLflow no longer follows requirements: this reader may not be needed any more"
        assert "a-secret" in said
        was_read, said = opened(text_of(parse_plain(hostile)).encode())
        assert not was_read
        assert "a-secret" not in said
        assert "scikit-learn" in said  # MLflow still tells that the version is another
    finally:
        file.write_bytes(kept)


def test_a_model_host_follows_nothing(sklearn_model: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(sklearn_model, folder)
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for ever
    (folder / "requirements.txt").write_text(f"-r {tmp_path / 'pipe'}\n-c {tmp_path / 'pipe'}\n")
    hosts = Hosts(Limits(512 << 20, open_seconds=30.0, call_seconds=10.0))
    try:
        hosted = hosts.open(Opening(form="pyfunc", path=str(folder), digest=str(folder)), "models:/followed/1")
        assert hosted.backend.score(models.bars()).probabilities is not None
    finally:
        hosts.close()


def test_inspect_shows_the_versions_that_plain_lines_name(sklearn_model: Path) -> None:
    file, kept = sklearn_model / "requirements.txt", (sklearn_model / "requirements.txt").read_bytes()
    try:
        file.write_bytes(
            f"-r /dev/zero\nscikit-learn==1.6.1 \\\n  --hash={SHA}\nsix==1.16.0; os_name == 'x'\nnumpy>1\n".encode()
        )
        report = inspect(str(sklearn_model))
    finally:
        file.write_bytes(kept)
    assert {library.name: library.logged for library in report.libraries} == {
        "scikit-learn": "1.6.1", "six": "1.16.0"
    }  # fmt: skip
