"""XGBoost's own serialized model, in a file with right digests: forged, it is refused, and the process goes on."""

from __future__ import annotations

import copy
import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skops.io
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.ensemble import VotingClassifier
from xgboost import XGBClassifier, XGBRFClassifier

import fin_pyfunc
from fin_pyfunc.model import estimators
from fin_pyfunc.model.errors import ArtifactError
from fin_pyfunc.model.soundness.ubjson import read_ubjson
from fin_pyfunc.model.soundness.xgboost import check_xgboost
from tests.authoring.estimators import lightgbm, why_no_lightgbm
from tests.models import Fitted, bars, bars_with_gaps, fit, labels, quotes_as_categories
from tests.security.forging import Damaged, Opener, boosters_changed, count, damage, damaged, encoded


def model_of(estimator: Any) -> bytes:
    return bytes(estimator.get_booster().__getstate__()["handle"])


def early_stopped() -> Fitted:
    X, y = bars(), labels(0, 1)
    estimator = XGBClassifier(n_estimators=40, max_depth=2, early_stopping_rounds=2, n_jobs=1)
    estimator.fit(X[:150], y[:150], eval_set=[(X[150:], y[150:])], verbose=False)
    assert estimator.best_iteration + 1 < estimator.get_booster().num_boosted_rounds()
    return Fitted(estimator, X, X)


def boosted(**options: Any) -> Any:
    return XGBClassifier(**{"n_estimators": 4, "max_depth": 3, "n_jobs": 1, **options})


def of_categories() -> Fitted:
    """Split on categories alone, by sets of them and one by one."""
    X = quotes_as_categories().assign(return_1=0.0, order_flow_imbalance=0.0)
    return fit(boosted(enable_categorical=True, max_cat_to_onehot=4), X, labels(0, 1, 2))


HONEST: dict[str, Callable[[], Fitted]] = {
    "two classes": lambda: fit(boosted(), bars(), labels(0, 1)),
    "three classes": lambda: fit(boosted(), bars(), labels(0, 1, 2)),
    "gaps": lambda: fit(boosted(), bars_with_gaps(), labels(0, 1, 2)),
    "categories": of_categories,
    "early stopped": early_stopped,
    "pruned": lambda: fit(boosted(gamma=20, max_depth=6, tree_method="exact"), bars(), labels(0, 1)),
    "dart": lambda: fit(boosted(booster="dart", rate_drop=0.5), bars(), labels(0, 1, 2)),
    "linear": lambda: fit(boosted(booster="gblinear", max_depth=None), bars(), labels(0, 1, 2)),
    "leaves of all classes": lambda: fit(boosted(multi_strategy="multi_output_tree"), bars(), labels(0, 1, 2)),
    "forest": lambda: fit(XGBRFClassifier(n_estimators=5, max_depth=3, n_jobs=1), bars(), labels(0, 1, 2)),
    "several trees a round": lambda: fit(boosted(num_parallel_tree=3), bars(), labels(0, 1, 2)),
    "hinge": lambda: fit(boosted(objective="binary:hinge"), bars(), labels(0, 1)),
    "no trees": lambda: fit(boosted(n_estimators=0), bars(), labels(0, 1)),
    "one leaf": lambda: fit(boosted(gamma=1e9), bars(), labels(0, 1, 2)),
}


@pytest.mark.parametrize("kind", HONEST)
@pytest.mark.filterwarnings("ignore")
def test_what_xgboost_wrote_loads_with_the_same_probabilities(kind: str, tmp_path: Path) -> None:
    fitted = HONEST[kind]()
    skops.io.dump(fitted.estimator, tmp_path / "m.skops")
    read = estimators.load_file(tmp_path / "m.skops", "skops")
    expected = fitted.estimator.predict_proba(fitted.held_out)
    assert np.array_equal(read.predict_proba(fitted.held_out), expected)
    assert np.array_equal(read.predict(fitted.held_out), fitted.estimator.predict(fitted.held_out))
    content = model_of(fitted.estimator)
    assert encoded(read_ubjson(content)) == content


def test_boosters_that_skops_writes_twice_load(tmp_path: Path) -> None:
    """As a list and by name, a vote holds each of its members twice."""
    members = [("a", boosted()), ("b", boosted(max_depth=1)), *([] if why_no_lightgbm() else [("c", lightgbm())])]
    estimator = VotingClassifier(members, voting="soft").fit(bars(), labels(0, 1))
    skops.io.dump(estimator, tmp_path / "m.skops")
    read = estimators.load_file(tmp_path / "m.skops", "skops")
    assert np.array_equal(read.predict_proba(bars()), estimator.predict_proba(bars()))


# --- what was forged


@contextmanager
def opening(kind: str, path: Path) -> Iterator[Opener]:
    fitted = HONEST[kind]()
    fin_pyfunc.save_model(fitted.estimator, fitted.train, path, input_example=None)
    opener = Opener(path)
    yield opener
    opener.close()


