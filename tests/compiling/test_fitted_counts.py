"""Trees, stages and classes are counted in what was fitted, never read from a constructor's parameter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.authoring.estimators import lightgbm, piped, random_forest, sk
from tests.compiling.checks import assert_same, compiled, matrix, odd_rows
from tests.models import N_TRAIN, Fitted, bars, fit, labels


def stopped_boosting(*names: Any, **options: Any) -> Fitted:
    """Gradient boosting that stopped long before its 400 stages."""
    make = sk("ensemble.GradientBoostingClassifier", n_estimators=400, n_iter_no_change=2, random_state=0, **options)
    model = fit(make(), bars(), labels(*names))
    assert len(model.estimator.estimators_) < 100
    return model


def stopped_ada_boost() -> Fitted:
    """AdaBoost whose first tree is perfect, so that it stops there."""
    model = fit(
        sk("ensemble.AdaBoostClassifier", estimator=sk("tree.DecisionTreeClassifier")(), n_estimators=50)(),
        bars(), labels(-1, 0, 1),
    )  # fmt: skip
    assert len(model.estimator.estimators_) == 1
    return model


def stopped_histogram() -> Fitted:
    make = sk("ensemble.HistGradientBoostingClassifier", max_iter=300, early_stopping=True, n_iter_no_change=2)
    model = fit(make(), bars(), labels(-1, 0, 1))
    assert model.estimator.n_iter_ < 100
    return model


def stopped_lightgbm() -> Fitted:
    made = lightgbm()
    import lightgbm as lgb

    made.set_params(n_estimators=300)
    train, held_out, y = bars().iloc[:N_TRAIN], bars().iloc[N_TRAIN:], labels("a", "b", "c")
    made.fit(train, y[:N_TRAIN], eval_set=[(held_out, y[N_TRAIN:])], callbacks=[lgb.early_stopping(2, verbose=False)])
    assert 0 < made.best_iteration_ < 300
    return Fitted(made, train, held_out)


def stopped_xgboost(*names: Any, **options: Any) -> Fitted:
    from xgboost import XGBClassifier

    made = XGBClassifier(n_estimators=300, early_stopping_rounds=3, random_state=0, n_jobs=1, **options)
    train, held_out, y = bars().iloc[:N_TRAIN], bars().iloc[N_TRAIN:], labels(*names)
    made.fit(train, y[:N_TRAIN], eval_set=[(held_out, y[N_TRAIN:])], verbose=False)
    assert made.best_iteration + 1 < made.get_booster().num_boosted_rounds() < 300
    return Fitted(made, train, held_out)


def changed(make: Callable[[], Any], change: Callable[[Any], None], *names: Any) -> Callable[[], Fitted]:
    """An estimator that the user changed after it was fitted."""

    def made() -> Fitted:
        model = fit(make(), bars(), labels(*(names or (-1, 0, 1))))
        change(model.estimator)
        return model

    return made


def cut(n: int) -> Callable[[Any], None]:
    def change(estimator: Any) -> None:
        estimator.estimators_ = estimator.estimators_[:n]

    return change


def cut_last_step(pipeline: Any) -> None:
    cut(3)(pipeline[-1])


def grow_in_steps(estimator: Any) -> None:
    """As a user does with `warm_start`: the parameter is raised once more than the forest is fitted."""
    estimator.set_params(warm_start=True, n_estimators=15)
    estimator.fit(bars().iloc[:N_TRAIN], labels(-1, 0, 1)[:N_TRAIN])
    estimator.n_estimators += 5


boosting = sk("ensemble.GradientBoostingClassifier", n_estimators=8, random_state=0)
MODELS: dict[str, tuple[Callable[[], Fitted], list[str]]] = {
    "gradient boosting, stopped, 2 classes": (lambda: stopped_boosting(0, 1), ["treelite", "trees"]),
    "gradient boosting, stopped, 3 classes": (lambda: stopped_boosting(-1, 0, 1), ["treelite", "trees"]),
    "gradient boosting, stopped, text": (lambda: stopped_boosting("a", "b", "c"), ["treelite", "trees"]),
    "gradient boosting, stopped, exponential loss": (
        lambda: stopped_boosting(0, 1, loss="exponential"), ["trees"],
    ),
    "gradient boosting, more asked for": (
        changed(boosting, lambda e: e.set_params(n_estimators=5000)), ["treelite", "trees"],
    ),
    "gradient boosting, another loss asked for": (
        changed(boosting, lambda e: e.set_params(loss="exponential"), 0, 1), ["treelite", "trees"],
    ),
    "gradient boosting, fewer asked for": (
        changed(boosting, lambda e: e.set_params(n_estimators=2)), ["treelite", "trees"],
    ),
    "gradient boosting, stages cut": (changed(boosting, cut(3)), ["treelite", "trees"]),
    "AdaBoost, stopped": (stopped_ada_boost, ["trees"]),
    "AdaBoost, cut": (changed(sk("ensemble.AdaBoostClassifier", n_estimators=8), cut(3)), ["trees"]),
    "histogram boosting, stopped": (stopped_histogram, ["treelite", "trees"]),
    "forest, more asked for": (
        changed(random_forest, lambda e: e.set_params(n_estimators=500)), ["treelite", "trees"],
    ),
    "forest, fewer asked for": (changed(random_forest, lambda e: e.set_params(n_estimators=2)), ["treelite", "trees"]),
    "forest, cut": (changed(random_forest, cut(4)), ["treelite", "trees"]),
    "forest, grown in steps": (changed(random_forest, grow_in_steps), ["treelite", "trees"]),
    "forest in a pipeline, cut": (changed(piped(random_forest), cut_last_step), ["program"]),
    "bagging, cut": (
        changed(lambda: sk("ensemble.BaggingClassifier", estimator=random_forest(), n_estimators=3)(), cut(2)), [],
    ),
    "LightGBM, stopped": (stopped_lightgbm, ["treelite", "trees"]),
    "XGBoost, stopped": (lambda: stopped_xgboost(0, 1, 2), ["treelite", "trees"]),
    "XGBoost, stopped, 2 classes": (lambda: stopped_xgboost(0, 1), ["treelite", "trees"]),
    "XGBoost, stopped, several trees a round": (
        lambda: stopped_xgboost(0, 1, num_parallel_tree=3, subsample=0.7), ["treelite", "trees"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MODELS)
@pytest.mark.filterwarnings("ignore")
def test_a_form_has_the_trees_that_were_fitted(case: str, tmp_path: Path) -> None:
    make, kept = MODELS[case]
    model = make()
    made = compiled(model, tmp_path)
    assert made.kept == kept, made.compiled.dropped
    assert_same(made, matrix(model.held_out, made.spec))
    assert_same(made, odd_rows(made, model.held_out))


def drop_a_class(estimator: Any) -> None:
    estimator.classes_ = estimator.classes_[:2]


def drop_a_column(estimator: Any) -> None:
    estimator.estimators_ = estimator.estimators_[:, :2]


def drop_a_feature(estimator: Any) -> None:
    estimator.n_features_in_ = 2


@pytest.mark.parametrize("damage", [drop_a_class, drop_a_column, drop_a_feature])
def test_stages_that_do_not_fit_are_not_handed_to_treelite(damage: Callable[[Any], None]) -> None:
    from fin_pyfunc.compiling.errors import NotCompilable
    from fin_pyfunc.compiling.treelite_model import treelite_model

    estimator = fit(boosting(), bars(), labels(-1, 0, 1)).estimator
    damage(estimator)
    with pytest.raises(NotCompilable, match="do not fit together"):
        treelite_model(estimator)


def test_the_estimator_keeps_the_parameters_that_its_user_gave_it() -> None:
    from fin_pyfunc.compiling.treelite_model import treelite_model

    estimator = fit(random_forest(), bars(), labels(-1, 0, 1)).estimator
    estimator.set_params(n_estimators=500)
    treelite_model(estimator)
    assert estimator.n_estimators == 500
    assert np.size(estimator.estimators_) == 10
