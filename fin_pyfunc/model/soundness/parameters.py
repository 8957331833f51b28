"""What an estimator that was read as data may be told by its parameters and attributes.

A list of types that a skops file may hold is not enough: `CountVectorizer(input="filename")` opens what a row names, an
attribute `predict` takes the place of the method, and `__array_interface__` makes NumPy read any address. So every
object that is reachable from the estimator is looked at, by name and value, before one of its methods is called.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any, NamedTuple

import numpy as np

from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.trees import forged

#: What NumPy asks an object that is no array for.
_ARRAY_PROTOCOLS = frozenset(
    {"__array__", "__array_interface__", "__array_struct__", "__cuda_array_interface__", "__dlpack__"}
)
#: What skops reads by calling the type that the file names; of values alone, and what is like a dict.
_CALLING_LOADERS = frozenset({"ConstructorFromReduceNode", "DictNode", "ListNode", "NdArrayNode", "SetNode"})
_OF_VALUES, _BUNCH = ("builtins", "collections", "numpy"), "sklearn.utils._bunch.Bunch"

#: Most threads or processes that a parameter may ask for.
MAX_JOBS = 256

#: Parameters and attributes whose values may only be these.
_ONLY: dict[str, tuple[tuple[Any, ...], str]] = {
    "input": (("content",), "reads files that the rows name: use input='content'"),
    "memory": ((None,), "names a cache on disk, which only training uses: use memory=None"),
}
_THREADS = frozenset({"_n_threads", "n_jobs", "n_threads", "nthread", "nthreads", "num_thread", "num_threads"})
_LEVELS = frozenset({"verbose", "verbosity"})
#: What joblib evaluates as arithmetic.
_DISPATCH = re.compile(r"all|[\d\s.+*/()-]*(n_jobs)?[\d\s.+*/()-]*")
#: Names whose text is a file, a folder, an address or a program: words of scikit-learn's style, and the parameters of
#: LightGBM that name files of trees and rows, or machines.
_PLACE = re.compile(
    r"(^|_)(cache|cachedir|command|cwd|dir|directory|file|filename|filenames|files|folder|host|hostname|hosts|library"
    r"|log|logger|machine|machines|path|paths|port|server|socket|uri|url|workers)(_|$)"
    r"|^(config|convert_model|data|forced_splits|fs|input_model|mlist|model_in|model_input|model_out|model_output"
    r"|name_pred|nodes|output_model|output_result|pred_name|predict_name|predict_result|prediction_name"
    r"|prediction_result|test|test_data|train|train_data|valid|valid_data)$"
)
_WORD = re.compile(r"\w+", re.ASCII)
#: Names of that kind whose values are words of a short list.
_CHOICES = frozenset({"path_method"})
#: Where a type may be a value.
_TYPES = frozenset({"default_factory", "dtype", "dtype_exclude", "dtype_include"})
#: What a search remembers of the values that it tried; predicting reads none of them.
_SEARCHED = frozenset({"best_params_", "cv_results_", "param_distributions", "param_grid"})
#: Functions that look at arrays and nothing else, by where they may be.
_SCORES = frozenset(
    f"sklearn.feature_selection.{name}"
    for name in ("_mutual_info.mutual_info_classif", "_univariate_selection.chi2", "_univariate_selection.f_classif")
)
#: What IsotonicRegression makes of its arrays when it is read; a file cannot name either.
_INTERPOLATION = frozenset(
    {"scipy.interpolate._interpolate.interp1d", "sklearn.isotonic.IsotonicRegression._build_f.<locals>.<lambda>"}
)
_CHECK_ARRAY = "sklearn.utils.validation.check_array"
_POOLS = frozenset({"numpy.max", "numpy.mean", "numpy.median", "numpy.min"})
#: Lists of (name, part, …), whose names are those of steps.
_NAMED_PARTS = frozenset({"estimators", "steps", "transformer_list", "transformers", "transformers_"})
#: What stands beside a booster in memory and in no file: its training data, and its address.
_BOOSTERS = frozenset({"lightgbm.basic.Booster", "xgboost.core.Booster"})
_NOT_WRITTEN = frozenset({"_handle", "handle", "train_set", "valid_sets"})

_PLAIN = (str, bytes, bytearray, bool, int, float, complex, np.generic, np.dtype, np.random.RandomState, slice)
_FUNCTIONS = (np.ufunc, FunctionType, BuiltinFunctionType, MethodType, partial)
_NUMBERS = (bool, int, float, np.integer, np.floating, np.bool_)


class _Item(NamedTuple):
    """A value, the parameter or attribute that it stands under, and the names that lead to it."""

    value: Any
    name: str
    where: tuple[str, ...]
    is_searched: bool


def check_parameters(estimator: Any, named: Collection[str] = ()) -> None:
    """Check every parameter and attribute of an estimator, and of everything that it holds.

    Parameters
    ----------
    estimator : object
        As it was read; none of its methods has been called.
    named : collection of str, default ()
        Qualified names of classes and functions that the operator trusts: such a function may be a value anywhere, and
        such a class may have attributes that name files, since what they mean is its own.

    Raises
    ------
    ArtifactError
        One of them names a file, a folder, a host, a cache or a function, asks for more than `MAX_JOBS` threads, or
        takes the place of a method. The message says which, and where.
    """
    _Walk(frozenset(named)).check(estimator)


def check_construction(nodes: Iterable[dict[str, Any]], named: Collection[str] = ()) -> None:
    """Check a skops file for what happens while it is read, before `check_parameters` can look at anything.

    skops calls some types with values of the file's, and NumPy asks objects in arrays for an address of their numbers.

    Parameters
    ----------
    nodes : iterable of dict
        Every JSON object of its schema, as `estimators.skops_nodes` yields them.
    named : collection of str, default ()
        As in `check_parameters`.

    Raises
    ------
    ArtifactError
    """
    for node in nodes:
        if not _ARRAY_PROTOCOLS.isdisjoint(node):
            raise forged("an object that names an address in memory")
        loader, content = node.get("__loader__"), node.get("content")
        if loader == "JsonNode" and isinstance(content, str) and content.lstrip()[:1] in ("{", "["):
            raise forged("objects within a text")
        what = f"{node.get('__module__')}.{node.get('__class__')}"
        if what in named or loader not in _CALLING_LOADERS:
            continue
        library = what.partition(".")[0]
        if loader == "ConstructorFromReduceNode" or (library not in _OF_VALUES and what != _BUNCH):
            raise forged("a call of a class")


class _Walk:
    def __init__(self, named: frozenset[str]) -> None:
        self._named = named
        #: by address and place; values are kept, so that no other one gets the address of one that was looked at
        self._seen: dict[tuple[int, str, bool], Any] = {}
        self._pending: list[_Item] = []

    def check(self, estimator: Any) -> None:
        self._pending.append(_Item(estimator, "", (), False))
        while self._pending:
            item = self._pending.pop()
            place = (id(item.value), item.name, item.is_searched)
            if item.value is None or isinstance(item.value, _PLAIN) or place in self._seen:
                continue
            self._seen[place] = item.value
            self._pending += self._parts(item)

    def _parts(self, item: _Item) -> Iterator[_Item]:
        value = item.value
        if isinstance(value, type):
            self._check_type(item)
        elif self._is_function(value):
            yield from self._function_parts(item)
        elif isinstance(value, np.ndarray):
            if type(value) not in (np.ndarray, np.ma.MaskedArray):
                raise _refused(item, item.name, "is an array that another file or object stands behind")
            if value.dtype == object:
                yield from (item._replace(value=part) for part in np.asarray(value).ravel().tolist())
        elif isinstance(value, dict):
            yield from self._attributes(item)
            yield from self._entries(item)
        elif isinstance(value, list | tuple | set | frozenset):
            yield from _members(item)
        else:
            yield from self._attributes(item)

    def _entries(self, item: _Item) -> Iterator[_Item]:
        is_plain = type(item.value) is dict
        for key, value in dict.items(item.value):
            if not isinstance(key, _PLAIN):
                yield item._replace(value=key)
            if not isinstance(key, str):
                yield item._replace(value=value)
                continue
            if not is_plain and _is_special(key):  # a Bunch answers for it as for an attribute
                raise _refused(item, key, "takes the place of what its class does")
            name = key.rpartition("__")[2].removeprefix("param_")
            if item.name in ("inv_kw_args", "kw_args") and key in ("out", "where"):
                raise _refused(item, key, "makes a function write to another array, or leave its own unwritten")
            if item.name == "_other_params" and not (_WORD.fullmatch(key) and _is_word(value)):
                raise _refused(item, key, "is more than one parameter of LightGBM")
            is_searched = item.is_searched or item.name in _SEARCHED
            if not is_searched:
                self._check_word(item, name, value)
            yield item._replace(value=value, name=name, is_searched=is_searched)
        if isinstance(item.value, defaultdict):
            yield item._replace(value=item.value.default_factory, name="default_factory")

    def _attributes(self, item: _Item) -> Iterator[_Item]:
        """What an object holds. Compiled classes without `__dict__` hold numbers alone, of those that are trusted."""
        kind = type(item.value)
        is_named, is_booster = _name(kind) in self._named, _name(kind) in _BOOSTERS
        for name, value in _state(item.value):
            if is_booster and name in _NOT_WRITTEN:
                continue
            if _is_special(name) or _hides(kind, name, is_named):
                raise _refused(item, name, "takes the place of what its class does")
            if name in _ONLY and not _is_one_of(value, _ONLY[name][0]):
                raise _refused(item, name, _ONLY[name][1], value)
            if name == "pre_dispatch" and isinstance(value, str) and not _DISPATCH.fullmatch(value):
                raise _refused(item, name, "is no number of jobs")
            if kind.__module__ == "lightgbm.sklearn" and not _is_word(value):
                raise _refused(item, name, "is more than one parameter of LightGBM")
            if not is_named:
                self._check_word(item, name, value)
            yield _Item(value, name, item.where if name in _NAMED_PARTS else (*item.where, name), item.is_searched)

    def _check_word(self, item: _Item, name: str, value: Any) -> None:
        """What the name of a parameter says of its value, wherever it stands."""
        is_number = isinstance(value, _NUMBERS)
        if name in _THREADS and not (value is None or (is_number and abs(float(value)) <= MAX_JOBS)):
            raise _refused(item, name, f"asks for something else than at most {MAX_JOBS} threads")
        if name in _LEVELS and not (value is None or is_number):
            raise _refused(item, name, "is no level of output")
        if _PLACE.search(name) and name not in _CHOICES and _has_text(value):
            raise _refused(item, name, "names a file, a folder or an address")

    def _check_type(self, item: _Item) -> None:
        if item.name not in _TYPES and not item.is_searched and _name(item.value) not in self._named:
            raise _refused(item, item.name, "is a class, which would be called")

    def _is_function(self, value: Any) -> bool:
        """Whether a value is a function, rather than a data object that can be called, such as a kernel or a loss."""
        if isinstance(value, _FUNCTIONS):
            return True
        library = type(value).__module__.partition(".")[0]
        return (
            callable(value)
            and library not in ("sklearn", "lightgbm", "xgboost")
            and _name(type(value)) not in self._named
        )

    def _function_parts(self, item: _Item) -> Iterator[_Item]:
        function, name = item.value, item.name
        if isinstance(function, partial):
            yield from (item._replace(value=part) for part in (*function.args, *vars(function).values()))
            yield from (item._replace(value=part, name=key) for key, part in function.keywords.items())
            function = function.func
        called = _name(function if hasattr(function, "__qualname__") else type(function))
        if called in self._named or (name == "f_" and called in _INTERPOLATION):
            return
        is_elementwise = _is_elementwise(function) or called == _CHECK_ARRAY
        places = {
            "func": is_elementwise, "inverse_func": is_elementwise, "pooling_func": called in _POOLS,
            "score_func": called in _SCORES,
        }  # fmt: skip
        if not (any(places.values()) if item.is_searched else places.get(name, False)):
            raise _refused(item, name, "is a function, which would be called")


def _members(item: _Item) -> Iterator[_Item]:
    for member in item.value:
        if item.name in _NAMED_PARTS and isinstance(member, list | tuple) and len(member) > 1:
            yield item._replace(value=member[1:], name="", where=(*item.where, str(member[0])))
        else:
            yield item._replace(value=member)


def _state(value: Any) -> Iterator[tuple[str, Any]]:
    if hasattr(value, "__dict__"):
        yield from vars(value).items()
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            if not slot.startswith("__") and hasattr(value, slot):
                yield slot, getattr(value, slot)


def _is_special(name: str) -> bool:
    return name.startswith("__") and name.endswith("__")


def _hides(kind: type, name: str, is_named: bool) -> bool:
    """Whether an instance's own attribute hides what its class has under this name.

    A property cannot be hidden; a number may be a default; so may other data of a class that the operator named.
    """
    for owner in kind.__mro__:
        if name in vars(owner):
            found = vars(owner)[name]
            if found is None or isinstance(found, _NUMBERS) or hasattr(type(found), "__set__"):
                return False
            return not is_named or hasattr(type(found), "__get__")
    return False


def _is_elementwise(function: Any) -> bool:
    return isinstance(function, np.ufunc) and (function.nin, function.nout) == (1, 1)


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    # by type first: a NumPy text or array may be equal to another text
    return any(type(value) is type(one) and value == one for one in allowed)


def _is_word(value: Any) -> bool:
    """Whether LightGBM reads a text as one value: it gets all parameters in one text, with blanks between them."""
    return not isinstance(value, str) or re.search(r"[\s=]", value) is None


def _has_text(value: Any) -> bool:
    if isinstance(value, list | tuple | set | frozenset):
        return any(map(_has_text, value))
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "OSU" and any(map(_has_text, value.ravel().tolist()))
    return isinstance(value, str | bytes | bytearray) and bool(value)


def _name(of: Any) -> str:
    return f"{getattr(of, '__module__', '')}.{getattr(of, '__qualname__', '')}"


def _refused(item: _Item, name: str, why: str, value: Any = None) -> ArtifactError:
    where = item.where[:-1] if item.where[-1:] == (name,) else item.where
    said = _shown(name) + (f"={value!r}" if type(value) is str and value in ("file", "filename") else "")
    of = f"step {'/'.join(map(_shown, where))!r}" if where else "the estimator"
    return ArtifactError(f"The estimator cannot be taken as data: parameter {said} of {of} {why}.")


def _shown(name: str) -> str:
    """A name out of a file, as far as it is one."""
    return name if re.fullmatch(r"[\w .-]{1,60}", name, re.ASCII) else "?"
