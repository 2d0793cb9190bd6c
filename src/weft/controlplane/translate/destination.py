"""What a call can be addressed to, and the names it has in Envoy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from weft.model.agent import Instance
from weft.model.names import CAPABILITY_DOMAIN, LOCALHOST_DOMAIN, MESH_DOMAIN


class DestinationKind(StrEnum):
    """What the name of a destination names."""

    TYPE = "type"
    CAPABILITY = "capability"


@dataclass(frozen=True, slots=True)
class Destination:
    """Instances that a call can go to: all of a type, one version of it, or all with a capability."""

    kind: DestinationKind
    name: str
    version: str | None = None
    """Only instances of this version; for a type, where a Route splits by version."""
    by_context: bool = False
    """For the calls of conversations, each of which prefers one instance."""

    @property
    def cluster(self) -> str:
        """Its cluster's name: `type/summarizer`, `type/summarizer/v2`, `capability/summarize`.

        For the calls of conversations there is `context/` before it.
        """
        parts = [*(["context"] if self.by_context else []), self.kind.value, self.name]
        return "/".join(parts if self.version is None else [*parts, self.version])

    @property
    def domains(self) -> list[str]:
        """The hosts at which agents reach it."""
        label = self.name if self.kind is DestinationKind.TYPE else f"{self.name}.{CAPABILITY_DOMAIN}"
        return [label, f"{label}.{MESH_DOMAIN}", f"{label}.{LOCALHOST_DOMAIN}"]

    @property
    def instance_domains(self) -> list[str]:
        """The hosts at which agents reach one instance of a type, whose id stands for the `*`."""
        return [f"*.{self.name}.{domain}" for domain in (MESH_DOMAIN, LOCALHOST_DOMAIN)]

    def includes(self, instance: Instance) -> bool:
        """Whether a call to this destination may go to `instance`."""
        if self.kind is DestinationKind.CAPABILITY:
            return self.name in instance.capabilities
        return instance.type == self.name and self.version in {None, instance.version}


def by_context(destination: Destination) -> Destination:
    """The same instances, for the calls of conversations."""
    return replace(destination, by_context=True)


def of_type(name: str, version: str | None = None) -> Destination:
    """All instances of a type, or those of one version of it."""
    return Destination(DestinationKind.TYPE, name, version)


def of_capability(name: str) -> Destination:
    """All instances that offer a capability."""
    return Destination(DestinationKind.CAPABILITY, name)
