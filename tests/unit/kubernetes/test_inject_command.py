"""`weft inject`: manifests in, the same with sidecars out."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from tests.unit.kubernetes.pods import POD, SETTINGS, sidecar

from weft import kubernetes
from weft.cli.main import run
from weft.kubernetes.agent_in_pod import ANNOTATIONS
from weft.kubernetes.manifest_text import read_manifests
from weft.kubernetes.workloads import inject_document

TEMPLATE: dict[str, Any] = yaml.safe_load(POD)
_MODULES = (
    *("injection", "agent_in_pod", "agent_container", "sidecar_container"),
    *("edits", "pod_shape", "workloads"),
)

CONFIG = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata: {mode: '0644'}\n"


def workload(kind: str, api: str = "apps/v1", name: str = "summarizer") -> dict[str, Any]:
    spec: dict[str, Any] = {"template": TEMPLATE}
    if kind == "CronJob":
        spec = {"schedule": "0 * * * *", "jobTemplate": {"spec": spec}}
    if kind == "Pod":
        spec = TEMPLATE["spec"]
    return {"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec}


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    if document["kind"] == "Pod":
        return document
    spec = document["spec"]
    found: dict[str, Any] = (
        spec["jobTemplate"]["spec"]["template"] if "jobTemplate" in spec else spec["template"]
    )
    return found


@pytest.mark.parametrize(
    ("kind", "api"),
    [
        ("Deployment", "apps/v1"),
        ("StatefulSet", "apps/v1"),
        ("DaemonSet", "apps/v1"),
        ("ReplicaSet", "apps/v1"),
        ("ReplicationController", "v1"),
        ("Job", "batch/v1"),
        ("CronJob", "batch/v1"),
        ("Pod", "v1"),
    ],
)
def test_the_pods_of_every_workload_get_a_sidecar(kind: str, api: str) -> None:
    before = workload(kind, api)
    injected = inject_document(before, SETTINGS)
    assert not injected.problems
    assert sidecar(pod_of(injected.document))["restartPolicy"] == "Always"
    assert "initContainers" not in pod_of(before)["spec"]
    assert {**injected.document, "spec": None, "metadata": None} == {**before, "spec": None, "metadata": None}
    assert inject_document(injected.document, SETTINGS).document == injected.document


@pytest.mark.parametrize("version", ["1.31", "1.37"])
def test_injected_workloads_are_what_kubernetes_takes(version: str) -> None:
    for kind, api in (("Deployment", "apps/v1"), ("StatefulSet", "apps/v1"), ("Pod", "v1")):
        document = workload(kind, api)
        if kind != "Pod":
            document["spec"] |= {"selector": {"matchLabels": {"app": "summarizer"}}}
        if kind == "StatefulSet":
            document["spec"] |= {"serviceName": "summarizer"}
        injected = inject_document(document, SETTINGS).document
        kubernetes_validate.validate(injected, version, strict=True)


@pytest.mark.parametrize(
    "document",
    [
        {"apiVersion": "v1", "kind": "Service", "spec": {"ports": [{"port": 80}]}},
        {"apiVersion": "example.test/v1", "kind": "Deployment", "spec": {"template": TEMPLATE}},
        ["no", "object"],
        "text",
        {},
    ],
)
def test_what_has_no_pods_stays_as_it_is(document: Any) -> None:
    injected = inject_document(document, SETTINGS)
    assert injected.document == document
    assert injected.problems == ()


@pytest.mark.parametrize(
    ("kind", "name", "fits"),
    [
        ("Deployment", "a" * 200, True),
        ("Deployment", "team.summarizer", False),
        ("StatefulSet", "a" * 57, True),
        ("StatefulSet", "a" * 58, False),
        ("Pod", "a" * 63, True),
        ("Pod", "a.b", False),
    ],
)
def test_names_of_pods_become_names_of_instances(kind: str, name: str, fits: bool) -> None:
    injected = inject_document(workload(kind, "v1" if kind == "Pod" else "apps/v1", name), SETTINGS)
    assert [problem.reason for _, problem in injected.problems] == ([] if fits else ["NameUnfit"])
    assert injected.refused is not fits


def _file(directory: Path, *documents: dict[str, Any], text: str = "") -> str:
    file = directory / "manifests.yaml"
    file.write_text(text + yaml.safe_dump_all(documents, explicit_start=True))
    return str(file)


def test_a_file_is_written_in_its_order_with_sidecars_in_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _file(tmp_path, workload("Deployment"), text=CONFIG)
    code = run(["inject", "-f", file, "--image=example.test/weft:9", "--nats=tls://n1:4222,tls://n2:4222"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    config, deployment = yaml.safe_load_all(out)
    assert config["data"] == {"mode": "0644"}
    container = sidecar(pod_of(deployment))
    assert container["image"] == "example.test/weft:9"
    assert "--nats=tls://n1:4222,tls://n2:4222" in container["args"]
    (tmp_path / "again.yaml").write_text(out)
    again = ["inject", "-f", str(tmp_path / "again.yaml"), "--image=example.test/weft:9"]
    assert run([*again, "--nats=tls://n1:4222,tls://n2:4222"]) == 0
    assert capsys.readouterr().out == out


def test_the_deployment_that_the_page_shows_gets_a_sidecar() -> None:
    page = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
    shown = re.search(r"```yaml\n(kind: Deployment\n.*?)```", page, re.DOTALL)
    assert shown is not None
    [deployment] = read_manifests(shown[1], "kubernetes.md")
    injected = inject_document(deployment, SETTINGS)
    assert injected.problems == ()
    assert "--capability=translate" in sidecar(pod_of(injected.document))["args"]


def test_the_page_names_every_annotation_and_every_reason() -> None:
    page = (Path(__file__).parents[3] / "docs" / "kubernetes.md").read_text()
    for annotation in ANNOTATIONS:
        assert f"`weft.dev/{annotation.name}`" in page
    source = Path(kubernetes.__file__).parent
    given = "".join((source / f"{name}.py").read_text() for name in _MODULES)
    reasons = set(re.findall(r"""(?:Refusal|warning|Problem)\(\s*"([A-Z][A-Za-z]+)",""", given))
    assert {"HostNetwork", "VariableKept", "NameUnfit", "RecordBroken"} <= reasons
    assert [each for each in sorted(reasons) if f"`{each}`" not in page] == []


def test_a_list_stays_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = [yaml.safe_load(CONFIG), workload("Deployment")]
    file = _file(tmp_path, {"apiVersion": "v1", "kind": "List", "items": both})
    assert run(["inject", "-f", file, "-o", "json"]) == 0
    [listed] = json.loads(capsys.readouterr().out)["items"]
    assert [each["kind"] for each in listed["items"]] == ["ConfigMap", "Deployment"]
    assert sidecar(pod_of(listed["items"][1]))


def test_where_a_pod_is_refused_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lost = workload("Job", "batch/v1", "lost")
    lost["spec"] = {"template": {"spec": {**TEMPLATE["spec"], "hostNetwork": True}}}
    assert run(["inject", "-f", _file(tmp_path, workload("Deployment"), lost)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Job/lost: refused: HostNetwork: " in err


def test_warnings_are_told_and_the_rest_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = workload("Deployment")
    grace = {**TEMPLATE["spec"], "terminationGracePeriodSeconds": 5}
    found["spec"] = {"template": {**TEMPLATE, "spec": grace}}
    assert run(["inject", "-f", _file(tmp_path, found)]) == 0
    out, err = capsys.readouterr()
    assert sidecar(pod_of(yaml.safe_load(out)))
    assert "Deployment/summarizer: warning: GracePeriodRaised: " in err


def test_a_manifest_that_is_none_is_refused_by_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.yaml").write_text("a: 1\nb: *c\n")
    assert run(["inject", "-f", str(tmp_path / "m.yaml")]) == 2
    assert "m.yaml, line 2" in capsys.readouterr().err.replace(":2:", ", line 2")
    assert run(["inject"]) == 2
