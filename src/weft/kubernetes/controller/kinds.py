"""Kinds of objects of a cluster, and the keys of objects."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from weft.kubernetes.custom_resources import GROUP, VERSION, custom_kinds

Document = dict[str, Any]
"""An object of Kubernetes, as JSON types."""


@dataclass(frozen=True, slots=True)
class ClusterKind:
    """A kind of objects, and where the API server has them."""

    group: str
    """Empty for the core group."""
    version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """As objects have it."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """Where these objects are, those of a namespace, or one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        within = f"/namespaces/{namespace}" if namespace and self.namespaced else ""
        return "/".join(part for part in (f"{root}{within}/{self.plural}", name, subresource) if part)


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Which object of a kind, or of several that go by the same name."""

    namespace: str
    """Empty for what is in none."""
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def key_of(document: Document) -> Key:
    """The key of an object."""
    metadata = document["metadata"]
    return Key(metadata.get("namespace", ""), metadata["name"])


def custom_kind(kind: str) -> ClusterKind:
    """One of Weft's own kinds. Raises KeyError if there is none of the name."""
    return CUSTOM_KINDS[kind]


CUSTOM_KINDS: Final = {
    each.name: ClusterKind(GROUP, VERSION, each.name, each.plural) for each in custom_kinds()
}

CONFIG_MAP: Final = ClusterKind("", "v1", "ConfigMap", "configmaps")
EVENT: Final = ClusterKind("events.k8s.io", "v1", "Event", "events")
LEASE: Final = ClusterKind("coordination.k8s.io", "v1", "Lease", "leases")
NAMESPACE: Final = ClusterKind("", "v1", "Namespace", "namespaces", namespaced=False)
SECRET: Final = ClusterKind("", "v1", "Secret", "secrets")
