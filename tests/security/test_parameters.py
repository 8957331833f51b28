"""A skops file may hold no parameter that names a file or a function, and no attribute that stands for a method."""

from __future__ import annotations

import operator
import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import scipy.sparse
import sklearn.datasets
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    RandomForestClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MinMaxScaler,
)
from sklearn.svm import SVC
from sklearn.utils import Bunch, all_estimators

from fin_pyfunc.model import estimators
from fin_pyfunc.model.errors import ArtifactError, NotLoggableError
from fin_pyfunc.model.soundness.parameters import MAX_JOBS, check_parameters
from tests.authoring.estimators import lightgbm, xgboost
from tests.models import bars, labels
from tests.security.skops_files import MOVES, WORDS, piped, read, text


def linear() -> Any:
    return LogisticRegression().fit(bars(), labels(-1, 0, 1))


def with_attribute(name: str, value: Any, make: Callable[[], Any] = linear) -> Callable[[], Any]:
    """An estimator with one more or another attribute, wherever `__setattr__` would say no."""

    def made() -> Any:
        estimator = make()
        vars(estimator)[name] = value
        return estimator

    return made


def changed_step(**parameters: Any) -> Callable[[], Any]:
    """Text that was fitted in memory, whose vectorizer is told otherwise afterwards."""

    def made() -> Any:
        pipeline = text().fit(WORDS, MOVES)
        vars(pipeline[0].named_transformers_["tfidf"]).update(parameters)
        return pipeline

    return made


ADDRESS = {"shape": (5,), "typestr": "<f8", "data": (16, False), "version": 3}


def of_an_address(holder: Any) -> Callable[[], Any]:
    def made() -> Any:
        pipeline = piped(MinMaxScaler()).fit(bars(), labels(-1, 0, 1))
        pipeline[0].min_ = holder()
        return pipeline

    return made


def boosted(**parameters: Any) -> Callable[[], Any]:
    return lambda: lightgbm().fit(bars(), labels(-1, 0, 1)).set_params(**parameters)


def shared_with_a_search() -> Any:
    """A function that a search remembers harmlessly, and that its best estimator has where it is called."""
    search = GridSearchCV(Pipeline([("log", FunctionTransformer(np.log1p)), ("last", LogisticRegression())]),
                          {"log__func": [np.log1p]}, cv=2).fit(bars().abs(), labels(-1, 0, 1))  # fmt: skip
    search.param_grid = {"log": [search.best_estimator_[0]]}
    search.best_estimator_[0].feature_names_out = np.log1p
    return search


