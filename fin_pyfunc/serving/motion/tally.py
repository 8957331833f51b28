"""Counts of what happened to models, for whoever shows them."""

from __future__ import annotations

from collections.abc import Callable

#: Name, labels, and how many: called with each count.
Listener = Callable[[str, tuple[str, ...], float], None]


class Tally:
    """Counts by name and labels; the labels are few by what they are (reasons, classes of a model), never a client's.

    Counted: ``followed`` (an alias came to stand for another version, which answers now), ``rejected`` (by reason:
    ``files``, ``example``, ``backend``, ``missing``, ``other``), ``store_away``, ``stopped`` (requests refused by the
    kill switch), and of the shadow, in rows, ``shadow_agreed``, ``shadow_differed`` (by the class answered and the
    shadow's), ``shadow_dropped`` (no room), ``shadow_stopped`` (by the kill switch), ``shadow_failed``,
    ``shadow_compared`` (both have probabilities), and the sum of ``shadow_difference`` in probability.

    Counting is safe from two threads as long as no two count the same name.
    """

    def __init__(self) -> None:
        self._counts: dict[tuple[str, tuple[str, ...]], float] = {}
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call this with every count from now on, on the thread that counts."""
        self._listeners.append(listener)

    def add(self, name: str, *labels: str, n: float = 1) -> None:
        """Count."""
        key = (name, labels)
        self._counts[key] = self._counts.get(key, 0) + n
        for listener in self._listeners:
            listener(name, labels, n)

    def forget(self, prefix: str) -> None:
        """Begin anew with the counts whose names begin so; listeners are not told."""
        for key in [key for key in self._counts if key[0].startswith(prefix)]:
            del self._counts[key]

    def total(self, name: str) -> float:
        """The count of a name over all its labels."""
        return sum(self.by_label(name).values())

    def by_label(self, name: str) -> dict[tuple[str, ...], float]:
        """The counts of a name by its labels."""
        return {labels: n for (of, labels), n in list(self._counts.items()) if of == name}
