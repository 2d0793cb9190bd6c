"""A sidecar, as it presents itself to the control plane in the metadata of its xDS node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from weft.errors import InvalidRequest
from weft.model.agent import Locality
from weft.model.names import check_name, check_type
from weft.model.telemetry_wire import DEFAULT_SAMPLING

MAX_CAPABILITIES = 128
"""How many capabilities an agent may have."""

MAX_VERSION_LENGTH = 256
"""Characters."""


class AgentProtocol(StrEnum):
    """What the sidecar speaks to its agent."""

    HTTP1 = "http1"
    H2C = "h2c"
    """HTTP/2 without TLS, as gRPC servers speak it."""
    A2A = "a2a"
    """An A2A server over HTTP/1: its card is read, and its skills become capabilities."""
    MCP = "mcp"
    """An MCP server with streamable HTTP: what it lists becomes part of `tools.mesh`."""
    MCP_STDIO = "mcp-stdio"
    """The same for a program that speaks MCP on its standard input and output."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener binds or an agent listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Inbound:
    """The receiving half of a sidecar; a sidecar that only calls has none."""

    type: str
    listen: Address
    agent: Address
    protocol: AgentProtocol = AgentProtocol.HTTP1
    capabilities: frozenset[str] = frozenset()
    """What the agent offers; AccessPolicies may be about that."""
    version: str = ""
    """The agent's; AccessPolicies may be about that."""


@dataclass(frozen=True, slots=True)
class Node:
    """One sidecar: who it is, where it is, and which addresses its Envoy is to listen at."""

    id: str
    """The instance's id, or a caller's own name; a DNS label."""
    outbound: Address
    inbound: Inbound | None = None
    locality: Locality = Locality()
    outside: Address | None = None
    """Where callers from outside the mesh are taken, if its agent is a gateway."""
    stream_guard: bool = False
    """Whether its Envoy can load the stream guard."""
    metrics: Address | None = None
    """Where the sidecar shows its metrics, and its agent's. None: nowhere."""
    trace_sampling: float = DEFAULT_SAMPLING
    """Percent of the calls that begin a trace, where no Telemetry and no Route says otherwise."""

    @property
    def key(self) -> str:
        """Its xDS node id: the instance's key `<type>.<id>`, or `caller.<id>` (a reserved type)."""
        return f"{self.inbound.type}.{self.id}" if self.inbound else f"caller.{self.id}"

    def metadata(self) -> dict[str, Any]:
        """This node as the metadata of an xDS node, JSON types only."""
        inbound = self.inbound
        return {
            "id": self.id,
            "outbound": str(self.outbound),
            "region": self.locality.region,
            "zone": self.locality.zone,
            "outside": None if self.outside is None else str(self.outside),
            "streamGuard": self.stream_guard,
            "metrics": None if self.metrics is None else str(self.metrics),
            "traceSampling": self.trace_sampling,
            "inbound": None
            if inbound is None
            else {
                "type": inbound.type,
                "listen": str(inbound.listen),
                "agent": str(inbound.agent),
                "protocol": inbound.protocol.value,
                "capabilities": sorted(inbound.capabilities),
                "version": inbound.version,
            },
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, Any]) -> Node:
        """The node that `metadata` describes. Raises InvalidRequest if it describes none."""
        try:
            inbound, outside = metadata["inbound"], metadata.get("outside")
            metrics = metadata.get("metrics")
            return cls(
                id=check_name(metadata["id"], "instance"),
                outbound=parse_address(metadata["outbound"]),
                locality=Locality(str(metadata["region"]), str(metadata["zone"])),
                outside=None if outside is None else parse_address(outside),
                stream_guard=metadata.get("streamGuard", False) is True,
                metrics=None if metrics is None else parse_address(metrics),
                trace_sampling=_percent(metadata.get("traceSampling", DEFAULT_SAMPLING)),
                inbound=None
                if inbound is None
                else Inbound(
                    type=check_type(inbound["type"]),
                    listen=parse_address(inbound["listen"]),
                    agent=parse_address(inbound["agent"]),
                    protocol=AgentProtocol(inbound["protocol"]),
                    capabilities=_capabilities(inbound.get("capabilities", [])),
                    version=_version(inbound.get("version", "")),
                ),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidRequest(
                f"the xDS node's metadata does not describe a Weft sidecar: {error!r}"
            ) from error


def _capabilities(names: Any) -> frozenset[str]:
    if not isinstance(names, list) or len(names) > MAX_CAPABILITIES:
        raise ValueError(f"capabilities must be a list of at most {MAX_CAPABILITIES} names")
    return frozenset(check_name(each, "capability") for each in names)


def _version(version: Any) -> str:
    if not isinstance(version, str) or len(version) > MAX_VERSION_LENGTH:
        raise ValueError(f"version must be text of at most {MAX_VERSION_LENGTH} characters")
    return version


def _percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise ValueError("traceSampling must be a number from 0 to 100")
    return float(value)


def parse_address(text: str) -> Address:
    """The address in `host:port` or `[v6]:port`. Raises ValueError if it is none."""
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{text!r} is not host:port")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))
