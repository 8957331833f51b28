"""The Kubernetes manifests, without a cluster: rendered, held to the API's own schemas, and to checkov's rules."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from fin_pyfunc.serving.settings import Settings

FOLDER = Path(__file__).parent.parent / "deploy" / "kubernetes"
OVERLAYS = [path.name for path in sorted((FOLDER / "overlays").iterdir())]
#: The oldest Kubernetes that any vendor still supports, about, and the newest that is known here.
VERSIONS = ("1.29", kubernetes_validate.latest_version())
#: The digest of an image is not known before somebody pushes it; the README there says how to name it.
SKIPPED_CHECKS = "CKV_K8S_43"


def render(overlay: Path) -> str:
    """What `kubectl apply -k` would send."""
    for name, arguments in (("kustomize", ["build"]), ("kubectl", ["kustomize"])):
        if tool := shutil.which(name):
            done = subprocess.run([tool, *arguments, str(overlay)], capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, done.stderr
            return done.stdout
    pytest.skip("there is neither kustomize nor kubectl")


@pytest.fixture(scope="module", params=OVERLAYS)
def rendered(request: pytest.FixtureRequest) -> str:
    return render(FOLDER / "overlays" / request.param)


@pytest.fixture
def objects(rendered: str) -> dict[str, Any]:
    """By kind; there is one of each."""
    found = list(yaml.safe_load_all(rendered))
    by_kind = {each["kind"]: each for each in found}
    assert len(by_kind) == len(found)
    return by_kind


def under_kserve() -> list[dict[str, Any]]:
    """KServe's own schema is not to be had here; what it makes of a service is pods, and theirs is."""
    service, policy = sorted(yaml.safe_load_all(render(FOLDER / "kserve")), key=lambda each: str(each["kind"]))
    assert (service["apiVersion"], service["kind"]) == ("serving.kserve.io/v1beta1", "InferenceService")
    own = {"minReplicas", "maxReplicas", "scaleMetric", "scaleTarget", "timeout"}
    pod = {name: value for name, value in service["spec"]["predictor"].items() if name not in own}
    labels = {"serving.kserve.io/inferenceservice": service["metadata"]["name"]}
    spec = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": service["metadata"], "spec": spec}
    return [deployment, policy]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_what_kubernetes_takes(objects: dict[str, Any], version: str) -> None:
    for each in objects.values():
        kubernetes_validate.validate(each, version, strict=True)
    kinds = {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"}
    assert kinds <= set(objects)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_pods_under_kserve_are_what_kubernetes_takes(version: str) -> None:
    for each in under_kserve():
        kubernetes_validate.validate(each, version, strict=True)


def test_service_budget_policy_and_autoscaler_are_about_the_pods_of_this_deployment_alone(
    objects: dict[str, Any],
) -> None:
    deployment = objects["Deployment"]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert set(labels) == {"app.kubernetes.io/name", "app.kubernetes.io/instance"}
    assert objects["Service"]["spec"]["selector"] == labels
    assert objects["PodDisruptionBudget"]["spec"]["selector"] == {"matchLabels": labels}
    assert objects["NetworkPolicy"]["spec"]["podSelector"] == {"matchLabels": labels}
    assert objects["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    pod = deployment["spec"]["template"]["spec"]
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"]


def test_a_pod_has_time_to_finish_what_it_accepted(objects: dict[str, Any]) -> None:
    pod = objects["Deployment"]["spec"]["template"]["spec"]
    pause = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > pause + Settings().drain_seconds


def test_one_model_reaches_nothing_and_many_models_reach_mlflow_alone() -> None:
    def reached(overlay: str) -> list[int]:
        policies = list(yaml.safe_load_all(render(FOLDER / "overlays" / overlay)))
        (policy,) = (each for each in policies if each["kind"] == "NetworkPolicy")
        assert set(policy["spec"]["policyTypes"]) == {"Ingress", "Egress"}
        return [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]

    assert reached("one-model") == []
    assert reached("many-models") == [53, 53, 5000]


def test_checkov_finds_nothing(tmp_path: Path) -> None:
    rendered = {name: render(FOLDER / "overlays" / name) for name in OVERLAYS}
    for name, text in {**rendered, "kserve": yaml.safe_dump_all(under_kserve())}.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    # in an environment of its own, for it pins what we need in other versions
    checkov = [sys.executable, "-m", "uv", "tool", "run", "--quiet", "--python", sys.executable]
    options = ["--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "--skip-check", SKIPPED_CHECKS]
    files = [part for path in sorted(tmp_path.iterdir()) for part in ("--file", path.name)]
    done = subprocess.run(
        [*checkov, "--from", "checkov==3.3.30", "checkov", *options, *files],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
    )
    if "error" in done.stderr.lower() and not done.stdout:
        pytest.skip("checkov could not be installed")
    assert done.returncode == 0, done.stdout + done.stderr
