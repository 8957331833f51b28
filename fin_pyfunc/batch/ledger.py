"""The record in an output folder: which model scored which files, so that a run that was killed can go on.

A run goes on only with the same model, backend and inputs; anything else would mix predictions of two models.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fin_pyfunc.batch.parts import Input
from fin_pyfunc.batch.tables import FileError, whole_or_nothing

NAME = "_fin_pyfunc.json"
#: As Hadoop's committers and Spark name it.
DONE = "_SUCCESS"


@dataclass(frozen=True)
class Ledger:
    """What a run scores, with what.

    Parameters
    ----------
    model_id : str
        The immutable model.
    run_id : str or None
        The MLflow run that logged it.
    files : dict of str to str
        SHA-256 of the model's files, by name; none for a model of MLflow's alone.
    backend : str
        What computes: every answer comes from this one, so that all have the same bytes.
    return_proba : bool
    engine : str
        ``local`` or ``spark``.
    part_rows : int
    inputs : sequence of Input
    version : str
        Of fin_pyfunc.
    """

    model_id: str
    run_id: str | None
    files: dict[str, str]
    backend: str
    return_proba: bool
    engine: str
    part_rows: int
    inputs: Sequence[Input]
    version: str

    def begin(self, folder: Path) -> bool:
        """Make the folder's record, or find that it is this one.

        Returns
        -------
        bool
            Whether there is nothing left to do.

        Raises
        ------
        FileError
            The folder holds something else, or what another run began.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                self._enter(folder)
                return False
        except OSError as e:
            raise FileError(f"{folder} cannot be written ({(e.strerror or str(e)).lower()}).") from e
        if not (folder / NAME).is_file():
            raise FileError(f"{folder} holds something that fin-pyfunc score did not write: name an empty folder.")
        try:
            begun = json.loads((folder / NAME).read_text(encoding="utf-8"))
        except ValueError as e:
            raise FileError(f"The record {folder / NAME} is damaged: score into another folder.") from e
        own = self._described()
        differing = [name for name in own if begun.get(name) != own[name]]
        if differing and not any(folder.rglob("*.parquet")) and not (folder / DONE).exists():
            self._enter(folder)  # nothing to mix with yet
        elif differing:
            raise FileError(
                f"{folder} was begun with other {_words(differing)}, and predictions are not mixed: give what it was "
                f"begun with (see {NAME} there), or score into another folder."
            )
        return (folder / DONE).exists()

    def end(self, folder: Path) -> None:
        """Say that all is there."""
        _write(folder / DONE, f"{_now()}\n")

    def _enter(self, folder: Path) -> None:
        _write(folder / NAME, json.dumps({**self._described(), "begun": _now()}, indent=1))

    def _described(self) -> dict[str, Any]:
        return {**asdict(self), "inputs": [known._asdict() for known in self.inputs]}


def _write(path: Path, text: str) -> None:
    with whole_or_nothing(path) as part:
        part.write_text(text, encoding="utf-8")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _words(names: Sequence[str]) -> str:
    shown = [name.replace("_", " ") for name in names]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
