"""Our own nodes in skl2onnx's graphs, where its own are in float32, wrong, or not there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.grown import ensemble_of, is_ensemble
from fin_pyfunc.compiling.linear import is_linear, linear_scores
from fin_pyfunc.compiling.tree_nodes import Nodes, add_ensemble
from fin_pyfunc.model.backends.nameless import type_name

#: As skl2onnx calls it: scope, operator, container.
Converter = Callable[[Any, Any, Any], None]


def own_converter(part: Any, ml: int, block: int | None) -> Converter | None:
    """What converts one part of an estimator instead of skl2onnx's own; None where that one is as good.

    Parameters
    ----------
    part : object
        Fitted. Every other object of its class is converted in the same way.
    ml, block
        As in `tree_nodes.add_ensemble`.
    """
    if type_name(part) == "sklearn.impute._base.SimpleImputer":
        return _impute
    if type_name(part) == "sklearn.preprocessing._data.Binarizer":
        return _binarize
    if type_name(part) == "sklearn.preprocessing._discretization.KBinsDiscretizer":
        return _discretize
    if type_name(part) == "sklearn.ensemble._voting.VotingClassifier":
        return _vote if part.voting == "soft" else None
    if is_linear(part):
        return _linear

    def convert_trees(scope: Any, operator: Any, container: Any) -> None:
        nodes = _begin(scope, "trees")
        X = nodes.cast(operator.inputs[0].full_name, "float64")
        add_ensemble(nodes, ensemble_of(operator.raw_operator), X, operator.outputs[1].full_name, ml, block)
        _end(nodes, operator, container)

    return convert_trees if is_ensemble(part) else None


def _linear(scope: Any, operator: Any, container: Any) -> None:
    nodes = _begin(scope, "linear")
    X = nodes.cast(operator.inputs[0].full_name, "float64")
    linear_scores(nodes, operator.raw_operator, X, operator.outputs[1].full_name)
    _end(nodes, operator, container)


def _vote(scope: Any, operator: Any, container: Any) -> None:
    """The weighted mean of the members' probabilities: sklearn/ensemble/_voting.py, `predict_proba`."""
    from skl2onnx._supported_operators import sklearn_operator_name_map
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType

    model = operator.raw_operator
    if model.voting != "soft":
        raise NotCompilable("it counts votes")
    nodes = _begin(scope, "vote")
    weights = np.ones(len(model.estimators_)) if model.weights is None else model._weights_not_none
    weighted = []
    for member, weight in zip(model.estimators_, weights, strict=True):
        part = scope.declare_local_operator(sklearn_operator_name_map[type(member)], member)
        part.inputs = operator.inputs
        probabilities = scope.declare_local_variable("member_probabilities", DoubleTensorType())
        part.outputs.append(scope.declare_local_variable("member_label", Int64TensorType()))
        part.outputs.append(probabilities)
        weighted.append(nodes.add("Mul", [probabilities.full_name, nodes.constant(float(weight))]))
    total = nodes.constant(float(np.sum(weights)))
    nodes.add("Div", [nodes.add("Sum", weighted), total], operator.outputs[1].full_name)
    _end(nodes, operator, container)


def _impute(scope: Any, operator: Any, container: Any) -> None:
    """SimpleImputer in float64; ONNX Runtime's own Imputer is in float32."""
    imputer = operator.raw_operator
    fill = np.asarray(imputer.statistics_)
    plain = isinstance(imputer.missing_values, float) and np.isnan(imputer.missing_values) and not imputer.add_indicator
    if not plain or fill.dtype.kind not in "iuf" or np.isnan(fill).any():
        raise NotCompilable("its SimpleImputer does more than put a number for a missing value")
    nodes = _begin(scope, "imputer")
    X = _features(nodes, operator)
    missing = nodes.add("IsNaN", [X])
    nodes.add("Where", [missing, nodes.constant(fill.astype(np.float64)), X], operator.outputs[0].full_name)
    _hand_over(nodes, container)


