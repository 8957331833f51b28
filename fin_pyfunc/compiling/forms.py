"""Fitted estimator -> compiled forms: made, compared with the estimator, timed, and only the good ones kept."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from fin_pyfunc.compiling.comparisons import compared_values, comparisons
from fin_pyfunc.compiling.conversion import convert, culprit, parts
from fin_pyfunc.compiling.errors import NotCompilable
from fin_pyfunc.compiling.exactness import Reference, Run
from fin_pyfunc.compiling.graph import ensemble_graph, linear_graph
from fin_pyfunc.compiling.grown import ensemble_of, is_ensemble
from fin_pyfunc.compiling.hard_rows import HardRows, hard_rows
from fin_pyfunc.compiling.linear import is_linear
from fin_pyfunc.compiling.program.build import program_of, step_in_the_way
from fin_pyfunc.compiling.program.classifiers import is_classifier
from fin_pyfunc.compiling.program.comparisons import is_exact, program_rows
from fin_pyfunc.compiling.program.delegates import cut_of
from fin_pyfunc.compiling.rounding import grades
from fin_pyfunc.compiling.timing import ROW_COUNTS, seconds
from fin_pyfunc.compiling.tree_form import decides_by_probability, trees_of
from fin_pyfunc.compiling.treelite_model import treelite_model
from fin_pyfunc.compiling.trees import Array
from fin_pyfunc.model.backends.following import gap
from fin_pyfunc.model.backends.native import has_proba, single_threaded
from fin_pyfunc.model.backends.onnx import INPUT, OUTPUT
from fin_pyfunc.model.backends.onnx_session import open_session
from fin_pyfunc.model.backends.trees import runner
from fin_pyfunc.model.decision import Label
from fin_pyfunc.model.feature import NUMERIC, Feature
from fin_pyfunc.model.features import FeatureSpec
from fin_pyfunc.model.form import Form
from fin_pyfunc.model.program import program as programs
from fin_pyfunc.model.tree_file import check, written

TREES_FILE, PROGRAM_FILE = "model.trees", "steps.program"
ONNX_FILE, ONNX_BATCH_FILE, TREELITE_FILE = "model.onnx", "model-batch.onnx", "trees.treelite"
#: Tree nodes beyond which a second file is written for many rows, and most nodes in one of its blocks.
WHOLE_NODES, BLOCK_NODES = 16_000, 8_000
#: Row counts from which the second file may be the faster one.
BATCH_COUNTS = (50, 100, 200, 500, 1000)
_FLOAT64 = frozenset({"float64", "Float64"})
#: Backends whose forms compute with codes of text and categories.
CODED = frozenset({"program"})


@dataclass(frozen=True)
class Compiled:
    """What came of an estimator.

    Parameters
    ----------
    forms : list of Form
        Fastest for one row first; their files are written.
    dropped : dict of str to str
        Backend to one clause that says why it was not kept.
    native_seconds : dict of int to float
        Seconds that the estimator itself takes for so many rows; empty where it could not be asked.
    """

    forms: list[Form] = field(default_factory=list)
    dropped: dict[str, str] = field(default_factory=dict)
    native_seconds: dict[int, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Made:
    """A form before it is judged."""

    form: Form
    contents: dict[str, bytes]
    run: Run
    batch: Run | None
    exact: bool
    #: rows of the sample to rows at the constants that the form compares with
    hard: Callable[[Array], HardRows] | None = None


def compile_estimator(
    estimator: Any,
    spec: FeatureSpec,
    classes: Sequence[Label],
    folder: Path,
    sample: np.ndarray[Any, Any] | None = None,
    *,
    tolerance: float = 1e-6,
    backends: Sequence[str] | None = None,
    cuml: tuple[Mapping[str, str], str] | None = None,
    begun: Callable[[Compiled, str], None] | None = None,
) -> Compiled:
    """Compile an estimator in every way that is exact.

    Parameters
    ----------
    estimator : object
        Fitted; it is not modified.
    spec : FeatureSpec
    classes : sequence of Label, length k
        In `predict_proba`'s column order.
    folder : Path
        Where files are written; nothing is left there of a form that is dropped.
    sample : ndarray of shape (n_rows, n_features), float64, or None, default None
        Rows of the training data, NaN for null. None where there are none at hand.
    tolerance : float, default 1e-6
        How far a score may be off; 0 keeps only forms that are equal to the last bit.
    backends : sequence of {"trees", "program", "onnx", "treelite"}, default `backends_of` it
        ONNX's is made of a tree ensemble only where there is none of "trees", which is no slower and more exact.
    cuml : (mapping of str to str, str) or None, default None
        For the twin of an estimator of cuML's: scikit-learn class to cuML class, and the name of the estimator's file.
    begun : callable, optional
        Called before a form is made, with what is done so far and the backend's name.

    Returns
    -------
    Compiled
        An estimator that cannot be compiled is no error: `dropped` says why.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped] # it ships no types

    backends = backends_of(estimator, spec) if backends is None else backends
    try:
        numbers, single = _numbers(spec, backends)
        _compilable(estimator)
    except NotCompilable as e:
        return Compiled(dropped=dict.fromkeys(backends, str(e)))
    forms: list[Form] = []
    dropped: dict[str, str] = {}
    with single_threaded(estimator), threadpool_limits(1), warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # the rows that forms are compared on are meant to be odd
        try:
            reference = Reference.of(estimator, numbers, classes, sample)
        except NotCompilable as e:
            return Compiled(dropped=dict.fromkeys(backends, str(e)))
        except Exception as e:  # an estimator of any kind at all; it is scored natively, as it was before
            return Compiled(dropped=dict.fromkeys(backends, f"comparing it raised {type(e).__name__}"))
        native_seconds = seconds(reference.native.score, reference.rows[: reference.n_plain])
        for backend in backends:
            if backend == "onnx" and any(form.backend in ("program", "trees") for form in forms):
                continue  # it is no faster and less exact
            if begun is not None:
                begun(Compiled(forms, dropped, native_seconds), backend)
            try:
                forms.append(_form(backend, estimator, reference, single, folder, tolerance))
            except NotCompilable as e:
                dropped[backend] = str(e)
            except ImportError as e:
                dropped[backend] = f"it needs {(e.name or 'a package').partition('.')[0]}, which is not installed"
            except Exception as e:  # whatever a converter trips over, logging the model goes on
                dropped[backend] = f"making it raised {type(e).__name__}"
        if cuml is not None and not spec.is_coded:
            from fin_pyfunc.compiling.cuml_form import cuml_form

            try:
                forms.append(cuml_form(*cuml, reference=reference, tolerance=tolerance))
            except NotCompilable as e:
                dropped["cuml"] = str(e)
    forms.sort(key=lambda form: form.seconds[1])
    return Compiled(forms, dropped, native_seconds)


