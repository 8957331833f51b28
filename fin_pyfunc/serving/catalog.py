"""The runs that have a logged model, newest first: what ``GET /models`` and ``fin-pyfunc models`` list."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from typing import Any

import msgspec

from fin_pyfunc.model.errors import ModelNotFoundError
from fin_pyfunc.serving.registry import registered_models, search_logged_models
from fin_pyfunc.serving.schemas import ModelEntry, ModelList, RegisteredVersion
from fin_pyfunc.serving.store import Store

#: Most runs that one question may name: MLflow's parser of filters gives up between 3,000 and 10,000.
_MAX_RUNS = 3000
_MAX_LOGGED = 10_000
#: Most registered versions that one list looks at.
_MAX_VERSIONS = 10_000
#: MLflow 2 keeps what a run logged in this tag, MLflow 3 does not write it.
_HISTORY = "mlflow.log-model.history"

_NOT_FOUND = "MLflow does not know what was asked for: see what there is in its own pages."
#: What is wrong, by whether a request named the experiment: never with the name that it sent.
_NO_EXPERIMENT = (
    "There is no experiment of the name asked for: leave 'experiment_name' out for the default one, {default!r}, or "
    "see what there is in MLflow's own pages."
)
_NO_DEFAULT = (
    "There is no experiment {default!r}: name another with 'experiment_name' (--mlflow-experiment-name of a command), "
    "or have deployment.api.mlflow.experiment_name name one for the server."
)


class Catalog:
    """Lists the models of an experiment.

    Parameters
    ----------
    tracking_uri : str, optional
        As `fin_pyfunc.serving.store.Store` takes it.
    experiment_name : str
        The experiment to list where none is named.
    """

    def __init__(self, tracking_uri: str | None, experiment_name: str) -> None:
        self._store = Store(tracking_uri)
        self._experiment_name = experiment_name

    def list_models(
        self, experiment_name: str | None = None, limit: int = 100, *, with_names: bool = False
    ) -> ModelList:
        """List the runs that have a logged model, newest first by their start.

        MLflow is asked four times, however many runs there are: for the experiment, its newest logged models
        (MLflow 3), their runs, and the runs with MLflow 2's tag. The newest ``10 * limit`` logged models (1,000 to
        10,000) are looked at, and of those at most 3,000 runs, so the list is complete unless runs log more than ten
        models each, or most of the newest runs are deleted. A model's files put into a run with ``log_artifacts`` are
        not listed, because only a question a run would find them; they load by their ``runs:/`` URI all the same.

        Parameters
        ----------
        experiment_name : str, optional
            Default: the configured experiment.
        limit : int
            At most this many, 1 to 1,000; default 100.
        with_names : bool, default False
            Ask MLflow, twice more, what the runs' models are registered as.

        Returns
        -------
        ModelList
            Where a run has several models, ``model_uri`` names the newest.

        Raises
        ------
        ModelNotFoundError
            No such experiment.
        StoreUnavailableError
            MLflow does not answer.
        """
        missing = (_NO_EXPERIMENT if experiment_name else _NO_DEFAULT).format(default=self._experiment_name)
        with self._store.asking(missing) as client:
            experiment = client.get_experiment_by_name(experiment_name or self._experiment_name)
            if experiment is None or experiment.lifecycle_stage != "active":
                raise ModelNotFoundError(missing)
            experiments = [experiment.experiment_id]
            logged = search_logged_models(
                client, experiment.experiment_id, max_results=min(max(10 * limit, 1000), _MAX_LOGGED)
            )
            names: dict[str, str] = {}
            for model in logged:
                if model.source_run_id and str(model.status) == "READY" and len(names) < _MAX_RUNS:
                    names.setdefault(model.source_run_id, model.name)
            newest_first = ["attributes.start_time DESC"]
            of_logged = f"attributes.run_id IN ({', '.join(map(repr, names))})" if names else ""
            runs = client.search_runs(experiments, of_logged, max_results=limit, order_by=newest_first) if names else []
            tagged = client.search_runs(
                experiments, f"tags.`{_HISTORY}` LIKE '%'", max_results=limit, order_by=newest_first
            )
        found = {run.info.run_id: run for run in [*tagged, *runs]}
        newest = sorted(found.values(), key=lambda run: (run.info.start_time or 0, run.info.run_id), reverse=True)
        named = ((run, names.get(run.info.run_id) or _artifact_path(run)) for run in newest)
        # a run's tag may tell of a model that is not there yet, or never will be
        unfinished = {(model.source_run_id, model.name) for model in logged if model.source_run_id not in names}
        entries = [_entry(run, name) for run, name in named if name and (run.info.run_id, name) not in unfinished]
        entries = entries[:limit]
        if with_names and entries:
            registered = self._registered([entry.run_id for entry in entries])
            entries = [msgspec.structs.replace(each, registered=registered.get(each.run_id, [])) for each in entries]
        return ModelList(models=entries, count=len(entries))

    def _registered(self, run_ids: Sequence[str]) -> dict[str, list[RegisteredVersion]]:
        """By run, the registered versions of its models."""
        with self._store.asking(_NOT_FOUND) as client:
            versions = client.search_model_versions(
                f"run_id IN ({', '.join(map(repr, run_ids))})", max_results=_MAX_VERSIONS
            )
            # a search of versions does not say their aliases
            models = registered_models(client) if versions else []
        aliases: dict[tuple[str, str], list[str]] = {}
        for model in models:
            for alias, version in sorted(model.aliases.items()):
                aliases.setdefault((model.name, str(version)), []).append(alias)
        found: dict[str, list[RegisteredVersion]] = {}
        for each in sorted(versions, key=lambda version: (version.name, int(version.version))):
            name, number = each.name, str(each.version)
            known_as = RegisteredVersion(name=name, version=number, aliases=aliases.get((name, number), []))
            found.setdefault(each.run_id, []).append(known_as)
        return found


def _artifact_path(run: Any) -> str | None:
    try:
        history = json.loads(run.data.tags[_HISTORY])
        path = history[-1]["artifact_path"]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    return path if isinstance(path, str) else None


def _entry(run: Any, name: str) -> ModelEntry:
    return ModelEntry(
        model_uri=f"runs:/{run.info.run_id}/{name}",
        run_id=run.info.run_id,
        experiment_id=run.info.experiment_id,
        metrics={key: _metric(value) for key, value in run.data.metrics.items()},
        params={key: _param(value) for key, value in run.data.params.items()},
        tags={key: value for key, value in run.data.tags.items() if not key.startswith("mlflow.")},
    )


def _metric(value: float) -> float | None:
    # a database keeps an infinity as the largest float there is
    return value if math.isfinite(value) and abs(value) < sys.float_info.max else None


def _param(text: str) -> int | float | bool | str:
    try:
        value = msgspec.json.decode(text)  # strict: no NaN, no Infinity, no number out of range
    except (msgspec.DecodeError, UnicodeError):
        return text
    if isinstance(value, int) and not -(2**63) <= value < 2**64:  # more than a JSON encoder takes
        return text
    return value if isinstance(value, (bool, int, float)) else text