def _binarize(scope: Any, operator: Any, container: Any) -> None:
    """1 above the threshold: sklearn/preprocessing/_data.py, `binarize`. skl2onnx has 1 at the threshold, too."""
    nodes = _begin(scope, "binarizer")
    above = nodes.add("Greater", [_features(nodes, operator), nodes.constant(float(operator.raw_operator.threshold))])
    nodes.cast(above, "float64", operator.outputs[0].full_name)
    _hand_over(nodes, container)


def _discretize(scope: Any, operator: Any, container: Any) -> None:
    """The number of inner edges at or below a value: sklearn/preprocessing/_discretization.py, `transform`."""
    bins = operator.raw_operator
    if bins.dtype is not None and np.dtype(bins.dtype) != np.float64:
        raise NotCompilable("its KBinsDiscretizer computes in another type than float64 (dtype=)")
    inner = [np.asarray(edges, dtype=np.float64)[1:-1] for edges in bins.bin_edges_]
    nodes = _begin(scope, "bins")
    X = _features(nodes, operator)
    # one column an edge: each feature is repeated as often as it has edges, and a feature without any has bin 0
    feature = np.repeat(np.arange(len(inner)), [len(edges) for edges in inner])
    repeated = nodes.add("Gather", [X, nodes.constant(feature)], axis=1)
    beyond = nodes.cast(nodes.add("GreaterOrEqual", [repeated, nodes.constant(np.concatenate(inner))]), "float64")
    of_feature = (feature[:, None] == np.arange(len(inner))).astype(np.float64)
    is_ordinal, made = bins.encode == "ordinal", operator.outputs[0].full_name
    ordinal = nodes.add("MatMul", [beyond, nodes.constant(of_feature)], made if is_ordinal else None)
    if not is_ordinal:
        column = np.repeat(np.arange(len(inner)), bins.n_bins_)
        number = np.concatenate([np.arange(n, dtype=np.float64) for n in bins.n_bins_])
        chosen = nodes.add("Gather", [ordinal, nodes.constant(column)], axis=1)
        nodes.cast(nodes.add("Equal", [chosen, nodes.constant(number)]), "float64", made)
    _hand_over(nodes, container)


def transformed_shape(operator: Any) -> None:
    """Say of which type and width what one of our own transformers makes is."""
    from skl2onnx.common.data_types import DoubleTensorType

    part = operator.raw_operator
    is_one_hot = getattr(part, "encode", "ordinal") != "ordinal"
    operator.outputs[0].type = DoubleTensorType([None, int(sum(part.n_bins_)) if is_one_hot else part.n_features_in_])


def classifier_shape(operator: Any) -> None:
    """Say of which types and widths a classifier's two outputs are."""
    from skl2onnx.common.data_types import DoubleTensorType, Int64TensorType, StringTensorType

    classes = np.asarray(operator.raw_operator.classes_)
    operator.outputs[0].type = (Int64TensorType if classes.dtype.kind in "iufb" else StringTensorType)([None])
    if len(operator.outputs) > 1:
        operator.outputs[1].type = DoubleTensorType([None, len(classes)])


def _begin(scope: Any, what: str) -> Nodes:
    return Nodes(f"{scope.get_unique_variable_name(what)}_")


def _end(nodes: Nodes, operator: Any, container: Any) -> None:
    """Add the label, which some of skl2onnx's own converters read, and hand everything over."""
    best = nodes.add("ArgMax", [operator.outputs[1].full_name], axis=1, keepdims=0)
    nodes.add("Gather", [nodes.constant(_labels(operator.raw_operator.classes_)), best], operator.outputs[0].full_name)
    _hand_over(nodes, container)


def _hand_over(nodes: Nodes, container: Any) -> None:
    container.nodes.extend(nodes.nodes)
    container.initializers.extend(nodes.constants)


def _features(nodes: Nodes, operator: Any) -> str:
    """What a part is given, as one float64 matrix."""
    given = [nodes.cast(each.full_name, "float64") for each in operator.inputs]
    return given[0] if len(given) == 1 else nodes.add("Concat", given, axis=1)


def _labels(classes: Any) -> np.ndarray[Any, Any]:
    classes = np.asarray(classes)
    labels: np.ndarray[Any, Any] = (
        classes.astype(np.int64) if classes.dtype.kind in "iufb" else classes.astype(str).astype(object)
    )
    return labels
