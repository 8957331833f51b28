"""The folder that all processes of one server keep their numbers in, read as one."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

#: The process id under which what ended workers counted is kept: none has it.
ENDED = 0
_LOCK = "lock"


def make() -> Path:
    """A new private folder; whoever makes it removes it."""
    return Path(tempfile.mkdtemp(prefix="fin_pyfunc-metrics-"))  # 0700


def remove(folder: Path) -> None:
    """Remove the folder and all that was counted."""
    shutil.rmtree(folder, ignore_errors=True)


def expose(folder: Path, accept: str) -> tuple[bytes, str]:
    """Everything that was counted by all processes, as one.

    Parameters
    ----------
    folder : Path
    accept : str
        The request's header, by which the format is chosen.

    Returns
    -------
    bytes, str
        The body and its content type.
    """
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))
    encode, content_type = choose_encoder(accept)
    with _locked(folder, fcntl.LOCK_SH):  # else the numbers of a worker that has just ended could be seen twice
        return encode(registry), content_type


def bury(folder: Path, pid: int) -> None:
    """Add what an ended process counted to what all ended ones did, so that files do not pile up; its gauges go."""
    with _locked(folder, fcntl.LOCK_EX):
        mark_process_dead(pid, str(folder))
        for kind in ("counter", "histogram"):
            file = folder / f"{kind}_{pid}.db"
            if not file.exists():
                continue
            ended = MmapedDict(str(folder / f"{kind}_{ENDED}.db"))
            with contextlib.suppress(RuntimeError):  # torn by the kill: what can be read of it counts
                for key, value, _, _ in MmapedDict.read_all_values_from_file(str(file)):
                    ended.write_value(key, ended.read_value(key)[0] + value, 0.0)
            ended.close()
            file.unlink()


@contextlib.contextmanager
def _locked(folder: Path, how: int) -> Iterator[None]:
    with (folder / _LOCK).open("a") as file:
        fcntl.flock(file, how)
        yield
