"""Custom resources as resources of the mesh: what is compared, patched and marked."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.kubernetes_documents import Document

from weft.cli.exit_codes import ExitCode
from weft.cli.main import run
from weft.errors import InvalidRequest, InvalidResource
from weft.kubernetes.controller.definitions import missing_fields
from weft.kubernetes.controller.mesh_access import MeshAccess
from weft.kubernetes.controller.resources import (
    Mark,
    as_in_mesh,
    mark_of,
    mesh_resource,
    mirror,
    problems,
    same_declaration,
)
from weft.kubernetes.controller.sync import standing
from weft.model.operator import new_token
from weft.model.resource import DECLARED_IN

MARK = Mark("cluster-uid", "crew")


def custom(name: str = "studies", namespace: str = "crew", **metadata: object) -> Document:
    return {
        "apiVersion": "weft.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "spec": {"concurrency": 2},
    }


def test_what_is_taken_from_the_mesh_leaves_the_rest_of_a_custom_resource() -> None:
    before = custom(
        labels={"team": "a", "gone": "x", "weft.dev/origin": "mesh"}, annotations={"why": "because"}
    )
    found = {"metadata": {"name": "studies", "labels": {"team": "b"}}, "spec": {"deadLetter": None}}
    after = as_in_mesh(before, found)
    assert after["metadata"] == {
        **before["metadata"],
        "labels": {"team": "b", "weft.dev/origin": "mesh"},
    }
    assert after["spec"] == {"deadLetter": None}


def test_a_resource_says_where_it_is_declared_and_keeps_what_others_noted() -> None:
    found: Document = {
        "metadata": {
            "name": "studies",
            "resourceVersion": "7",
            "annotations": {"why": "because"},
        }
    }
    made = mesh_resource(
        custom(labels={"team": "a", "weft.dev/x": "y"}), {"concurrency": 2}, mark=MARK, found=found
    )
    assert made["metadata"] == {
        "name": "studies",
        "labels": {"team": "a"},
        "annotations": {"why": "because", DECLARED_IN: "cluster-uid/crew"},
        "resourceVersion": "7",
    }
    assert mark_of(made) == MARK
    assert mark_of({"metadata": {"name": "studies"}}) is None
    assert mark_of({"metadata": {"annotations": {DECLARED_IN: "nonsense"}}}) is None


def test_what_is_written_otherwise_and_means_the_same_is_the_same() -> None:
    one = mesh_resource(custom(), {"visibilityTimeout": "60s"}, mark=MARK, found=None)
    other = mesh_resource(custom(), {"visibilityTimeout": "1m"}, mark=MARK, found=None)
    assert same_declaration(one, other)
    assert not same_declaration(one, {**other, "spec": {"visibilityTimeout": "2m"}})
    elsewhere = mesh_resource(custom(), {"visibilityTimeout": "1m"}, mark=Mark("x", "y"), found=None)
    assert not same_declaration(one, elsewhere)
    with pytest.raises(InvalidResource) as caught:
        same_declaration({**one, "spec": {"visibilityTimeout": "soon"}}, other)
    assert problems(caught.value).startswith("spec.visibilityTimeout: ")


def test_the_oldest_is_in_force_and_what_is_in_wefts_own_namespace_goes_before_it() -> None:
    old = custom(creationTimestamp="2026-01-01T00:00:00Z", namespace="later-in-the-alphabet")
    young = custom(creationTimestamp="2026-01-01T00:00:01Z", namespace="a")
    made = mirror({**custom(), "metadata": {"name": "studies"}}, "weft-system")
    made["metadata"]["creationTimestamp"] = "2027-01-01T00:00:00Z"
    now = standing([young, old], "weft-system")
    assert (now.force, list(now.outdone)) == (old, [young])
    now = standing([young, made, old], "weft-system")
    assert (now.force, list(now.outdone)) == (made, [old, young])
    assert standing([], "weft-system").force is None
    # The label means nothing elsewhere.
    assert standing([made, young], "another").force == young


def test_fields_that_a_schema_lacks_are_found_by_path() -> None:
    own: Document = {
        "properties": {
            "a": {"properties": {"b": {}, "c": {}}},
            "d": {"items": {"properties": {"e": {}}}},
            "f": {"additionalProperties": {"properties": {"g": {}}}},
        }
    }
    found: Document = {
        "properties": {
            "a": {"properties": {"b": {}}},
            "d": {"items": {"properties": {}}},
            "f": {"additionalProperties": {"properties": {}}},
        }
    }
    assert list(missing_fields(own, found)) == ["a.c", "d.e", "f.g"]
    assert list(missing_fields(own, own)) == []
    assert list(missing_fields(own, {})) == ["a", "d", "f"]


def test_the_token_is_read_as_it_is_now(tmp_path: Path) -> None:
    directory = tmp_path
    file = directory / "token"
    access = MeshAccess("https://127.0.0.1:1", token_file=file, roots=directory / "roots.pem")
    with pytest.raises(InvalidRequest, match="is the Secret with the operator's token mounted"):
        access.open()
    file.write_text(f"{new_token()}\n")
    file.chmod(0o440)
    access.open()
    assert access.renewed() is None, "it is the same"
    file.chmod(0o640)
    file.write_text("no token at all")
    assert access.renewed() is None
    file.write_text(new_token())
    assert access.renewed() is not None


def test_outside_of_a_pod_the_command_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert run(["kubernetes", "controller"]) == ExitCode.USAGE
    assert "in a pod of a cluster only" in capsys.readouterr().err
