"""URIs that lead to nothing: remembered for a while, and asked about only so often.

A client makes up a URI for nothing, and MLflow takes milliseconds to say that there is no such model.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fin_pyfunc.model.errors import (
    ArtifactError,
    BackendError,
    FinPyfuncError,
    ModelForbiddenError,
    ModelNotFoundError,
)
from fin_pyfunc.serving.errors import RETRY_AFTER, RequestError

#: What stays true for a while: there is no such model, it may not be loaded, or it cannot be.
_LASTING = (ModelNotFoundError, ModelForbiddenError, ArtifactError, BackendError)


class Unknown:
    """What is not there, of one worker; used on its event loop alone.

    Parameters
    ----------
    seconds : float
        How long a refusal is repeated without a question to anybody.
    per_second : int
        Questions about URIs that turn out to lead to nothing, in a second.
    max_uris : int, default 10,000
        How many refusals are remembered.
    clock : callable, default `time.monotonic`
    """

    def __init__(
        self, seconds: float, per_second: int, max_uris: int = 10_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._per_second, self._max_uris, self._clock = seconds, per_second, max_uris, clock
        self._refused: OrderedDict[str, tuple[float, FinPyfuncError]] = OrderedDict()
        self._left, self._counted = float(per_second), clock()

    def check(self, uri: str) -> None:
        """Raise again what the URI led to a moment ago."""
        until, error = self._refused.get(uri, (0.0, None))
        if error is None:
            return
        if until <= self._clock():
            del self._refused[uri]
            return
        raise type(error)(*error.args)  # the first one holds the frames of those who asked first

    @contextmanager
    def remembering(self, uri: str) -> Iterator[None]:
        """Remember what the work within says of a URI."""
        try:
            yield
        except _LASTING as e:
            self._refused[uri] = self._clock() + self._seconds, e
            self._refused.move_to_end(uri)
            while len(self._refused) > self._max_uris:
                self._refused.popitem(last=False)
            raise

    @contextmanager
    def asking(self) -> Iterator[None]:
        """One question about a URI that is not known; counted unless it leads to something.

        Raises
        ------
        RequestError
            503: there were too many.
        """
        now = self._clock()
        self._left = min(self._per_second, self._left + (now - self._counted) * self._per_second)
        self._counted = now
        if self._left < 1:
            raise RequestError(
                503, "Too many models that are not there have been asked for: try again, or list them.", RETRY_AFTER
            )
        self._left -= 1
        yield
        self._left += 1
