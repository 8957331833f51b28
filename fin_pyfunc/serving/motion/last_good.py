"""Which version of the default model answered last, in whichever worker: for one that starts when the next is bad."""

from __future__ import annotations

from msgspec.structs import replace

from fin_pyfunc.serving.motion import state
from fin_pyfunc.serving.motion.board import Board


class LastGood:
    """What the workers of a server tell each other of the version that answers.

    Parameters
    ----------
    board : Board
    """

    def __init__(self, board: Board) -> None:
        self._board = board

    def of(self, uri: str) -> str | None:
        """The id of what answered last for a default model's URI, or None."""
        return state.read(self._board).good.get(uri)

    def note(self, uri: str, model_id: str) -> None:
        """Say what answers now."""
        state.change(self._board, lambda now: replace(now, good={uri: model_id}))