def _form(backend: str, estimator: Any, reference: Reference, single: bool, folder: Path, tolerance: float) -> Form:
    make = {"trees": _trees, "program": _program, "onnx": _onnx, "treelite": _treelite}.get(backend)
    if make is None:
        raise NotCompilable("there is no such backend")
    if reference.spec.is_coded and backend not in CODED:
        raise NotCompilable(_no_number(reference.spec))
    made = make(estimator, reference, single)
    plain = reference.rows[: reference.n_plain]
    if made.hard is not None:
        hard = made.hard(plain)
        _judge_steps(made.run, hard, culprit(estimator), tolerance)
        reference = reference.with_rows(_answered(made.run, hard.rows))
    error, band = reference.judge(
        made.run, made.batch, exact=made.exact, tolerance=tolerance, cut=made.form.cut, withholds=backend == "program"
    )
    taken, batch_from = _timed(made, plain)
    form = msgspec.structs.replace(
        made.form, output=reference.output, error=error, band=band, seconds=taken, batch_from=batch_from,
        batch_file=made.form.batch_file if batch_from else None,
    )  # fmt: skip
    for name in form.files:
        (folder / name).write_bytes(made.contents[name])
    return form


def _judge_steps(run: Run, hard: HardRows, computes_in: str, tolerance: float) -> None:
    """Refuse a form whose scores jump where nobody can say on which side of the jump the estimator is."""
    if len(hard.below):
        apart = abs(run(hard.below) - run(hard.above))
        if not (np.isnan(apart) | (apart <= tolerance)).all():  # a row without scores is asked of the estimator
            raise NotCompilable(f"{computes_in} decides on numbers that are rounded on the way")


