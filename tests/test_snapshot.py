"""Private copies of model files: what they hold, what they are known by, and what is refused instead of followed."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fin_pyfunc.model.errors import ArtifactError, ModelForbiddenError
from fin_pyfunc.serving.snapshot import MAX_FILES, check_size, copy, describe, digest

SECRET = b"the secret of this server " * 40
is_root = os.geteuid() == 0 if hasattr(os, "geteuid") else False


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "roots" / "model"
    (folder / "data" / "deep").mkdir(parents=True)
    (folder / "MLmodel").write_text("flavors: {}\n")
    (folder / "empty").touch()
    (folder / "data" / "model.bin").write_bytes(os.urandom(3 << 20))  # more than is read at once
    (folder / "data" / "deep" / "last").write_bytes(b"x")
    return folder


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "outside" / "secret"
    file.parent.mkdir()
    file.write_bytes(SECRET)
    return file


def copied_files(target: Path) -> dict[str, bytes]:
    return {p.relative_to(target).as_posix(): p.read_bytes() for p in target.rglob("*") if p.is_file()}


# --- what a copy is


def test_a_copy_holds_the_same_files_and_is_known_by_the_same_digest(model: Path, tmp_path: Path) -> None:
    snapshot = copy(model, tmp_path / "copy")
    assert copied_files(snapshot.path) == copied_files(model)
    assert snapshot.is_folder
    assert snapshot.digest == digest(model) == describe(model).digest == describe(snapshot.path).digest
    assert snapshot.size == sum(map(len, copied_files(model).values()))
    for name, content in copied_files(model).items():
        assert snapshot.files[name].sha256 == hashlib.sha256(content).hexdigest()
        assert snapshot.files[name].size == len(content)


def test_a_bare_file_is_known_by_its_own_sha256(model: Path, tmp_path: Path) -> None:
    file = model / "data" / "model.bin"
    snapshot = copy(file, tmp_path / "copy.bin")
    assert (list(snapshot.files), snapshot.is_folder) == (["model.bin"], False)
    assert snapshot.path.read_bytes() == file.read_bytes()
    assert snapshot.digest == digest(file) == describe(file).digest
    assert snapshot.digest == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"


@pytest.mark.parametrize("change", ["content", "name", "moved between", "another"])
def test_the_digest_is_of_names_and_contents(model: Path, change: str) -> None:
    before = digest(model)
    match change:
        case "content":
            (model / "empty").write_bytes(b"\0")
        case "name":
            (model / "empty").rename(model / "Empty")
        case "moved between":
            (model / "data" / "deep" / "last").rename(model / "data" / "last")
        case "another":
            (model / "code").mkdir()
            (model / "code" / "__init__.py").touch()
    assert digest(model) != before


def test_a_copy_is_its_owners_alone(model: Path, tmp_path: Path) -> None:
    for path in model.rglob("*"):
        path.chmod(0o777)
    snapshot = copy(model, tmp_path / "copy")
    modes = {path.stat().st_mode & 0o777 for path in [snapshot.path, *snapshot.path.rglob("*")]}
    assert modes == {0o700, 0o600}


@pytest.mark.parametrize(
    "name",
    [b"caf\xc3\xa9", b"not-utf8-\xff\xfe", b"new\nline", b"tab\t", b"back\\slash", b"...", b" ", b"-rf", b"a" * 255,
     "ﬁle‮txt.exe".encode(), b"%2e%2e", b"c:d", b"nul\x01"],
)  # fmt: skip
def test_any_name_that_a_file_can_have_is_copied_as_it_is(model: Path, name: bytes, tmp_path: Path) -> None:
    (model / os.fsdecode(name)).write_bytes(b"odd")
    snapshot = copy(model, tmp_path / "copy")
    assert snapshot.digest == digest(model)
    assert snapshot.files[os.fsdecode(name)].size == 3
    assert (snapshot.path / os.fsdecode(name)).read_bytes() == b"odd"


def test_a_file_that_cannot_be_read_is_an_error_in_words(model: Path, tmp_path: Path) -> None:
    if is_root:
        pytest.skip("root reads every file")
    (model / "empty").chmod(0)
    for call in (lambda: copy(model, tmp_path / "copy"), lambda: describe(model)):
        with pytest.raises(ArtifactError, match=r"cannot be read \(Permission denied\)"):
            call()


@pytest.mark.parametrize("call", [lambda path, to: copy(path, to), lambda path, to: describe(path)])
def test_what_is_not_there_is_an_error_in_words(call: Callable[[Path, Path], object], tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be read"):
        call(tmp_path / "nobody", tmp_path / "copy")


# --- links


def test_a_link_below_a_root_is_copied_as_what_it_leads_to(model: Path, tmp_path: Path) -> None:
    other = model.parent / "other"
    other.write_bytes(b"another model's file")
    (model / "linked").symlink_to(other)
    (model / "own").symlink_to("data/deep/last")
    (model / "twice").symlink_to(model / "linked")
    snapshot = copy(model, tmp_path / "copy", roots=[model.parent])
    assert not any(path.is_symlink() for path in snapshot.path.rglob("*"))
    assert (snapshot.path / "linked").read_bytes() == (snapshot.path / "twice").read_bytes() == b"another model's file"
    assert (snapshot.path / "own").read_bytes() == b"x"
    assert snapshot.digest == digest(model, [model.parent])


@pytest.mark.parametrize("leads", ["absolute", "relative", "through another", "to /proc/self", "dangling", "to itself"])
def test_a_link_out_of_the_roots_is_refused(model: Path, secret: Path, tmp_path: Path, leads: str) -> None:
    link = model / "data" / "link"
    match leads:
        case "absolute":
            link.symlink_to(secret)
        case "relative":
            link.symlink_to("../../../outside/secret")
        case "through another":
            (model / "step").symlink_to(secret)
            link.symlink_to("../step")
        case "to /proc/self":
            link.symlink_to("/proc/self/environ")
        case "dangling":
            link.symlink_to(model / "nobody")
        case "to itself":
            link.symlink_to(link)
    for refused in (
        lambda: copy(model, tmp_path / "copy", roots=[model.parent]),
        lambda: digest(model, [model.parent]),
    ):
        with pytest.raises(ModelForbiddenError, match="leads elsewhere"):
            refused()
    with pytest.raises(ModelForbiddenError, match="leads elsewhere"):
        describe(model)
    assert SECRET not in b"".join(copied_files(tmp_path / "copy").values())


def test_without_roots_a_link_leads_anywhere_but_not_nowhere(model: Path, secret: Path, tmp_path: Path) -> None:
    (model / "link").symlink_to(secret)  # the operator's own model
    assert (copy(model, tmp_path / "copy").path / "link").read_bytes() == SECRET
    (model / "dangling").symlink_to("nobody")
    with pytest.raises(ModelForbiddenError, match="leads elsewhere"):
        copy(model, tmp_path / "copy2")


@pytest.mark.parametrize("leads", ["outside", "inside", "to itself", "above"])
def test_a_linked_folder_is_refused(model: Path, secret: Path, tmp_path: Path, leads: str) -> None:
    targets = {"outside": secret.parent, "inside": model / "data", "to itself": model, "above": model.parent}
    (model / "data" / "more").symlink_to(targets[leads])
    for call in (lambda: copy(model, tmp_path / "copy"), lambda: digest(model), lambda: check_size(model, 1 << 30)):
        with pytest.raises(ModelForbiddenError, match="a link to a folder"):
            call()


def test_a_folder_that_became_a_link_after_it_was_resolved_leads_nowhere(model: Path, secret: Path) -> None:
    resolved = model.resolve()
    model.rename(model.with_name("away"))
    model.symlink_to(secret.parent)
    with pytest.raises(ModelForbiddenError, match="leads elsewhere"):
        copy(resolved, secret.parents[1] / "copy", roots=[model.parent])


# --- what is no file


@contextmanager
def odd(kind: str, at: Path) -> Iterator[None]:
    if kind == "pipe":
        os.mkfifo(at)
        yield
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listening:
            here = Path.cwd()
            os.chdir(at.parent)  # a socket's path has at most 107 bytes
            try:
                listening.bind(at.name)
            finally:
                os.chdir(here)
            yield
    else:
        at.symlink_to(kind)
        yield


@pytest.mark.parametrize("kind", ["pipe", "socket", "/dev/zero", "/dev/null", "/dev/tty"])
@pytest.mark.parametrize("roots", [None, "below"])
def test_what_is_no_file_is_refused_and_not_waited_for(
    model: Path, kind: str, roots: str | None, tmp_path: Path
) -> None:
    below = None if roots is None else [model.parent]
    with odd(kind, model / "odd"):
        for at in (model, model / "odd"):
            with pytest.raises((ModelForbiddenError, ArtifactError)):
                copy(at, tmp_path / f"copy-{at.name}", roots=below)
            with pytest.raises((ModelForbiddenError, OSError)):
                digest(at, below)


def test_a_link_to_a_pipe_does_not_wake_who_waits_at_it(model: Path, secret: Path, tmp_path: Path) -> None:
    pipe = secret.with_name("pipe")
    os.mkfifo(pipe)
    (model / "link").symlink_to(pipe)
    opened = threading.Event()

    def write() -> None:
        os.close(os.open(pipe, os.O_WRONLY))  # waits until somebody opens the other end
        opened.set()

    waiting = threading.Thread(target=write, daemon=True)
    waiting.start()
    with pytest.raises(ModelForbiddenError):
        copy(model, tmp_path / "copy", roots=[model.parent])
    assert not opened.wait(0.2)
    os.close(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK))
    waiting.join(5)


# --- bounds


def test_a_copy_has_at_most_max_bytes(model: Path, tmp_path: Path) -> None:
    size = digest_size(model)
    copy(model, tmp_path / "fits", max_bytes=size)
    check_size(model, size)
    for call in (lambda: copy(model, tmp_path / "larger", max_bytes=size - 1), lambda: check_size(model, size - 1)):
        with pytest.raises(ModelForbiddenError, match=f"max_bytes, {size - 1} bytes"):
            call()
    assert digest_size(tmp_path / "larger") < size


def digest_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("of", ["files", "folders"])
def test_a_model_has_at_most_so_many_files_and_folders(tmp_path: Path, of: str) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    for i in range(MAX_FILES):
        (folder / f"{i}").touch() if of == "files" else (folder / f"{i}").mkdir()
    copy(folder, tmp_path / "fits")
    (folder / "last").mkdir()
    for call in (lambda: copy(folder, tmp_path / "too-many"), lambda: digest(folder), lambda: check_size(folder, 9)):
        with pytest.raises(ModelForbiddenError, match=f"{MAX_FILES} files and folders"):
            call()


def test_a_file_that_grows_while_it_is_copied_ends_at_max_bytes(model: Path, tmp_path: Path) -> None:
    growing, limit, stop = model / "data" / "growing", 24 << 20, threading.Event()
    growing.touch()

    def grow() -> None:
        with growing.open("ab") as file:
            while not stop.is_set() and file.tell() < 20 * limit:
                file.write(bytes(4 << 20))
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        while growing.stat().st_size < 1 << 20:
            pass
        for attempt in itertools.count():  # one may come to the file's end before it has grown
            try:
                copy(model, tmp_path / f"copy-{attempt}", max_bytes=limit)
            except ModelForbiddenError:
                break
            assert digest_size(tmp_path / f"copy-{attempt}") <= limit
            shutil.rmtree(tmp_path / f"copy-{attempt}")
    finally:
        stop.set()
        writer.join()
    assert digest_size(tmp_path / f"copy-{attempt}") <= limit


# --- what is exchanged meanwhile

#: Exchanges a file or folder for a link and back, as fast as it can.
SWAP = """
import os, sys
victim, link, kept, target = sys.argv[1:]
print("begins", flush=True)
while True:
    os.symlink(target, link)
    os.rename(victim, kept)
    os.rename(link, victim)
    os.rename(victim, link)
    os.rename(kept, victim)
    os.unlink(link)
