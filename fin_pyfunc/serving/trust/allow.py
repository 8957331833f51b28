"""Which URIs a client may send, as the operator's patterns say."""

from __future__ import annotations

from collections.abc import Sequence

from fin_pyfunc.model.errors import ModelForbiddenError
from fin_pyfunc.serving.patterns import allows
from fin_pyfunc.serving.uris import ModelUri

#: Every model of the store.
EVERY = ("runs:/*", "models:/*")

_REFUSED = (
    "This server does not load the model asked for: its operator allows others ('deployment.api.models.allow'); "
    "list what there is with GET /models."
)


class Allowed:
    """The URIs of runs and of the registry that may be asked for; files have roots instead.

    Parameters
    ----------
    patterns : sequence of str
        A whole URI each, in which ``*`` stands for any characters, ``/`` among them.
    """

    def __init__(self, patterns: Sequence[str] = EVERY) -> None:
        self._patterns = tuple(patterns)

    def check(self, uri: ModelUri) -> None:
        """Raise ModelForbiddenError for a URI that no pattern takes; nothing is asked of a store for this."""
        if uri.kind != "file" and not self.takes(str(uri)):
            raise ModelForbiddenError(_REFUSED)

    def takes(self, text: str) -> bool:
        """Whether a pattern takes the URI of a run or of the registry."""
        return allows(self._patterns, text)