def _answered(run: Run, rows: Array) -> Array:
    """The rows that a form answers; of one without scores the estimator is asked."""
    with contextlib.suppress(Exception):  # a graph may refuse rows, as its estimator does
        rows = rows[~np.isnan(run(rows)).any(axis=1)] if len(rows) else rows
    return rows


def _trees(estimator: Any, reference: Reference, single: bool) -> _Made:
    trees = trees_of(estimator, reference.rows.shape[1], single=single)
    check(trees, reference.scores.shape[1])
    # a class that hangs on less than a probability shows: the band asks the estimator about such a row
    exact = decides_by_probability(estimator) and not len(trees.linear_starts)  # which may make NaN of a number
    return _Made(Form(backend="trees", file=TREES_FILE), {TREES_FILE: written(trees)}, runner(trees), None, exact)


def _program(estimator: Any, reference: Reference, single: bool) -> _Made:
    if single:
        raise NotCompilable("it computes in float32, as its features are, and a program would in float64")
    content = programs.written(program_of(estimator, reference.spec))
    run = programs.read(content, reference.scores.shape[1])
    form = Form(backend="program", file=PROGRAM_FILE, cut=cut_of(estimator))
    hard = partial(program_rows, run, reference.spec)
    # a class that hangs on less than a probability shows: the band asks the estimator about such a row
    exact = is_exact(run) and has_proba(estimator) and gap(estimator, is_given_frames=False) == 0
    return _Made(form, {PROGRAM_FILE: content}, run, None, exact, hard)


def _onnx(estimator: Any, reference: Reference, single: bool) -> _Made:
    if not has_proba(estimator) and not _has_decisions(estimator):
        raise NotCompilable("it has neither probabilities nor decision values")
    n_features, n_scores = reference.rows.shape[1], reference.scores.shape[1]
    exact, n_nodes, is_converted = False, 0, False
    build: Callable[[int | None], Any]
    if is_ensemble(estimator):
        ensemble = ensemble_of(estimator)
        n_nodes = len(ensemble.trees.left)
        exact = ensemble.is_pure or (ensemble.kind == "forest" and len(ensemble.trees.roots) == 1)

        def build(block: int | None) -> Any:
            return ensemble_graph(ensemble, n_features, block=block, single=single)

    elif is_linear(estimator):

        def build(block: int | None) -> Any:  # noqa: ARG001 - it has no trees
            return linear_graph(estimator, n_features, single=single)

    elif single:
        raise NotCompilable("it computes in float32, as its features are, and a converted form would in float64")
    else:
        is_converted = True
        n_nodes = sum(len(ensemble_of(part).trees.left) for part in parts(estimator) if is_ensemble(part))

        def build(block: int | None) -> Any:
            return convert(estimator, n_features, n_scores, block=block)

    graph = build(None)
    contents = {ONNX_FILE: graph.SerializeToString()}
    if n_nodes > WHOLE_NODES:
        contents[ONNX_BATCH_FILE] = build(BLOCK_NODES).SerializeToString()
    runs = [_session_run(content) for content in contents.values()]
    batch_file = ONNX_BATCH_FILE if len(runs) > 1 else None
    form = Form(backend="onnx", file=ONNX_FILE, batch_file=batch_file)
    batch = runs[1] if batch_file else None
    hard = partial(_graph_rows, graph, culprit(estimator)) if is_converted else None
    return _Made(form, contents, runs[0], batch, exact, hard)


def _graph_rows(graph: Any, named: str, plain: Array) -> HardRows:
    found = comparisons(graph, grades(graph, named))
    return hard_rows(compared_values(graph, found), found, plain)


def _session_run(content: bytes) -> Run:
    try:
        session = open_session(content)
    except Exception as e:
        raise NotCompilable("ONNX Runtime does not take its graph") from e

    def run(matrix: Array) -> Array:
        scores: Array = session.run([OUTPUT], {INPUT: matrix})[0]
        return scores

    return run


def _treelite(estimator: Any, reference: Reference, single: bool) -> _Made:  # noqa: ARG001 - trees alone see to it
    import treelite

    if reference.output != "probabilities":
        raise NotCompilable("it has no probabilities")
    content, casts, exact = treelite_model(estimator)
    model = treelite.Model.deserialize_bytes(content)

    def run(matrix: Array) -> Array:
        X = matrix.astype(np.float32) if casts else matrix
        scores = np.asarray(treelite.gtil.predict(model, X, nthread=1), dtype=np.float64).reshape(len(X), -1)
        return np.column_stack([1 - scores, scores]) if scores.shape[1] == 1 else scores

    return _Made(Form(backend="treelite", file=TREELITE_FILE, casts=casts), {TREELITE_FILE: content}, run, None, exact)


