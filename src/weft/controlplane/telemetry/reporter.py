"""Who sends spans, and what is believed of what they say of themselves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from weft.controlplane.llm.peers import Peer
from weft.model.spiffe import SpiffeId

CALLER: Final = "caller"
"""The service of a sidecar without an agent. No agent type is called so."""

CONTROL: Final = "control"
"""The service of the control plane's replicas."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who has sent spans."""

    who: str
    """As `weft.reporter` says it: a SPIFFE ID, or `operator/<name>`."""
    service: str = ""
    """Its agent type. Empty: an operator, whose word for the service counts."""
    instance: str = ""
    is_envoy: bool = False
    """Whether it is a sidecar's Envoy, whose word for its callers counts."""

    @classmethod
    def of_envoy(cls, peer: Peer) -> Reporter:
        """The Envoy of a sidecar."""
        return cls(peer.sidecar, peer.agent_type, peer.holder.partition(".")[2], is_envoy=True)

    @classmethod
    def of_process(cls, identity: SpiffeId) -> Reporter:
        """A process of the mesh: an agent, its sidecar, a replica of the control plane."""
        match identity.segments:
            case ("agent", agent_type, instance):
                return cls(str(identity), agent_type, instance)
            case ("operator", _, instance):
                return cls(str(identity), CALLER, instance)
            case (_, *_, name):
                return cls(str(identity), CONTROL, name)
        return cls(str(identity), CONTROL)
