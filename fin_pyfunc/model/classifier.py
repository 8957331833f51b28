"""A fitted classifier with its feature checks, its dispatch and its thresholds: validate, dispatch, decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from fin_pyfunc.model import artifact, estimators
from fin_pyfunc.model.backends import Backend
from fin_pyfunc.model.backends.forms import open_forms
from fin_pyfunc.model.backends.native import LazyNative, NativeBackend
from fin_pyfunc.model.choice import nearest
from fin_pyfunc.model.decision import Decisions, Label, Probabilities, Thresholds
from fin_pyfunc.model.device import gpu_refusal
from fin_pyfunc.model.dispatch import Dispatch
from fin_pyfunc.model.errors import ArtifactError, BackendError, DeviceError, ScoringError
from fin_pyfunc.model.features import FeatureSpec, Row, Table
from fin_pyfunc.model.frames import as_frame
from fin_pyfunc.model.nulls import refused_nulls
from fin_pyfunc.model.plan import Plan
from fin_pyfunc.model.sampling import sample
from fin_pyfunc.model.unnamed import by_position, score_named, unnamed_table


class Classifier:
    """A model as everything but MLflow runs it; `FinPyfuncModel` is the same as MLflow's PythonModel.

    Attributes
    ----------
    features : FeatureSpec or None
        None only for a foreign model that says nothing of its features.
    thresholds : Thresholds
    dispatch : Dispatch
    manifest : Manifest or None
        None for a model that was not logged by this project.
    answered : ndarray of shape (1, n_features), DataFrame or None
        A row that such a model has answered, if there is one.
    """

    features: FeatureSpec | None
    thresholds: Thresholds
    dispatch: Dispatch
    manifest: artifact.Manifest | None
    answered: Table | None = None

    @classmethod
    def of(cls, features: FeatureSpec | None, dispatch: Dispatch, thresholds: Thresholds | None = None) -> Classifier:
        """Wrap a model that was not logged by this project."""
        model = cls()
        model.features, model.dispatch, model.manifest = features, dispatch, None
        model.thresholds = thresholds or Thresholds()
        return model

    def open(
        self, folder: Path, backend: str | None = None, host: Callable[[artifact.Manifest], Backend] | None = None
    ) -> None:
        """Open an artifact folder.

        The estimator itself is read only when a row is asked of it, if there is a compiled form.

        Parameters
        ----------
        folder : Path
            Holds `manifest.json`.
        backend : str, optional
            "auto", "cpu", "gpu" or a backend's name; default what the environment variable ``FIN_PYFUNC_BACKEND``
            holds, else the one chosen when logging.
        host : callable, optional
            Opens the estimator in another process, when it is first asked; default it is read in this one.

        Raises
        ------
        ArtifactError, FormatError, BackendError
        """
        manifest = artifact.read(folder)
        file = estimators.FILE_NAMES[manifest.serialization]
        for name in (file, *(name for form in manifest.forms for name in form.files)):
            if name not in manifest.files:
                raise ArtifactError(f"The model's manifest does not name its file {name!r}: log the model again.")
        if manifest.serialization == "cloudpickle":
            estimators.require_pickle_allowed()
        wanted = nearest(backend, manifest.backend) or "auto"
        device: Literal["cpu", "gpu"] = "gpu" if manifest.gpu_only else "cpu"
        if manifest.gpu_only and (refused := gpu_refusal()):
            raise BackendError(f"the model has no form for the CPU ({manifest.estimator} is GPU-only), and {refused}.")

        def read() -> Backend:
            if host is not None:
                return host(manifest)
            estimator = estimators.load(folder / file, manifest.serialization)
            return NativeBackend(estimator, manifest.features, manifest.classes, device)

        native = LazyNative(read, device)
        # what cuML computes is made from the estimator, which has to be in this process
        forms = [form for form in manifest.forms if host is None or form.backend != "cuml"]
        compiled = open_forms(
            folder,
            forms,
            manifest.times,
            manifest.classes,
            manifest.thresholds,
            native,
            wanted,
            dropped=manifest.dropped,
            features=manifest.features,
        )
        self.manifest, self.features, self.thresholds = manifest, manifest.features, manifest.thresholds
        self.dispatch = Dispatch([*compiled, native], wanted, manifest.times)
        if len(self.dispatch.backends) > 1:
            self.measure()

    def measure(self) -> Plan | None:
        """Time the backends on rows such as clients may send, and dispatch by what was found.

        Returns
        -------
        Plan or None
            None for a foreign model whose features are not known.
        """
        manifest = self.manifest
        if manifest is None:
            return self.dispatch.plan
        n_rows = self.dispatch.sample_rows(len(manifest.features.names))
        return self.dispatch.measure(sample(manifest.features, manifest.ranges, manifest.example, n_rows))

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Classify the rows of a DataFrame.

        Parameters
        ----------
        model_input : DataFrame of shape (n_rows, n_features)
            Of pandas, or a table with `to_pandas`, such as Polars'; the answer is of pandas. Columns in any order;
            identifiers and, by default, further columns are ignored.
        params : dict, optional
            ``{"return_proba": bool}``; default True.

        Returns
        -------
        DataFrame of shape (n_rows, 3 + n_classes)
            `prediction`, `probability` (of that class), `confidence` ("high", "medium", "low", or "unknown"), and one
            `probability_<label>` a class; without the probabilities where `return_proba` is false or there are none.

        Raises
        ------
        FeatureError
            Naming every feature of every row that was refused.
        ScoringError
            The estimator itself failed.
        """
        frame = as_frame(model_input)
        if frame is None:
            raise TypeError(f"predict takes a DataFrame, one column a feature, not {type(model_input).__name__}")
        return_proba = bool((params or {}).get("return_proba", True))
        return self.decide_frame(frame).frame(return_proba, frame.index)

    def predict_proba(self, model_input: pd.DataFrame) -> Probabilities:
        """Probabilities of the classes, as scikit-learn's classifiers answer them.

        Parameters
        ----------
        model_input
            As in `predict`.

        Returns
        -------
        ndarray of shape (n_rows, n_classes), float64
            Columns in the order of `classes_`.

        Raises
        ------
        AttributeError
            The model has no probabilities.
        FeatureError, ScoringError
        """
        frame = as_frame(model_input)
        if frame is None:
            raise TypeError(f"predict_proba takes a DataFrame, one column a feature, not {type(model_input).__name__}")
        probabilities = self.decide_frame(frame).scores.probabilities
        if probabilities is None:
            raise AttributeError("the model has no probabilities: its estimator has no predict_proba.")
        return probabilities

    @property
    def classes_(self) -> list[Label]:
        """Labels in the column order of `predict_proba`."""
        if self.manifest is None:
            raise AttributeError("the model was not logged by fin_pyfunc, so its classes are not known.")
        return self.manifest.classes

    def predict_one(self, features: Mapping[str, Any], return_proba: bool = True) -> dict[str, Any]:
        """Classify one row.

        Parameters
        ----------
        features : mapping
            Feature name to number, text, boolean or None, in any order.
        return_proba : bool, default True
            Fill `probability` and `probabilities`.

        Returns
        -------
        dict
            `prediction`, `probability`, `probabilities` and `confidence`, as ``POST /predict`` answers.

        Raises
        ------
        FeatureError, ScoringError
        """
        if not isinstance(features, Mapping):
            raise TypeError(f"predict_one takes a dict of feature name to value, not {type(features).__name__}")
        return self.decide([features]).one(return_proba)

    def __repr__(self) -> str:
        manifest = getattr(self, "manifest", None)
        if manifest is None:
            return f"{type(self).__name__}()"
        names = ", ".join(manifest.features.names)
        return f"{type(self).__name__}({manifest.estimator}, features=[{names}], classes={manifest.classes})"

    def decide(self, rows: Sequence[Row]) -> Decisions:
        """Classify rows as a client sends them.

        Raises
        ------
        FeatureError, ScoringError
        """
        return self.decide_table(self.table(rows))

    def decide_frame(self, frame: pd.DataFrame) -> Decisions:
        """Classify the rows of a DataFrame; as `predict`, with the answers in any form.

        Raises
        ------
        FeatureError, ScoringError
        """
        return self.decide_table(self.check(frame))

    def table(self, rows: Sequence[Row]) -> Table:
        """Rows as a client sends them, checked: what `decide_table` takes.

        Raises
        ------
        FeatureError
        """
        return unnamed_table(rows) if self.features is None else self.features.table(rows)

    def check(self, frame: pd.DataFrame) -> Table:
        """The counterpart of `table` for a DataFrame.

        Raises
        ------
        FeatureError
        """
        return by_position(frame) if self.features is None else self.features.check(frame)

    def decide_table(self, table: Table, is_joined: bool = False) -> Decisions:
        """Classify checked rows.

        Parameters
        ----------
        table : ndarray of shape (n_rows, n_features) or DataFrame
        is_joined : bool, default False
            The rows are several callers', who will be asked for one by one where this fails: leave out why.

        Raises
        ------
        FeatureError
            A model that was not logged by this project does not take a null, or the order of its columns is not known.
        ScoringError
        """
        score = self.dispatch.score
        try:
            if self.features is None and isinstance(table, pd.DataFrame) and _has_names(table):
                scores, backend = score_named(table, score)
            else:
                scores, backend = score(table)
        except ScoringError as e:
            is_unexplained = self.manifest is None and not is_joined and not isinstance(e, DeviceError)
            if is_unexplained and (refused := refused_nulls(table, self.features, score, self.answered)):
                raise refused from e
            raise
        return Decisions(scores, self.thresholds, backend)

    def decide_now(self, table: Table) -> Decisions | None:
        """As `decide_table`, where that is so quick that it may hold up an event loop; None where it is not.

        Raises
        ------
        ScoringError
        """
        scored = self.dispatch.score_now(table)
        return None if scored is None else Decisions(scored[0], self.thresholds, scored[1])


def _has_names(frame: pd.DataFrame) -> bool:
    return frame.shape[1] > 1 and all(isinstance(name, str) for name in frame.columns)