def _timed(made: _Made, rows: Array) -> tuple[dict[int, float], int]:
    """Seconds at each row count, and from how many rows the batch file is faster; 0 where it never is."""
    taken = seconds(made.run, rows)
    if made.batch is None:
        return taken, 0
    whole, blocked = (seconds(run, rows, BATCH_COUNTS) for run in (made.run, made.batch))
    timed = [count for count in BATCH_COUNTS if count in whole and count in blocked]
    faster = [blocked[count] < whole[count] for count in timed]
    # from where on it is never slower again
    ever = next((i for i in range(len(faster)) if all(faster[i:])), None)
    if ever is None:
        return taken, 0
    batch_from = timed[ever]
    better = {count: blocked[count] for count in ROW_COUNTS if count in blocked and count >= batch_from}
    return taken | better, batch_from


def _numbers(spec: FeatureSpec, backends: Sequence[str]) -> tuple[FeatureSpec, bool]:
    """The spec with a number for every feature of any kind, and whether all features are float32.

    Raises
    ------
    NotCompilable
        A feature is neither a number nor has codes that one of the backends takes.
    """
    if not spec.features:
        raise NotCompilable("it says nothing of its features")
    if _not_numbers(spec) and not (spec.is_coded and CODED.intersection(backends)):
        raise NotCompilable(_no_number(spec))
    features = [
        Feature(name=feature.name, kind="number", dtype="float64") if feature.kind == "any" else feature
        for feature in spec.features
    ]
    floats = {feature.dtype for feature in features if feature.kind == "number"}
    single = floats == {"float32"} and all(feature.kind == "number" for feature in features)
    if not single and not floats <= _FLOAT64:
        raise NotCompilable("its features mix float32 or another dtype with float64")
    return msgspec.structs.replace(spec, features=features), single


def _not_numbers(spec: FeatureSpec) -> set[str]:
    return {str(feature.kind) for feature in spec.features} - {*NUMERIC, "any"}


def _no_number(spec: FeatureSpec) -> str:
    return f"a feature is {min(_not_numbers(spec))}, not a number"


def coded_for(forms: Sequence[Form], spec: FeatureSpec) -> FeatureSpec | None:
    """Features with codes where one of the forms computes with these; None where none does, as estimators want text."""
    return spec if any(form.backend in CODED for form in forms) else None


def backends_of(estimator: Any, spec: FeatureSpec, wanted: str = "auto") -> tuple[str, ...]:
    """What an estimator may be compiled for, in the order in which forms are made; `wanted` is a backend's name."""
    if is_ensemble(estimator) and _not_numbers(spec):
        return ("program",)  # which gives trees the codes that their library does
    first = "program" if is_classifier(estimator) else "trees" if is_ensemble(estimator) else "onnx"
    return (first, "onnx", "treelite") if "onnx" not in (first, wanted) else ("onnx", "treelite")


def can_compile(estimator: Any) -> bool:
    """Whether an estimator is of a library that can be compiled at all."""
    return is_ensemble(estimator) or type(estimator).__module__.startswith("sklearn.")


def why_not(estimator: Any, spec: FeatureSpec) -> str | None:
    """Why there can be no compiled form, as far as the estimator's class and its features say so; None where they
    do not.
    """
    try:
        _compilable(estimator)
        _numbers(spec, backends_of(estimator, spec))
    except NotCompilable as e:
        has_no_codes = _not_numbers(spec) and not spec.is_coded and can_compile(estimator)
        return (step_in_the_way(estimator, spec) if has_no_codes else None) or str(e)
    return None


def _compilable(estimator: Any) -> None:
    if not can_compile(estimator):
        raise NotCompilable(f"{type(estimator).__name__} is no estimator of a library that can be compiled")
    if not has_proba(estimator) and not _has_decisions(estimator) and not is_classifier(estimator):
        raise NotCompilable("it has neither probabilities nor decision values")


def _has_decisions(estimator: Any) -> bool:
    return callable(getattr(estimator, "decision_function", None))
