"""Custom resources that the controller makes of something else in the cluster, and which are as it says."""

from __future__ import annotations

from typing import Any, Final

from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import ClusterKind, Document, Key
from weft.model.spec import Spec

MADE_OF: Final = "weft.dev/made-of"
"""Label of such custom resources: of what they are made."""


def made_of(document: Document) -> str | None:
    """Of what a custom resource is made; None if somebody declared it."""
    found: str | None = (document["metadata"].get("labels") or {}).get(MADE_OF)
    return found


def custom_resource(kind: ClusterKind, at: Key, what: str, owners: list[Document], spec: Spec) -> Document:
    """A custom resource that is made of `what`, and goes with the last of its `owners`."""
    return {
        "apiVersion": kind.api_version,
        "kind": kind.kind,
        "metadata": {
            "name": at.name,
            "namespace": at.namespace,
            "labels": {MADE_OF: what},
            "ownerReferences": [_reference(each) for each in owners],
        },
        "spec": spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude_none=True),
    }


def _reference(owner: Document) -> Document:
    metadata = owner["metadata"]
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }


async def put(cluster: Cluster, kind: ClusterKind, wanted: Document, found: Document | None) -> Document:
    """Have it be as `wanted`, in place of the one `found`, of which only others' labels and notes stay.

    Nothing is written where it is so. Raises Conflict if it was changed meanwhile, and as `Cluster.create`.
    """
    if found is None:
        return await cluster.create(kind, wanted)
    metadata = found["metadata"]
    after = {
        **metadata,
        "labels": {**(metadata.get("labels") or {}), **wanted["metadata"]["labels"]},
        "ownerReferences": wanted["metadata"]["ownerReferences"],
    }
    if _uids(after) == _uids(metadata) and (found.get("spec"), metadata.get("labels")) == (
        wanted["spec"],
        after["labels"],
    ):
        return found
    return await cluster.replace(kind, {**wanted, "metadata": after})


def _uids(metadata: Document) -> list[Any]:
    return sorted(each["uid"] for each in metadata.get("ownerReferences") or ())
