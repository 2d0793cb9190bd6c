"""What a pod of a Kubernetes cluster is in the mesh: its name the instance, its service account the type."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from weft.controlplane.attestation import Attested
from weft.errors import Denied, InvalidRequest, Unauthenticated
from weft.model.spiffe import agent_id

AUDIENCE = "weft"
"""The audience for which a pod's service account token must be projected."""

_NAMESPACE_LABEL = "namespace"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod, as the cluster names it in a service account token that is bound to it."""

    namespace: str
    account: str
    """The name of its service account."""
    name: str


@dataclass(frozen=True, slots=True)
class PodAdmission:
    """Which pods may be agents of the mesh."""

    trust_domain: str
    namespaces: Collection[str] = ()
    """Where they may be; empty: anywhere."""

    def admit(self, pod: Pod, instance: str) -> Attested:
        """Who `pod` is, which asks to be `instance`.

        Raises Denied if it is another, or in a namespace from which none may come, Unauthenticated if its
        names are none that an agent can have.
        """
        if pod.name != instance:
            raise Denied(f"the service account token is pod {pod.name!r}'s, not {instance!r}'s")
        if self.namespaces and pod.namespace not in self.namespaces:
            raise Denied(
                f"pods of namespace {pod.namespace!r} may not join: the control plane's setting "
                "service_account_namespaces does not name it"
            )
        try:
            identity = agent_id(self.trust_domain, pod.account, pod.name)
        except InvalidRequest as error:
            raise Unauthenticated(f"the pod cannot be an agent of the mesh: {error.detail}") from error
        by = f"service account {pod.namespace}/{pod.account}"
        return Attested(identity, {_NAMESPACE_LABEL: pod.namespace}, by)