HOSTILE: dict[str, tuple[Callable[[], Any], str]] = {
    "files named by rows": (
        changed_step(input="filename"), "input='filename' of step 'columns/tfidf' reads files that the rows name",
    ),
    "files opened by rows": (changed_step(input="file"), "input='file' of step 'columns/tfidf'"),
    "a name that NumPy holds": (changed_step(input=np.str_("filename")), "parameter input of step 'columns/tfidf'"),
    "a name in an array": (changed_step(input=np.array("filename")), "parameter input of step 'columns/tfidf'"),
    "a vectorizer of words": (
        lambda: CountVectorizer(input="filename"), "input='filename' of the estimator",
    ),
    "a hashing one": (lambda: piped(HashingVectorizer(input="filename")), "'hashingvectorizer'"),
    "a vectorizer deep down": (
        lambda: CalibratedClassifierCV(GridSearchCV(FeatureUnion([("a", CountVectorizer(input="file"))]), {})),
        "input='file' of step 'estimator/estimator/a'",
    ),
    "an analyzer that is a function": (changed_step(analyzer=np.log1p), "analyzer of step 'columns/tfidf' is a func"),
    "a tokenizer that is a class": (changed_step(tokenizer=str), "tokenizer of step 'columns/tfidf' is a class"),
    "a preprocessor": (changed_step(preprocessor=sklearn.utils.check_array), "parameter preprocessor"),
    "accents": (changed_step(strip_accents=np.isfinite), "parameter strip_accents"),
    "a cache in a folder": (lambda: Pipeline([("a", linear())], memory="/tmp/cache"), "memory of the estimator names"),
    "a cache deep down": (
        lambda: VotingClassifier([("one", Pipeline([("a", linear())], memory="x"))]), "memory of step 'one' names",
    ),
    "a kernel": (with_attribute("kernel", np.sin, lambda: SVC().fit(bars(), labels(0, 1))), "parameter kernel"),
    "a metric": (lambda: KNeighborsClassifier(metric=np.add), "parameter metric"),
    "a metric's own function": (
        lambda: KNeighborsClassifier(metric="pyfunc", metric_params={"func": np.add}), "parameter func of step",
    ),
    "weights": (lambda: KNeighborsClassifier(weights=np.exp), "parameter weights"),
    "a function of two arrays": (lambda: piped(FunctionTransformer(np.add)), "func of step 'functiontransformer'"),
    "a function that writes elsewhere": (
        lambda: piped(FunctionTransformer(np.log1p, kw_args={"out": np.zeros(3)})), "parameter out",
    ),
    "a function that leaves its result unwritten": (
        lambda: piped(FunctionTransformer(np.log1p, kw_args={"where": False})), "parameter where",
    ),
    "names of a function's columns": (
        lambda: piped(FunctionTransformer(np.log1p, feature_names_out=np.abs)), "parameter feature_names_out",
    ),
    "scores of columns elsewhere": (lambda: piped(SelectKBest(np.log1p)), "parameter score_func"),
    "columns that a function selects": (lambda: ColumnTransformer([("a", MinMaxScaler(), np.abs)]), "is a function"),
    "a function that a search remembers": (shared_with_a_search, "parameter feature_names_out"),
    "a scorer": (lambda: GridSearchCV(linear(), {}, scoring=np.mean), "parameter scoring"),
    "a rule of the best": (lambda: GridSearchCV(linear(), {}, refit=np.max), "parameter refit"),
    "a dispatch that is evaluated": (
        lambda: GridSearchCV(linear(), {}, pre_dispatch="__import__('os').getpid()"), "parameter pre_dispatch",
    ),
    "a method that is a function": (with_attribute("predict_proba", np.exp), "parameter predict_proba"),
    "a method that is a class": (with_attribute("predict", list), "parameter predict of the estimator takes the pl"),
    "a method hidden in a step": (
        lambda: piped(with_attribute("transform", np.log1p, MinMaxScaler)()), "transform of step 'minmaxscaler'",
    ),
    "a method that is text": (with_attribute("decision_function", "x"), "parameter decision_function"),
    "a constant of the class": (with_attribute("_impl", "epsilon_svr", SVC), "parameter _impl"),
    "another class": (with_attribute("__class__", {"x": 1}), "parameter __class__"),
    "an address in a Bunch": (of_an_address(lambda: Bunch(__array_interface__=ADDRESS)), "an address in memory"),
    "an address in an estimator": (
        of_an_address(with_attribute("__array_interface__", ADDRESS)), "an address in memory",
    ),
    "a method of a Bunch": (with_attribute("x", Bunch(__len__=3)), "parameter __len__ of step 'x'"),
    "threads": (with_attribute("n_jobs", MAX_JOBS + 1), "n_jobs of the estimator asks for something else than at m"),
    "negative threads": (with_attribute("n_jobs", -(10**9)), "parameter n_jobs"),
    "threads that are no number": (with_attribute("n_jobs", float("nan")), "parameter n_jobs"),
    "threads of a step": (with_attribute("n_jobs", "all", RandomForestClassifier), "parameter n_jobs"),
    "threads of k-means": (with_attribute("_n_threads", 10**7, KMeans), "parameter _n_threads"),
    "a log": (with_attribute("verbose", {"write": 1}), "parameter verbose"),
    "a file of the future": (with_attribute("cache_dir", "/tmp"), "cache_dir of the estimator names a file"),
    "an address of the future": (with_attribute("server_url", ["http://h"]), "parameter server_url"),
    "LightGBM, splits from a file": (boosted(forcedsplits_filename="/etc/passwd"), "parameter forcedsplits_filename"),
    "LightGBM, machines": (boosted(machines="10.0.0.1:1234"), "parameter machines"),
    "LightGBM, a model of a file": (boosted(input_model="/etc/passwd"), "parameter input_model"),
    "LightGBM, two parameters in one": (
        with_attribute("boosting_type", "gbdt machines=h:1", boosted()), "is more than one parameter of LightGBM",
    ),
    "LightGBM, two parameters in one name": (
        with_attribute("_other_params", {"x=1 machines": "h"}, boosted()), "is more than one parameter of LightGBM",
    ),
    "LightGBM, threads": (boosted(num_threads=5000), "parameter num_threads"),
    "XGBoost, threads": (with_attribute("n_jobs", 5000, lambda: xgboost().fit(bars(), labels(0, 1))), "n_jobs"),
    "XGBoost, a metric": (with_attribute("eval_metric", np.add, xgboost), "parameter eval_metric"),
    "XGBoost, threads by another name": (lambda: xgboost(nthread=5000), "parameter nthread"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "said"), HOSTILE.values(), ids=HOSTILE)