"""


@pytest.mark.parametrize("way", ["a file for a link", "its folder for a link", "a bare file for a link"])
def test_what_is_exchanged_while_it_is_copied_never_brings_a_secret_along(
    model: Path, secret: Path, tmp_path: Path, way: str
) -> None:
    (model / "data" / "model.bin").unlink()
    victim = model / "data" if way.startswith("its folder") else model / "data" / "secret"
    (model / "data" / "secret").write_bytes(b"honest " * 150)
    source = victim if way.startswith("a bare") else model
    leads_to = secret.parent if victim.is_dir() else secret
    arguments = map(str, (victim, model.parent / "link", model.parent / "kept", leads_to))
    swapping = subprocess.Popen([sys.executable, "-I", "-c", SWAP, *arguments], stdout=subprocess.PIPE)
    outcomes: Counter[str] = Counter()
    try:
        assert swapping.stdout is not None
        assert swapping.stdout.readline() == b"begins\n"
        deadline = time.monotonic() + 60
        for i in itertools.count():
            if (i >= 1_000 and len(outcomes) > 1) or time.monotonic() > deadline:
                break
            target = tmp_path / f"copy{i}"
            try:
                snapshot = copy(source, target, roots=[model.parent])
                outcomes["copied"] += 1
                assert snapshot.digest == describe(target).digest
            except (ModelForbiddenError, ArtifactError):
                outcomes["refused"] += 1
            content = [target.read_bytes()] if target.is_file() else copied_files(target).values()
            assert not any(SECRET[:30] in each for each in content)
    finally:
        swapping.kill()
        swapping.communicate()
    assert outcomes["copied"], outcomes
    assert outcomes["refused"], "the exchange was never caught half way"
