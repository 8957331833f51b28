"""What MLflow's model registry and its runs say of a model: which version, where it comes from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from fin_pyfunc.model.errors import ModelForbiddenError, ModelUriError
from fin_pyfunc.serving.store import lacks_route
from fin_pyfunc.serving.uris import ModelUri, parse

if TYPE_CHECKING:
    from mlflow import MlflowClient

#: How many registry versions that are copies of one another are followed.
_MAX_COPIES = 10
#: Registered models that MLflow gives at a time, and the most that are looked at.
MAX_NAMES = 1000
_IS_PROMPT = "mlflow.prompt.is_prompt"
_ODD_SOURCE = (
    "The registered version says that its files are at a place that is not plainly written: register it again."
)


def lenient(text: str) -> ModelUri | None:
    """What MLflow takes of the registry beyond the strict grammar: any name, any case of "latest", a stage."""
    if found := re.fullmatch(r"models:/([^/]+)/(\d+)", text, re.ASCII):
        return ModelUri(kind="version", name=found[1], version=int(found[2]))
    if found := re.fullmatch(r"models:/([^/]+)/([^/]+)", text):
        stage = "" if found[2].lower() == "latest" else found[2]
        return ModelUri(kind="latest", name=found[1], alias=stage)
    if found := re.fullmatch(r"models:/([^/]+)@([^/@]+)", text):
        return ModelUri(kind="alias", name=found[1], alias=found[2])
    return None


def registered_models(client: MlflowClient) -> list[Any]:
    """List the registered models, at most 1,000, each with its aliases.

    MLflow's client adds a filter against prompts, ``tags.`mlflow.prompt.is_prompt` != 'true'``, by which an MLflow 2
    server finds nothing; it does not where the filter has that name already.
    """
    found = client.search_registered_models(f"name != '{_IS_PROMPT}'", max_results=MAX_NAMES)
    return [model for model in found if model.tags.get(_IS_PROMPT) != "true"]


def run_of(source: str) -> ModelUri:
    """A source that names a run's model, read as strictly as a client's URI.

    Raises
    ------
    ModelForbiddenError
    """
    try:
        uri = parse(source)
    except ModelUriError as exc:
        raise ModelForbiddenError(_ODD_SOURCE) from exc
    if uri.kind != "run":
        raise ModelForbiddenError(_ODD_SOURCE)
    return uri


def version_of(client: MlflowClient, uri: ModelUri) -> Any:
    """The registered version that a URI means now; None where a name has none."""
    if uri.kind == "version":
        return client.get_model_version(uri.name, str(uri.version))
    if uri.kind == "alias":
        return client.get_model_version_by_alias(uri.name, uri.alias)
    # not get_latest_versions, which is deprecated; this is what it reads
    versions = client.get_registered_model(uri.name).latest_versions or []
    stage = uri.alias.lower()
    wanted = [version for version in versions if not stage or version.current_stage.lower() == stage]
    return max(wanted, key=lambda version: int(version.version), default=None)


def unregistered(uri: ModelUri) -> str:
    """The sentence for what is not registered."""
    what = {"version": f"model version {uri.version}", "alias": "alias", "latest": "model version"}[uri.kind]
    return f"No {what} of the name asked for is registered; look it up in MLflow's model registry."


def lacking(uri: ModelUri) -> str:
    """What is wrong with a URI where the registered model is there, without a full stop."""
    stage = "version in the stage asked for" if uri.alias else "version"
    what = {"version": f"version {uri.version}", "alias": "alias of the name asked for", "latest": stage}[uri.kind]
    return f"The registered model has no {what}"


def source_of(client: MlflowClient, version: Any) -> str:
    """Where a version comes from; one that was copied from another names it as its source."""
    from mlflow.exceptions import MlflowException

    for _ in range(_MAX_COPIES):
        source: str = version.source or ""
        if (found := re.fullmatch(r"models:/([^/]+)/(\d+)", source)) is None:
            return source
        try:
            version = client.get_model_version(found[1], found[2])
        except MlflowException:  # the original is gone; the copy's own files are not
            return source
    return source


def logged_by(client: MlflowClient, run: Any, name: str) -> Any:
    """The newest logged model of this name of a run; None where there is none."""
    if re.search(r"[/:.%\"']", name):  # MLflow allows none of these in a logged model's name
        return None
    token = None
    while True:
        page = search_logged_models(
            client,
            run.info.experiment_id,
            filter_string=f"source_run_id = '{run.info.run_id}' AND name = '{name}'",
            max_results=1,
            page_token=token,
        )
        if page:
            return page[0]
        if not (token := page.token):
            return None


def search_logged_models(client: MlflowClient, experiment_id: str, **options: Any) -> Any:
    """Search the logged models of an experiment, newest first.

    Parameters
    ----------
    client : MlflowClient
        One that MLflow has answered: a plain 404 is then an MLflow 2, which has no logged models, and not a proxy.
    experiment_id : str
    **options
        As ``MlflowClient.search_logged_models`` takes them.

    Returns
    -------
    PagedList of LoggedModel
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.entities import PagedList

    newest_first = [{"field_name": "creation_timestamp", "ascending": False}]
    try:
        return client.search_logged_models([experiment_id], order_by=newest_first, **options)
    except MlflowException as exc:
        if not lacks_route(exc):
            raise
        return PagedList([], None)
