"""Custom resources as resources of the mesh, and the other way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from weft.errors import InvalidResource
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, Document
from weft.model.manifest import parse_documents
from weft.model.resource import DECLARED_IN, AnyResource, resource_model
from weft.model.secret import SecretSpec

ORIGIN: Final = "weft.dev/origin"
"""Label of a custom resource: where it was declared first."""

MESH: Final = "mesh"
"""As an ORIGIN: in the mesh, by `weft apply` or its like."""

SECRET_VERSIONS: Final = "weft.dev/secret-versions"  # noqa: S105 -- its name
"""Annotation of a Secret in the mesh: from which versions of Kubernetes' Secrets its values are."""

_OWN = "weft.dev/"


@dataclass(frozen=True, slots=True)
class Mark:
    """In which cluster and namespace a resource of the mesh is declared."""

    cluster: str
    """The cluster's UID, which is that of its namespace kube-system."""
    namespace: str

    def __str__(self) -> str:
        return f"{self.cluster}/{self.namespace}"


def mark_of(resource: Document) -> Mark | None:
    """The mark of a resource of the mesh; None if it was declared in the mesh itself."""
    cluster, _, namespace = (
        (resource["metadata"].get("annotations") or {}).get(DECLARED_IN, "").partition("/")
    )
    return Mark(cluster, namespace) if cluster and namespace else None


def is_mirror(custom: Document) -> bool:
    """Whether a custom resource is what somebody declared in the mesh."""
    return bool((custom["metadata"].get("labels") or {}).get(ORIGIN) == MESH)


def labels_of(document: Document) -> dict[str, str]:
    """The labels that both sides have."""
    found = document["metadata"].get("labels") or {}
    return {name: value for name, value in found.items() if not name.startswith(_OWN)}


def mesh_resource(
    custom: Document,
    spec: Mapping[str, Any],
    *,
    mark: Mark,
    found: Document | None,
    annotations: Mapping[str, str] | None = None,
) -> Document:
    """The resource of the mesh that a custom resource stands for, with `spec`, to replace the one `found`."""
    kept = (found or {"metadata": {}})["metadata"].get("annotations") or {}
    metadata: Document = {
        "name": custom["metadata"]["name"],
        "labels": labels_of(custom),
        "annotations": {**kept, **(annotations or {}), DECLARED_IN: str(mark)},
    }
    if found is not None:
        metadata["resourceVersion"] = found["metadata"]["resourceVersion"]
    return {
        "apiVersion": custom["apiVersion"],
        "kind": custom["kind"],
        "metadata": metadata,
        "spec": dict(spec),
    }


def mirror(resource: Document, namespace: str) -> Document:
    """The custom resource that stands for a resource of the mesh."""
    kind = CUSTOM_KINDS[resource["kind"]]
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": resource["metadata"]["name"],
            "namespace": namespace,
            "labels": {**labels_of(resource), ORIGIN: MESH},
        },
        "spec": resource.get("spec") or {},
    }


def as_in_mesh(custom: Document, resource: Document) -> Document:
    """A custom resource with the labels and the spec that the mesh has."""
    own = {
        name: value
        for name, value in (custom["metadata"].get("labels") or {}).items()
        if name.startswith(_OWN)
    }
    metadata = {**custom["metadata"], "labels": {**labels_of(resource), **own}}
    return {**custom, "metadata": metadata, "spec": resource.get("spec") or {}}


def parsed(document: Document) -> AnyResource:
    """A resource of the mesh as the mesh reads it. Raises InvalidResource with what is wrong."""
    model = resource_model(document["kind"])
    if model is None:
        raise InvalidResource([])
    text = json.dumps(document)
    try:
        return model.model_validate_json(text, strict=True, by_alias=True, by_name=False)
    except ValidationError:
        # Slower, and says what is wrong in words.
        return parse_documents(text)[0].resource


def same_declaration(one: Document, other: Document) -> bool:
    """Whether two resources of the mesh declare the same; raises InvalidResource if one of them is wrong.

    Values of Secrets are not looked at: they are shown nowhere.
    """
    first, second = parsed(one), parsed(other)
    for name in (DECLARED_IN, SECRET_VERSIONS):
        if first.metadata.annotations.get(name) != second.metadata.annotations.get(name):
            return False
    return labels_of(one) == labels_of(other) and same_spec(first, second)


def same_spec(first: AnyResource, second: AnyResource) -> bool:
    """Whether two resources say the same in `spec`, but for the values of Secrets."""
    if isinstance(first.spec, SecretSpec):
        return bool(
            first.spec.data.keys() == second.spec.data.keys() and first.spec.inject == second.spec.inject
        )
    return bool(first.document()["spec"] == second.document()["spec"])


def problems(error: InvalidResource) -> str:
    """What is wrong with a resource, by field."""
    return "; ".join(
        f"{each.field}: {each.message}" if each.field else each.message for each in error.problems
    )