@pytest.fixture(scope="module", params=["three classes", "categories"])
def opener(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opener]:
    with opening(request.param, tmp_path_factory.mktemp("xgboost") / "model") as opener:
        yield opener


def learner(document: Any) -> Any:
    return document["Model"]["learner"]


def trees(document: Any) -> Any:
    return learner(document)["gradient_booster"]["model"]["trees"]


def at(name: str, index: int, value: float) -> Callable[[Any], None]:
    def forge(document: Any) -> None:
        array = trees(document)[1][name] = trees(document)[1][name].copy()
        array[index] = value

    return forge


def shorter(name: str) -> Callable[[Any], None]:
    def forge(document: Any) -> None:
        trees(document)[1][name] = trees(document)[1][name][:-1]

    return forge


def put(value: Any, *path: Any) -> Callable[[Any], None]:
    def forge(document: Any) -> None:
        of = document
        for step in path[:-1]:
            of = of[step]
        assert path[-1] in of if isinstance(of, dict) else path[-1] < len(of)
        of[path[-1]] = value

    return forge


def both(part: str, name: str, value: str) -> Callable[[Any], None]:
    def forge(document: Any) -> None:
        for of in document.values():
            put(value, part, name)(of["learner"])

    return forge


LEARNER, BOOSTER = ("Model", "learner"), ("Model", "learner", "gradient_booster", "model")
FORGED: dict[str, Callable[[Any], None]] = {
    "a parent beyond the end": at("parents", 1, 10**9),
    "a parent that is another": at("parents", 1, 2),
    "a child beyond the end": at("left_children", 0, 10**9),
    "a child before the start": at("right_children", 0, -7),
    "a loop": at("left_children", 0, 0),
    "two ways to one node": at("right_children", 0, 1),
    "a leaf with a child": at("right_children", -1, 1),
    "a feature that no row has": at("split_indices", 0, 10**8),
    "a feature before the first": at("split_indices", 0, -1),
    "a leaf that is no number": at("split_conditions", -1, np.nan),
    "no boolean": at("default_left", 0, 7),
    "a category where there is none": at("split_type", -1, 1),
    "fewer parents": shorter("parents"),
    "fewer conditions": shorter("split_conditions"),
    "fewer flags": shorter("default_left"),
    "more nodes": put("99999", *BOOSTER, "trees", 1, "tree_param", "num_nodes"),
    "no nodes": put("0", *BOOSTER, "trees", 1, "tree_param", "num_nodes"),
    "leaves of no width": put("-1", *BOOSTER, "trees", 1, "tree_param", "size_leaf_vector"),
    "no classes": both("learner_model_param", "num_class", "-1"),
    "wide leaves": put("3", *BOOSTER, "trees", 1, "tree_param", "size_leaf_vector"),
    "a tree of more features": put("9999", *BOOSTER, "trees", 1, "tree_param", "num_feature"),
    "a tree twice": put(0, *BOOSTER, "trees", 1, "id"),
    "a tree beyond the end": put(10**6, *BOOSTER, "trees", 1, "id"),
    "a class beyond the end": put(9, *BOOSTER, "tree_info", 1),
    "a class before the first": put(-1, *BOOSTER, "tree_info", 1),
    "rounds beyond the end": put(10**6, *BOOSTER, "iteration_indptr", 1),
    "more trees": put("99999", *BOOSTER, "gbtree_model_param", "num_trees"),
    "more classes": both("learner_model_param", "num_class", "2000000"),
    "another number of classes": both("learner_model_param", "num_class", "2"),
    "more features": both("learner_model_param", "num_feature", "2000000000"),
    "settings of more features": put("50", "Config", "learner", "learner_model_param", "num_feature"),
    "another objective": both("objective", "name", "rank:ndcg"),
    "a booster of its own": put("gblinear", "Config", "learner", "gradient_booster", "name"),
    "more sums": put("[0,0,0,0,0]", *LEARNER, "learner_model_param", "base_score"),
    "a round that there is not": put({"best_iteration": "99999"}, *LEARNER, "attributes"),
    "a name too few": put(["a"], *LEARNER, "feature_names"),
    "a thread for each atom": put("2000000000", "Config", "learner", "generic_param", "nthread"),
}
#: Of a model that was trained on categories.
OF_CATEGORIES: dict[str, Callable[[Any], None]] = {
    "a category beyond memory": at("categories", 0, 2**31 - 1),
    "a category before the first": at("categories", 0, -1),
    "a segment beyond the end": at("categories_segments", 0, 2**40),
    "a size beyond the end": at("categories_sizes", 0, 2**40),
    "an empty set": at("categories_sizes", 0, 0),
    "a node beyond the end": at("categories_nodes", 0, 10**9),
    "a number by category": at("split_type", 0, 0),
    "known ones of fewer features": lambda d: learner(d)["gradient_booster"]["model"]["cats"]["enc"].pop(),
    "an order beyond the end": put(np.full(7, 10**9, ">i4"), *BOOSTER, "cats", "sorted_idx"),
    "a feature beyond the end": put(np.array([0, 0, 0, 3, 10**9], ">i4"), *BOOSTER, "cats", "feature_segments"),
    "a text beyond the end": put(np.array([0, 4, 7, 10**9], ">i4"), *BOOSTER, "cats", "enc", 2, "offsets"),
}


