"""Everything that is not trees alone, through skl2onnx, with our own nodes wherever it holds trees."""

from __future__ import annotations

import io
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import numpy as np

from fin_pyfunc.compiling.converters import classifier_shape, own_converter, transformed_shape
from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.graph import OPSET, to_contract
from fin_pyfunc.compiling.grown import ensemble_of, is_ensemble
from fin_pyfunc.compiling.tree_nodes import ML_DOUBLE, ML_FLOAT
from fin_pyfunc.model.backends.native import has_proba
from fin_pyfunc.model.backends.onnx import INPUT

#: skl2onnx keeps what it can convert in tables of its module, which are changed for the time of a call.
_CONVERTING = threading.Lock()
#: skl2onnx's time for a QuantileTransformer grows tenfold each time that its quantiles double: 5 s for 50 of them.
_MOST_QUANTILES = 31
#: What a classifier's converters may be asked for, in skl2onnx's own terms.
_OPTIONS = {"zipmap": [False], "raw_scores": [True, False], "nocl": [True, False], "output_class_labels": [False]}


def convert(estimator: Any, n_features: int, n_scores: int, *, block: int | None) -> Any:
    """The graph of any classifier that skl2onnx knows.

    Parameters
    ----------
    estimator : object
        Fitted; it is not modified.
    n_features, n_scores : int
    block : int or None
        As in `tree_nodes.add_ensemble`.

    Returns
    -------
    onnx.ModelProto

    Raises
    ------
    NotCompilable
        skl2onnx cannot convert it.
    """
    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import DoubleTensorType

    held = list(parts(estimator))
    if any(getattr(part, "n_quantiles_", 0) > _MOST_QUANTILES for part in held):
        raise NotCompilable(f"skl2onnx takes minutes for more than {_MOST_QUANTILES} quantiles (QuantileTransformer)")
    boosted = any(ensemble_of(part).kind == "boosted" for part in held if is_ensemble(part))
    ml = ML_DOUBLE if boosted else ML_FLOAT
    converters = {type(part): own for part in held if (own := own_converter(part, ml, block)) is not None}
    kinds = {kind for kind in converters if hasattr(kind, "predict")}
    shapes = {kind: classifier_shape if kind in kinds else transformed_shape for kind in converters}

    raw = {} if has_proba(estimator) else {"raw_scores": True}
    last = _last_step(estimator)
    try:
        with _CONVERTING, _quiet(), _known(kinds):
            converted = convert_sklearn(
                estimator,
                initial_types=[(INPUT, DoubleTensorType([None, n_features]))],
                options=None if type(last) in kinds else {id(last): {"zipmap": False, **raw}},
                target_opset={"": OPSET, "ai.onnx.ml": ml},
                custom_conversion_functions=converters,
                custom_shape_calculators=shapes,
                custom_parsers=dict.fromkeys(kinds, _parsed),
            )
    except NotCompilable:
        raise
    except Exception as e:  # whatever it meets that it does not know ends in some exception or other
        raise NotCompilable(f"{culprit(estimator)} cannot be converted to ONNX ({type(e).__name__})") from e
    outputs = [output.name for output in converted.graph.output]
    if len(outputs) < 2:
        raise NotCompilable(f"{type(estimator).__name__} has no scores in its ONNX form")
    columns = converted.graph.output[1].type.tensor_type.shape.dim
    pair = not has_proba(estimator) and n_scores == 2 and len(columns) == 2 and columns[1].dim_value == 1
    return to_contract(converted, outputs[1], n_features, n_scores, pair=pair)


def parts(estimator: Any) -> Iterator[Any]:
    """The estimator and every other with `get_params` that it holds, each once.

    One that is not fitted is left out: a template, of which a copy was fitted.
    """
    seen: set[int] = set()
    pending = [estimator]
    while pending:
        part = pending.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        if isinstance(part, list | tuple) or (isinstance(part, np.ndarray) and part.dtype == object):
            pending += list(np.ravel(part)) if isinstance(part, np.ndarray) else list(part)
        elif isinstance(part, dict):
            pending += part.values()
        elif hasattr(part, "__dict__") and not isinstance(part, type):
            if hasattr(part, "get_params") and (part is estimator or _is_fitted(part)):
                yield part
            if is_ensemble(part):
                continue  # what is below is in its arrays
            if hasattr(part, "get_params") or type(part).__module__.startswith("sklearn."):
                pending += vars(part).values()


def _is_fitted(part: Any) -> bool:
    """By scikit-learn's convention: fit makes attributes that end in an underscore (XGBoost's are properties)."""
    return hasattr(part, "n_features_in_") or any(name.endswith("_") and name[0] != "_" for name in vars(part))


def _last_step(estimator: Any) -> Any:
    while hasattr(estimator, "steps"):
        estimator = estimator.steps[-1][1]
    return estimator


def culprit(estimator: Any) -> str:
    """Name of the classifier that an estimator is, or ends in, for the reason why there is no form of it."""
    return type(_last_step(estimator)).__name__


def _parsed(scope: Any, model: Any, inputs: Any, custom_parsers: Any = None) -> Any:  # noqa: ARG001 - skl2onnx's own
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType

    operator = scope.declare_local_operator(_alias(type(model)), model)
    operator.inputs = inputs
    operator.outputs.append(scope.declare_local_variable("label", Int64TensorType()))
    operator.outputs.append(scope.declare_local_variable("probabilities", DoubleTensorType()))
    return operator.outputs


def _alias(kind: type) -> str:
    return f"FinPyfunc{kind.__name__}"


@contextmanager
def _known(kinds: Sequence[type] | set[type]) -> Iterator[None]:
    """Let skl2onnx find the names of these classes for the time of a call; what it knew of them comes back after."""
    from skl2onnx import _supported_operators
    from skl2onnx.common import _registration

    names: dict[type, str] = _supported_operators.sklearn_operator_name_map
    before = {kind: names[kind] for kind in kinds if kind in names}
    made = {_alias(kind) for kind in kinds}
    try:
        for kind in kinds:
            names[kind] = _alias(kind)
            _registration.register_converter(_alias(kind), _unused, overwrite=True, options=_OPTIONS)
            _registration.register_shape_calculator(_alias(kind), classifier_shape, overwrite=True)
        yield
    finally:
        for kind in kinds:
            names.pop(kind, None)
        names.update(before)
        for alias in made:
            _registration._converter_pool.pop(alias, None)
            _registration._shape_calculator_pool.pop(alias, None)


def _unused(scope: Any, operator: Any, container: Any) -> None:
    """Stands in the table of converters; custom_conversion_functions are asked first."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what skl2onnx and onnx print and warn about from the user's eyes."""
    loggers = [logging.getLogger(name) for name in ("skl2onnx", "onnx", "onnxconverter_common")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