@pytest.mark.filterwarnings("ignore")
def test_a_hostile_parameter_is_refused_by_its_name(make: Callable[[], Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=re.escape(said)):
        read(make(), tmp_path)


READERS: dict[str, Any] = {
    "files of a folder": sklearn.datasets.load_files,
    "a file of vectors": sklearn.datasets.load_svmlight_file,
    "a data set of the network": sklearn.datasets.fetch_openml,
    "an array of a file": np.load,
    "numbers of a file": np.loadtxt,
    "text of a file": np.genfromtxt,
    "bytes of a file": np.fromfile,
    "MATLAB's": scipy.io.loadmat,
    "a sparse matrix of a file": scipy.sparse.load_npz,
    "a library": np.ctypeslib.load_library,
    "the interpreter": eval,
    "a module": __import__,
    "the shell": os.system,
    "a file": open,
    "a method": operator.methodcaller("write_text", "x"),
    "an attribute": operator.attrgetter("__class__.__init__.__globals__"),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
@pytest.mark.parametrize("place", [FunctionTransformer, lambda f: CountVectorizer(analyzer=f), lambda f: SVC(kernel=f)])
def test_a_function_that_reads_or_runs_is_not_trusted(reader: Any, place: Any, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="types that are not trusted here"):
        read(piped(place(reader)), tmp_path)
    with pytest.raises(ArtifactError, match="is a function, which would be called"):
        check_parameters(piped(place(reader)))


def test_an_array_that_a_file_stands_behind_is_refused(tmp_path: Path) -> None:
    estimator = linear()
    estimator.coef_ = np.memmap(tmp_path / "x", np.float64, "w+", shape=(3, 5))
    with pytest.raises(ArtifactError, match="parameter coef_ of the estimator is an array that another file"):
        check_parameters(estimator)


def calls_a_class(node: dict[str, Any]) -> None:
    if node.get("__class__") == "Bunch":
        node.update(__class__="LGBMClassifier", __module__="lightgbm.sklearn")


def calls_with_arguments(node: dict[str, Any]) -> None:
    if node.get("__loader__") == "TupleNode":
        node.update(__class__="LGBMClassifier", __module__="lightgbm.sklearn", __loader__="ConstructorFromReduceNode")
        node["content"] = {**node, "__loader__": "TupleNode", "__class__": "tuple", "__module__": "builtins"}


def hides_an_object(node: dict[str, Any]) -> None:
    if node.get("__loader__") == "JsonNode":
        node["content"] = ' {"\\u005f_array_interface__": 3}'


@pytest.mark.parametrize("change", [calls_a_class, calls_with_arguments, hides_an_object])
def test_a_class_is_not_called_while_the_file_is_read(change: Callable[[Any], None], tmp_path: Path) -> None:
    estimator = linear()
    estimator.extra = [Bunch(a=1.5), (1, 2)]
    assert read(estimator, tmp_path).extra == [{"a": 1.5}, (1, 2)]
    with pytest.raises(ArtifactError, match="which no library writes"):
        read(estimator, tmp_path, change)


def test_what_the_operator_names_may_be_a_function_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = piped(FunctionTransformer(half)).fit(bars(), labels(-1, 0, 1))
    with pytest.raises(ArtifactError, match="not trusted here"):
        read(pipeline, tmp_path)
    monkeypatch.setenv(estimators.TRUSTED_TYPES_VARIABLE, f"{__name__}.half, {__name__}.Calendar")
    assert read(pipeline, tmp_path).predict(bars()).tolist() == pipeline.predict(bars()).tolist()
    known = linear()
    known.extra = Calendar()
    assert read(known, tmp_path).extra.path == "holidays.csv"
    known.extra.input = "filename"
    with pytest.raises(ArtifactError, match="reads files that the rows name"):
        read(known, tmp_path)


def half(X: Any) -> Any:
    return X / 2


class Calendar:
    """Of a company's own library, with defaults of its class."""

    kind = "business days"

    def __init__(self) -> None:
        self.path, self.kind = "holidays.csv", "trading days"


def test_a_hostile_parameter_is_refused_when_logging_too(tmp_path: Path) -> None:
    pipeline = changed_step(input="filename")()
    said = "parameter input='filename' of step 'columns/tfidf' reads files that the rows name: use input='content'"
    with pytest.raises(NotLoggableError, match=f"{said}.*serialization='cloudpickle'"):
        estimators.dump(pipeline, tmp_path / "m.skops", "skops")
    estimators.dump(pipeline, tmp_path / "m.pkl", "cloudpickle")


# --- what a new version of scikit-learn, skops or LightGBM brings


def constraints() -> dict[str, dict[str, list[Any]]]:
    """Every parameter of every estimator of scikit-learn, and what it says of its values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = all_estimators()
    found: dict[str, dict[str, list[Any]]] = {}
    for name, kind in known:
        said = getattr(kind, "_parameter_constraints", {})
        found[name] = {parameter: of for parameter, of in said.items() if isinstance(of, list)}
    return found


def test_a_foreign_function_is_refused_wherever_scikit_learn_takes_one() -> None:
    kinds = dict(all_estimators())
    places = [(kind, name) for kind, of in constraints().items() for name, values in of.items() if callable in values]
    assert len(places) > 50
    for kind, name in places:
        estimator = object.__new__(kinds[kind])
        vars(estimator)[name] = os.getcwd
        with pytest.raises(ArtifactError, match=f"parameter {name} of the estimator is a function"):
            check_parameters(estimator)


#: Parameters that take any text, with what it means; none of them but `memory` names something outside of the model.
OF_ANY_TEXT = {
    "constant": "a class", "encoding": "of bytes", "importance_getter": "an attribute's name, looked up",
    "memory": "a folder", "metric": "a distance's name", "outlier_label": "a class", "pos_label": "a class",
    "pre_dispatch": "arithmetic", "refit": "a metric's name",
    "resource": "a parameter's name", "scoring": "a metric's name", "separator": "of names",
    "threshold": "arithmetic of a mean or median", "token_pattern": "an expression over text",
    "verbose_feature_names_out": "a pattern of names",
}  # fmt: skip


def test_every_parameter_that_takes_any_text_is_one_that_was_looked_at() -> None:
    found = {name for of in constraints().values() for name, values in of.items() if str in values}
    assert found <= OF_ANY_TEXT.keys(), found - OF_ANY_TEXT.keys()


def test_every_choice_of_a_file_is_one_that_is_refused() -> None:
    found = {
        name
        for of in constraints().values()
        for name, values in of.items()
        for value in values
        if re.search(r"file|url|folder|path|disk", " ".join(map(str, getattr(value, "options", []))))
    }
    assert found == {"input"}


def test_no_parameter_of_a_few_words_is_taken_for_the_name_of_a_file() -> None:
    for of in constraints().values():
        for name, values in of.items():
            options = {option for value in values for option in getattr(value, "options", [])}
            for option in options - {"file", "filename"}:
                check_parameters({name: option})


def test_skops_trusts_nothing_but_data_and_functions_of_arrays_by_itself() -> None:
    from importlib import import_module

    from skops.io import _trusted_types

    names = {name for key, of in vars(_trusted_types).items() if key.endswith("_TYPE_NAMES") for name in of}
    assert len(names) > 400
    for name in names:
        module, _, last = name.rpartition(".")
        found = getattr(import_module(module), last)
        is_data = isinstance(found, type) and (
            module in ("builtins", "numpy") or issubclass(found, np.generic | np.random.BitGenerator)
        )
        assert is_data or isinstance(found, np.ufunc) or name.startswith("sklearn."), name


def test_every_parameter_of_lightgbm_that_names_a_file_or_a_machine_is_refused() -> None:
    pytest.importorskip("lightgbm")
    from lightgbm.basic import _ConfigAliases

    of_files = {
        "config", "convert_model", "data", "forcedbins_filename", "forcedsplits_filename", "input_model",
        "machine_list_filename", "machines", "output_model", "output_result", "parser_config_file", "valid",
    }  # fmt: skip
    assert len(_ConfigAliases.get("data")) > 1
    known = _ConfigAliases.aliases
    sounds = {name for name in known if re.search(r"file|^machines|_model$|config|^data$|^valid$|result", name)}
    assert sounds == of_files
    for name in of_files:
        for alias in known[name]:
            estimator = clone(lightgbm())
            estimator._other_params = {alias: "/etc/passwd"}
            with pytest.raises(ArtifactError, match=f"parameter {alias} "):
                check_parameters(estimator)