def test_a_forged_xgboost_model_is_refused_before_xgboost_reads_it(opener: Opener) -> None:
    document = read_ubjson(opener.content)
    assert opener.opened(encoded(document)) == "answered"
    is_categorical = bool(len(trees(document)[1]["categories"]))
    for kind, forge in {**FORGED, **(OF_CATEGORIES if is_categorical else {})}.items():
        forged = copy.deepcopy(document)
        forge(forged)
        said = opener.opened(encoded(forged))
        assert said.startswith("refused: The model's file holds"), f"{kind}: {said}"


def test_bytes_that_are_not_one_whole_model_are_refused(opener: Opener) -> None:
    content = opener.content
    nested = b"{" + count(1) + b"a" + b"[#" + count(1)
    for forged in (
        b"", content[:-1], content + b"}", content.replace(b"[$l#L\0", b"[$l#L\x7f", 1), b"[#" + count(1 << 62),
        content.replace(b"[$l#L\0", b"[$l#L\xff", 1), content.replace(b"[$l#", b"[$x#", 1),
        content.replace(b"{L", b'{"', 1), b"[#" + count(1), (b"[#" + count(1)) * 100_000, nested * 50_000,
        b'{"learner": {}}', content.replace(b"Config", b"Model1", 1), b"binf" + content, b"CONFIG-offset:" + content,
    ):  # fmt: skip
        said = opener.opened(forged)
        assert said.startswith("refused: The model's file holds"), said
    twice = encoded({"a": 1})[1:-1]
    with pytest.raises(ArtifactError, match="a field that is there twice"):
        check_xgboost(b"{" + twice * 2 + b"}")


def test_bytes_that_skops_would_take_from_elsewhere_are_refused(opener: Opener) -> None:
    """skops names its parts by ids, and makes keys by types, that are in the file as well."""

    def another_key(node: dict[str, Any]) -> None:
        content = node["content"]["content"]
        content["other"] = {**content["handle"], "__id__": 1}

    def nameless(node: dict[str, Any]) -> None:
        del node["content"]["content"]["handle"]["__id__"]

    def known(node: dict[str, Any]) -> None:
        node["content"]["content"]["handle"]["__id__"] = node["__id__"]

    def bare(node: dict[str, Any]) -> None:
        node["content"]["content"]["handle"] |= {"__class__": "bytes", "__loader__": "BytesNode"}

    def ordered(node: dict[str, Any]) -> None:
        node["content"] |= {"__class__": "OrderedDict", "__module__": "collections"}

    for change in (another_key, nameless, known, bare, ordered):
        said = opener.opened(opener.content, boosters_changed(change))
        assert said.startswith("refused: The model's file holds"), f"{change.__name__}: {said}"


@pytest.mark.skipif(bool(why_no_lightgbm()), reason="LightGBM cannot be loaded here")
def test_a_lightgbm_model_that_stands_for_another_is_refused(tmp_path: Path) -> None:
    """Its state says what is good, and that it is an object met before, which is not."""
    estimator = lightgbm()
    estimator._Booster, estimator.first = None, {"_handle": "anything"}
    estimator.__dict__["_Booster"] = estimator.__dict__.pop("_Booster")  # behind what it stands for
    estimator.fit(bars(), labels(0, 1))
    path = tmp_path / "m.skops"
    skops.io.dump(estimator, path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    met = json.loads(parts["schema.json"])["content"]["content"]["first"]["__id__"]

    def stand_in(node: dict[str, Any]) -> None:
        node["content"] |= {"__loader__": "CachedNode", "__id__": met}

    parts["schema.json"] = boosters_changed(stand_in)(parts["schema.json"].decode()).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    with pytest.raises(ArtifactError, match="a LightGBM model that is cut off or damaged"):
        estimators.load_file(path, "skops")


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_a_damaged_xgboost_model_is_an_error_or_answers_and_never_a_crash(opener: Opener, data: st.DataObject) -> None:
    said = opener.opened(data.draw(damage(damaged(opener.content, []))))
    assert said.startswith(("answered", "refused"))


@pytest.mark.long
@pytest.mark.parametrize("kind", HONEST)
def test_damaged_xgboost_models_of_every_kind_are_never_a_crash(kind: str, tmp_path: Path) -> None:
    with opening(kind, tmp_path / "model") as opener:

        @settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
        @given(damage(damaged(opener.content, [])))
        def never_a_crash(content: Damaged) -> None:
            assert opener.opened(content).startswith(("answered", "refused"))

        never_a_crash()
