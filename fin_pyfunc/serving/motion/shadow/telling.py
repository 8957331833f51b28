"""How a worker tells its shadow's process what was answered: many requests in one message."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple

import numpy as np

from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.serving.loaded_model import LoadedModel
from fin_pyfunc.serving.motion.shadow.messages import Answered, Rows, framed
from fin_pyfunc.serving.prediction import Prediction

#: A request's id, and what was answered to it.
Answer = tuple[str, Prediction]
#: As which member of `Rows` a table goes.
Form = Literal["matrix", "sent", "pickled"]


class _Kind(NamedTuple):
    """What answers have in common that go as one message; by identity, which is quick."""

    loaded: int
    classes: int
    has_probabilities: bool
    form: Form


class Telling:
    """Makes the messages; of what answered it says so once, as a model answers many.

    Parameters
    ----------
    features : FeatureSpec or None
        Of the shadow's model.
    """

    def __init__(self, features: FeatureSpec | None) -> None:
        self._features = features
        self._said: tuple[LoadedModel, object] | None = None
        self._compared: tuple[LoadedModel, bool] | None = None

    def of(self, answers: Sequence[Answer]) -> bytes:
        """The messages that tell these, one after another."""
        messages = list[bytes]()
        for kind, alike in groupby(answers, self._kind):
            group = list(alike)
            messages += self._begins(group[0][1])
            messages.append(framed(_rows(group, kind.form)))
        return b"".join(messages)

    def _begins(self, prediction: Prediction) -> Iterator[bytes]:
        loaded, classes = prediction.loaded, prediction.decisions.scores.classes
        if self._said is None or self._said[0] is not loaded or self._said[1] is not classes:
            self._said = loaded, classes
            yield framed(Answered(loaded.resolved.model_id, list(classes), loaded.model.features))

    def _kind(self, answer: Answer) -> _Kind:
        prediction = answer[1]
        scores = prediction.decisions.scores
        p = scores.probabilities
        return _Kind(id(prediction.loaded), id(scores.classes), p is not None, self._form(prediction))

    def _form(self, prediction: Prediction) -> Form:
        """The one that costs the least of those that the shadow's model can read."""
        table = prediction.table
        if isinstance(table, np.ndarray) and table.dtype == np.float64 and self._takes_the_same(prediction.loaded):
            return "matrix"
        # without names of its own it goes by the order of what was scored, which is not that of what was sent
        return "pickled" if self._features is None or prediction.sent is None else "sent"

    def _takes_the_same(self, loaded: LoadedModel) -> bool:
        if self._compared is None or self._compared[0] is not loaded:
            ours, theirs = self._features, loaded.model.features
            self._compared = loaded, _takes_matrix(ours, theirs)
        return self._compared[1]


def _takes_matrix(ours: FeatureSpec | None, theirs: FeatureSpec | None) -> bool:
    """Whether a shadow takes the matrix that another model is scored on."""
    if ours is None:
        return theirs is None or not theirs.is_coded
    return theirs is not None and ours.reads_as(theirs)


def _rows(answers: Sequence[Answer], form: Form) -> Rows:
    """Answers of one kind as one message."""
    predictions = [prediction for _, prediction in answers]
    tables, scores = [each.table for each in predictions], [each.decisions.scores for each in predictions]
    p = [each.probabilities for each in scores if each.probabilities is not None]
    if form == "pickled" and (features := predictions[0].loaded.model.features) is not None:
        tables = [features.decode(table) for table in tables]  # only the model that answered knows its codes
    return Rows(
        requests=[(request_id, len(prediction.decisions)) for request_id, prediction in answers],
        index=np.concatenate([each.index for each in scores], dtype=np.intp).tobytes(),
        probabilities=np.concatenate(p, dtype=np.float64).tobytes() if p else None,
        matrix=np.concatenate(tables).tobytes() if form == "matrix" else None,
        sent=[bytes(each.sent or b"") for each in predictions] if form == "sent" else None,
        pickled=pickle.dumps(tables, pickle.HIGHEST_PROTOCOL) if form == "pickled" else None,
    )
