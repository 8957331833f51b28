"""What a model host is told to open, and what it says of the model that it has opened."""

from __future__ import annotations

import hashlib
from typing import Literal

import msgspec

from fin_pyfunc.model.decision import Label, Thresholds
from fin_pyfunc.model.estimators import Serialization
from fin_pyfunc.model.features import FeatureSpec

FailureKind = Literal["artifact", "backend", "scoring", "device"]


class Opening(msgspec.Struct, frozen=True, kw_only=True):
    """A model to open in a host.

    Parameters
    ----------
    form : {"pyfunc", "artifact", "pickle", "joblib", "skops"}
        An MLflow model's folder, to be loaded by MLflow; the estimator of a model logged by this project; or a bare
        file.
    path : str
        The model's folder or file, which must not change. The host works on a copy of its own.
    digest : str
        Of all bytes that are opened. Hosts are shared by all who open the same digest in the same way.
    features : FeatureSpec or None, default None
        What rows are checked against; for an MLflow model, what its signature says.
    classes : list of Label or None, default None
        Of an "artifact": labels of the columns of `predict_proba`.
    serialization : {"skops", "cloudpickle"}, default "cloudpickle"
        Of an "artifact".
    device : {"cpu", "gpu"}, default "cpu"
        Of an "artifact": where its estimator computes.
    backend : str or None, default None
        The operator's choice, for a model that chooses among several by itself.
    python : str or None, default None
        Interpreter of another environment, in which NumPy, pandas, pyarrow, msgspec and MLflow are installed.
    """

    form: Literal["pyfunc", "artifact", "pickle", "joblib", "skops"]
    path: str
    digest: str
    features: FeatureSpec | None = None
    classes: list[Label] | None = None
    serialization: Serialization = "cloudpickle"
    device: Literal["cpu", "gpu"] = "cpu"
    backend: str | None = None
    python: str | None = None

    @property
    def key(self) -> str:
        """The same for all openings that lead to the same model, wherever its files lie."""
        return hashlib.sha256(msgspec.json.encode(msgspec.structs.replace(self, path=""))).hexdigest()


class Described(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a host has opened.

    Parameters
    ----------
    kind : {"estimator", "classifier", "pyfunc"}
        A classifier with scikit-learn's interface; a `Classifier` of this project with backends of its own; or another
        MLflow model, which answers labels alone.
    type_name : str
        Name of its class.
    classes : list of Label
        Labels of the scores' columns; empty for "pyfunc", which does not say.
    has_proba : bool
        Whether its scores have probabilities.
    features : FeatureSpec or None
        As opened, or what the estimator itself says of them.
    thresholds : Thresholds or None, default None
        Of a "classifier".
    has_pyfunc : bool, default False
        Whether it answers `invocations`.
    """

    kind: Literal["estimator", "classifier", "pyfunc"]
    type_name: str
    classes: list[Label]
    has_proba: bool
    features: FeatureSpec | None
    thresholds: Thresholds | None = None
    has_pyfunc: bool = False


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a host could not do what it was asked.

    Parameters
    ----------
    kind : {"artifact", "backend", "scoring", "device"}
        Which error of `fin_pyfunc.model.errors` it is.
    said : str
        Its sentence.
    trace : str, default ""
        Where it came from, without messages of other people's code.
    """

    kind: FailureKind
    said: str
    trace: str = ""


class Invoked(msgspec.Struct, frozen=True, kw_only=True):
    """What MLflow's scoring server made of a request's body, in a host.

    Parameters
    ----------
    status : int
        HTTP status.
    body : bytes
        JSON; empty where it failed.
    failure : {"body", "schema", "model"} or None
        What failed: reading the body, the model's signature, or the model itself.
    error : str or None
        Name of the exception's type.
    trace : str
        Where it came from, without messages of other people's code.
    """

    status: int
    body: bytes = b""
    failure: Literal["body", "schema", "model"] | None = None
    error: str | None = None
    trace: str = ""
