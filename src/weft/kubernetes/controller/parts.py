"""What reconcilers work with."""

from __future__ import annotations

from dataclasses import dataclass, field

from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.conditions import Reports
from weft.kubernetes.controller.following import Following
from weft.kubernetes.controller.kinds import ClusterKind
from weft.kubernetes.controller.mesh import Mesh


@dataclass(frozen=True)
class Parts:
    """A cluster and a mesh that are to be kept the same, for as long as this replica leads."""

    cluster: Cluster
    mesh: Mesh
    reports: Reports
    namespace: str
    """Where Weft is installed: what is declared in the mesh is there."""
    cluster_uid: str
    """The cluster's UID, which is that of its namespace kube-system."""
    namespaces: frozenset[str] = frozenset()
    """Beside that of Weft: nothing counts that is in another. Empty: in all of them."""
    _followed: dict[tuple[ClusterKind, str], Following] = field(default_factory=dict)

    def following(self, kind: ClusterKind, labels: str = "") -> Following:
        """The objects of a kind in all namespaces that count, or those with labels: one for all who ask."""
        found = self._followed.get((kind, labels))
        if found is None:
            within = self.namespaces | {self.namespace} if self.namespaces else self.namespaces
            found = Following(self.cluster, kind, within=within, labels=labels)
            self._followed[kind, labels] = found
        return found
