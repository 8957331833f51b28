"""A model that may run code, opened: only ever in a model host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from fin_pyfunc.host.opening import Described, Invoked, Opening
from fin_pyfunc.model import artifact, estimators
from fin_pyfunc.model.backends.native import NativeBackend, has_proba, labels_of
from fin_pyfunc.model.backends.pyfunc import PyfuncBackend
from fin_pyfunc.model.choice import asking_for
from fin_pyfunc.model.classifier import Classifier
from fin_pyfunc.model.decision import Label, Scores
from fin_pyfunc.model.errors import ArtifactError, FinPyfuncError
from fin_pyfunc.model.features import FeatureSpec, Table
from fin_pyfunc.model.foreign.estimator import FLAVORS, ForeignClassifier, classifier_of, require_classifier
from fin_pyfunc.model.foreign.features import numbered_as
from fin_pyfunc.model.traces import trace

_CODE_MODEL = "mlflow.pyfunc.loaders.code_model"


class Hosted:
    """A model in its host.

    Parameters
    ----------
    described : Described
    backend : object with `score`
    pyfunc : mlflow.pyfunc.PyFuncModel, optional
        The same model as MLflow loads it.
    """

    def __init__(self, described: Described, backend: Any, pyfunc: Any = None) -> None:
        self.described, self._backend, self._pyfunc = described, backend, pyfunc

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        answered: Scores = self._backend.score(table)
        return answered

    def invocations(self, content_type: str, body: bytes) -> Invoked:
        """Answer a request's body as MLflow's scoring server does."""
        from mlflow.exceptions import MlflowException
        from mlflow.pyfunc import scoring_server

        witness = _Witness(self._pyfunc)
        schema = self._pyfunc.metadata.get_input_schema()
        try:
            answered = scoring_server.invocations(body, content_type, witness, schema)
            status, text, failed = answered.status, answered.response, None
        except MemoryError:
            raise
        except Exception as e:
            failed, status, text = witness.raised or e, 400, ""
        if isinstance(failed, MemoryError):
            raise failed
        if failed is not None or status != 200:
            what: Literal["body", "schema", "model"] = "body"
            if witness.was_asked:
                what = "schema" if isinstance(failed, MlflowException) else "model"
            error, led = (None, "") if failed is None else (type(failed).__name__, trace(failed))
            return Invoked(status=status, failure=what, error=error, trace=led)
        return Invoked(status=status, body=text.encode())


class _Witness:
    """A PyFuncModel as MLflow's scoring server sees it; keeps whether it is asked, and what it raises."""

    def __init__(self, pyfunc: Any) -> None:
        self._pyfunc, self.metadata = pyfunc, pyfunc.metadata
        self.was_asked = False
        self.raised: Exception | None = None

    def predict(self, data: Any, params: dict[str, Any] | None = None) -> Any:
        """As `PyFuncModel.predict`."""
        self.was_asked = True
        try:
            return self._pyfunc.predict(numbered_as(self.metadata.get_input_schema(), data), params=params)
        except Exception as e:
            self.raised = e
            raise


def open_hosted(opening: Opening) -> Hosted:
    """Open a model, running whatever code it brings.

    Raises
    ------
    ArtifactError, BackendError
        Why it cannot be opened.
    """
    path = Path(opening.path)
    if opening.form == "pyfunc":
        return _open_pyfunc(path, opening)
    if opening.form == "artifact":
        if (code := path / "code").is_dir():
            sys.path.insert(0, str(code))
        file = path / "artifacts" / artifact.NAME / estimators.FILE_NAMES[opening.serialization]
        estimator = estimators.load(file, opening.serialization)
        backend = NativeBackend(estimator, opening.features, opening.classes, opening.device)
        return Hosted(_described(estimator, opening.features, opening.classes), backend)
    return _of_foreign(require_classifier(estimators.load_file(path, opening.form), opening.features))


def _open_pyfunc(path: Path, opening: Opening) -> Hosted:
    import mlflow.pyfunc

    try:
        with asking_for(opening.backend):
            # its warnings about versions follow whatever requirements.txt refers to, and import what that names
            pyfunc = mlflow.pyfunc.load_model(str(path), suppress_warnings=True)
    except (FinPyfuncError, MemoryError):
        raise
    except Exception as e:
        raise ArtifactError.not_loaded(e) from e
    flavors = pyfunc.metadata.flavors
    loader_module = flavors["python_function"]["loader_module"]
    if loader_module == _CODE_MODEL and isinstance(raw := pyfunc.unwrap_python_model(), Classifier):
        return _of_classifier(raw, pyfunc)
    if flavor := next((flavor for flavor in FLAVORS if flavor in flavors), None):
        # an environment of the model's own may have an MLflow (2.9) without get_raw_model
        raw = (
            pyfunc.get_raw_model()
            if hasattr(pyfunc, "get_raw_model")
            else import_module(f"mlflow.{flavor}").load_model(str(path))
        )
        if (found := classifier_of(raw, opening.features)) is not None:
            return _of_foreign(found, pyfunc)
    described = Described(
        kind="pyfunc",
        type_name=loader_module,
        classes=[],
        has_proba=False,
        features=opening.features,
        has_pyfunc=True,
    )
    return Hosted(described, PyfuncBackend(pyfunc, opening.features), pyfunc)


def _of_foreign(found: ForeignClassifier, pyfunc: Any = None) -> Hosted:
    described = _described(found.estimator, found.features, None, has_pyfunc=pyfunc is not None)
    return Hosted(described, NativeBackend(found.estimator, found.features), pyfunc)


def _of_classifier(model: Classifier, pyfunc: Any) -> Hosted:
    manifest = model.manifest
    if manifest is None:
        raise ArtifactError("The model has no manifest: log it with fin_pyfunc.log_model.")
    described = Described(
        kind="classifier",
        type_name=manifest.estimator.rpartition(".")[2],
        classes=manifest.classes,
        has_proba=manifest.has_proba,
        features=model.features,
        thresholds=model.thresholds,
        has_pyfunc=True,
    )
    return Hosted(described, _Dispatched(model), pyfunc)


class _Dispatched:
    """A classifier of this project, with all of its backends."""

    def __init__(self, model: Classifier) -> None:
        self._model = model

    def score(self, table: Table) -> Scores:
        """Class and probabilities of each row; see `Backend.score`."""
        return self._model.dispatch.score(table)[0]


def _described(
    estimator: Any, features: FeatureSpec | None, classes: Sequence[Label] | None, has_pyfunc: bool = False
) -> Described:
    known = labels_of(estimator) if classes is None else list(classes)
    if not all(isinstance(label, str | int | float | bool) for label in known):
        raise ArtifactError("The model answers more than one class a row; expected a classifier with one output.")
    return Described(
        kind="estimator",
        type_name=type(estimator).__name__,
        classes=known,
        has_proba=has_proba(estimator),
        features=features,
        has_pyfunc=has_pyfunc,
    )
