"""What is the same for all sidecars of one cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Final

from weft.errors import InvalidRequest
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN

ROOTS_FILE: Final = "roots.pem"
"""The key of the ConfigMap with the mesh's roots."""

LEASE_SECONDS: Final = 30
"""After which an instance is taken for dead that was not heard of; control planes have to be told the same.
More than on one machine: several NATS servers take up to ten seconds to elect who leads in place of one that
is gone, and a lease has to last over that."""

USER: Final = 65532
"""The user and the group as which a sidecar runs: nobody's, by the custom of images without a root."""


def _resources() -> Mapping[str, Any]:
    return {
        "requests": {"cpu": "100m", "memory": "128Mi"},
        "limits": {"cpu": "1", "memory": "512Mi"},
    }


@dataclass(frozen=True, slots=True)
class InjectionSettings:
    """How sidecars are put into pods. Making it raises InvalidRequest where a value makes no sense."""

    image: str = f"weft:{version('weft')}"
    """With Python and Weft in it."""
    trust_domain: str = DEFAULT_TRUST_DOMAIN
    """The mesh's; programs tell it in their spans."""
    api: tuple[str, ...] = ("https://weft-control.weft-system.svc:7400",)
    """URLs of the control plane's API."""
    xds: tuple[str, ...] = ("weft-control.weft-system.svc:7401",)
    """`host:port` of its xDS."""
    nats: tuple[str, ...] = ("tls://weft-nats.weft-system.svc:4222",)
    """URLs of NATS servers."""
    roots: str = "weft-roots"
    """The ConfigMap, in the agents' namespace, with the mesh's roots under `roots.pem`."""
    token_seconds: int = 3600
    """For how long the token is good by which a pod proves itself, 600 to 3600; Kubernetes replaces it."""
    inbound_port: int = 7443
    """On the pod's address: where other sidecars' calls are taken."""
    metrics_port: int = 7490
    """On the pod's address: metrics, and what the kubelet asks for."""
    outbound_port: int = 7480
    """On loopback: the agent's way out."""
    directory: str = "/var/run/weft"
    """Below which everything of the sidecar is mounted."""
    resources: Mapping[str, Any] = field(default_factory=_resources)
    """Of the sidecar's container, as Kubernetes has them."""

    def __post_init__(self) -> None:
        """Raise InvalidRequest where a value makes no sense."""
        if not self.image or self.image.startswith("-") or any(each.isspace() for each in self.image):
            raise InvalidRequest(f"{self.image!r} is no name of an image")
        if not (self.api and self.xds and self.nats):
            raise InvalidRequest(
                "give the address of at least one control plane (API and xDS) and one NATS server"
            )
        if not 600 <= self.token_seconds <= 3600:
            raise InvalidRequest(f"a token is good for 600 to 3600 seconds, not {self.token_seconds}")
        if len({*self.ports}) != len(self.ports):
            raise InvalidRequest(f"the sidecar's ports must differ: {', '.join(map(str, self.ports))}")

    @property
    def ports(self) -> tuple[int, int, int]:
        """What no container of the pod may listen at."""
        return self.inbound_port, self.metrics_port, self.outbound_port

    @property
    def identity_directory(self) -> str:
        """Shared with the agent's container, which only reads."""
        return f"{self.directory}/identity"

    @property
    def runtime_directory(self) -> str:
        """The sidecar's own."""
        return f"{self.directory}/runtime"

    @property
    def trust_directory(self) -> str:
        """With the token and the roots."""
        return f"{self.directory}/trust"

    @property
    def drain_socket(self) -> str:
        """Where a hook has the sidecar drain."""
        return f"{self.runtime_directory}/drain.sock"
