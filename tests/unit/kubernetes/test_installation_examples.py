"""The examples of an installation: values, the crew that runs in it, and the pod that restores a backup."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
from tests.kubernetes_documents import Document

from weft.demo.crew import REVIEW, ROLES
from weft.kubernetes.agent_manifests import expanded
from weft.kubernetes.first_keys import nats_hosts
from weft.kubernetes.installation import installation
from weft.kubernetes.installation_values import read_values
from weft.kubernetes.manifest_text import read_manifests
from weft.kubernetes.values_text import read_values_file

EXAMPLES = Path(__file__).parents[3] / "examples" / "kubernetes"


def example(name: str) -> list[Document]:
    return read_manifests((EXAMPLES / name).read_text(), name)


def control_environment(documents: list[Document]) -> Document:
    [container] = [
        container
        for each in documents
        if each["kind"] == "Deployment"
        for container in each["spec"]["template"]["spec"]["containers"]
        if container["name"] == "control"
    ]
    return {each["name"]: each.get("value") for each in container["env"]}


def test_the_crew_is_that_of_the_demo_and_its_gateway_leads_to_it() -> None:
    documents = example("crew.yaml")
    crew = {each["metadata"]["name"]: each["spec"] for each in documents if each["kind"] == "AgentDeployment"}
    assert crew.keys() == ROLES.keys()
    for name, spec in crew.items():
        assert spec["args"][0] == name
        assert spec["agent"]["capabilities"] == [REVIEW, name]
    [gateway] = [each for each in documents if each["kind"] == "Gateway"]
    assert {*gateway["spec"]["agents"]} == crew.keys()
    values = read_values(read_values_file((EXAMPLES / "values.yaml").read_text(), "values.yaml"))
    assert [*values.gateways] == [gateway["metadata"]["name"]]


def test_what_is_made_of_them_is_kubernetes_own() -> None:
    made = [one for each in example("crew.yaml") for one in expanded(each)]
    for each in [*made, *example("restore.yaml")]:
        if not each["apiVersion"].startswith("weft.dev/"):
            kubernetes_validate.validate(each, kubernetes_validate.latest_version(), strict=True)


def test_the_pod_that_restores_is_told_what_a_control_plane_is_told() -> None:
    [pod] = example("restore.yaml")
    [container] = pod["spec"]["containers"]
    told = {each["name"]: " ".join(each["value"].split()) for each in container["env"]}
    control = control_environment(installation())
    assert len(told) == 5
    assert told == {name: control[name] for name in told}
    [volume] = pod["spec"]["volumes"]
    assert volume["secret"]["defaultMode"] == 0o440
    assert container["volumeMounts"][0]["mountPath"] == "/etc/weft/nats"
    assert any("weft-nats.weft-system.svc" in each for each in nats_hosts("weft", "weft-system"))
