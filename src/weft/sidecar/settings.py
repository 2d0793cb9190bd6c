"""What a sidecar is told, checked whole before the first side effect."""

from __future__ import annotations

import ipaddress
import secrets
import string
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from weft.errors import InvalidRequest
from weft.model.agent import Locality
from weft.model.event_format import EventFormat
from weft.model.names import MAX_NAME_LENGTH, check_name, check_type
from weft.model.node import Address, AgentProtocol
from weft.model.subtopic import parse_topic_pattern
from weft.model.telemetry_wire import DEFAULT_SAMPLING

DEFAULT_NATS = "nats://127.0.0.1:7402"
DEFAULT_API = Address("127.0.0.1", 7400)
DEFAULT_XDS = Address("127.0.0.1", 7401)
LOOPBACK = "127.0.0.1"

MAX_WEIGHT = 1000
_MAX_DUTIES = 128
_MAX_PROBES = 16
_MAX_SECONDS = 24 * 3600.0
_MAX_PORT = 65_535
_ID_ALPHABET = string.ascii_lowercase + string.digits
_ID_SUFFIX_LENGTH = 5
_CALLER_ID_PREFIX = "client"
_LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class HealthSettings:
    """How an agent's health is checked."""

    path: str | None = None
    """Where a GET must be answered with 2xx; empty: it is enough that the port accepts a connection. None: as
    it suits what the agent speaks: its card for a2a, a connection for mcp and mcp-stdio, else `/health`."""
    interval: float = 10.0
    """Seconds between checks, give or take a tenth; while the agent starts they follow more quickly."""
    timeout: float = 2.0
    """Seconds a whole check may take."""
    healthy_threshold: int = 1
    """Passed checks in a row that make an agent healthy."""
    unhealthy_threshold: int = 3
    """Failed checks in a row that make a healthy agent unhealthy."""

    def __post_init__(self) -> None:
        """Raise InvalidRequest where a value makes no sense."""
        if self.path:
            _check_path("health path", self.path)
        _check_range("health interval", self.interval, 0.05, _MAX_SECONDS, "seconds")
        _check_range("health timeout", self.timeout, 0.01, 300.0, "seconds")
        _check_range("healthy threshold", self.healthy_threshold, 1, 100, "checks")
        _check_range("unhealthy threshold", self.unhealthy_threshold, 1, 100, "checks")


@dataclass(frozen=True, slots=True)
class Consumption:
    """A queue whose tasks are handed to the agent, at `POST /tasks`."""

    queue: str
    concurrency: int | None = None
    """Tasks at once; None: as many as the queue says."""

    def __post_init__(self) -> None:
        """Raise InvalidRequest where a value makes no sense."""
        check_name(self.queue, "queue")
        if self.concurrency is not None:
            _check_range(f"concurrency of queue {self.queue}", self.concurrency, 1, 1000, "tasks")


@dataclass(frozen=True, slots=True)
class EventIntake:
    """Topics whose events are handed to the agent, at `POST /events`."""

    topic: str
    """`orders`, `orders.created`, `orders.*`, `*.failed`, `>`."""
    every_instance: bool = False
    """Whether every instance gets each event, rather than one of the type."""

    def __post_init__(self) -> None:
        """Raise InvalidRequest for a topic that is none."""
        parse_topic_pattern(self.topic)


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """One sidecar. Making it raises InvalidRequest where a value makes no sense."""

    environ: Mapping[str, str] = field(kw_only=True, repr=False)
    """The environment that the program's own is made from: `os.environ`, as a rule."""
    type: str | None = None
    """What kind of agent it stands beside; None: it only calls others, and nothing is registered."""
    id: str = ""
    """The instance's name, unique within its type; empty: `<type>-<five random characters>`."""
    incarnation: str = ""
    """Whoever comes with the incarnation that is registered takes the name over at once, rather than wait
    whether its lease lapses: for a supervisor that sees to it that no two run at a time. Empty: drawn."""
    capabilities: frozenset[str] = frozenset()
    version: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    weight: int = 1
    """Share of the calls under the `weighted` policy, 1 to 1000."""
    locality: Locality = Locality()
    protocol: AgentProtocol = AgentProtocol.HTTP1
    """What the agent speaks."""
    mcp_path: str = "/mcp"
    """Where an agent that speaks mcp takes requests."""
    command: tuple[str, ...] = ()
    """The program beside it, and its arguments; empty: that is started by somebody else."""

    consumes: tuple[Consumption, ...] = ()
    """Queues whose tasks the agent gets by HTTP; those that use the SDK take them by themselves."""
    subscribes: tuple[EventIntake, ...] = ()
    """Topics whose events the agent gets by HTTP; likewise."""
    event_format: EventFormat = EventFormat.BINARY
    """How it gets them."""

    agent_port: int | None = None
    """The agent's port on loopback; None: one is chosen and passed to the program as PORT."""
    bind_host: str = LOOPBACK
    """IP address at which other sidecars' calls are taken."""
    inbound_port: int | None = None
    """Port at which other sidecars' calls are taken; None: chosen."""
    advertise_host: str = ""
    """IP address at which other sidecars reach this one; empty: `bind_host`."""
    outbound_port: int | None = None
    """Port on loopback of the agent's way out, an HTTP proxy; None: chosen."""
    outside: Address | None = None
    """Where callers from outside the mesh are taken, if the agent is a declared Gateway. Several sidecars of
    one machine may share it."""
    identity_directory: Path | None = None
    """Directory for the certificate, key and roots with which the program connects to NATS by itself; None:
    the runtime directory."""
    identity_group: bool = False
    """Whether this process's group, too, may read what lies in the identity directory: where the program runs
    as another user, as in a pod."""

    metrics_host: str = LOOPBACK
    """IP address at which metrics are shown, to whoever asks: beyond this machine only if set otherwise."""
    metrics_port: int | None = 0
    """The port; 0: any that is free; None: they are not shown. The control plane tells Prometheus of it."""
    probes: Mapping[str, str] = field(default_factory=dict)
    """Probes of the agent that are made for whoever asks at `/agent/probes/NAME` of that port: the path of a
    GET that must be answered with 2xx or 3xx; empty: that the agent takes connections is enough."""
    drain_socket: Path | None = None
    """Unix socket, yet to be made, at which `python -m weft.sidecar.drain_hook` has the sidecar drain without
    an end: for a pod, whose program is stopped by others, and needs its way out until then."""

    nats_servers: tuple[str, ...] = (DEFAULT_NATS,)
    xds_addresses: tuple[Address, ...] = (DEFAULT_XDS,)
    """Where the control plane's replicas serve xDS; any of them will do."""
    api_addresses: tuple[Address, ...] = (DEFAULT_API,)
    """Where they serve the API, which gives out identities; any of them will do."""

    trust_bundle: Path | None = None
    """File with the roots of the mesh (PEM), by which the control plane is believed at first."""
    join_token: str = field(default="", repr=False)
    """What the sidecar proves itself with, once: see `weft token join`."""
    service_account_token: Path | None = None
    """In place of a join token: file with the token that Kubernetes projects for the audience `weft`."""
    trust_refresh: float = 30.0
    """Seconds after which it is asked again what is to be trusted, give or take a tenth."""

    health: HealthSettings = field(default_factory=HealthSettings)
    lease_ttl: float = 10.0
    """Seconds after which a registration that is not renewed lapses."""
    renew_interval: float = 3.0
    """Seconds between renewals, give or take a tenth; each carries the calls in flight."""
    drain_grace: float = 1.0
    """Seconds for which calls are still expected after the drain was announced."""
    drain_timeout: float = 30.0
    """Seconds that calls in flight have to end before the program is stopped."""
    stop_timeout: float = 10.0
    """Seconds between the program's SIGTERM and its SIGKILL."""
    start_timeout: float = 60.0
    """Seconds after which a sidecar that cannot reach NATS gives up."""

    runtime_parent: Path | None = None
    """Directory in which a runtime directory is made; None: the system's for temporary files."""
    envoy_concurrency: int = 1
    """Worker threads of Envoy."""
    max_connections: int = 10_000
    """Connections that Envoy accepts at once, from agent and callers together."""
    trace_sampling: float = DEFAULT_SAMPLING
    """Percent of the calls that begin a trace, of which spans are kept, where no Telemetry and no Route says
    otherwise: 0 to 100."""
    log_level: str = "info"
    """What is logged of this process and of Envoy: debug, info, warning or error."""

    def __post_init__(self) -> None:
        """Fill in the names that were left out, and raise InvalidRequest where a value makes no sense."""
        if self.type is not None:
            check_type(self.type)
        object.__setattr__(self, "id", check_name(self.id or draw_id(self.type), "instance"))
        object.__setattr__(self, "advertise_host", self.advertise_host or self.bind_host)
        for capability in self.capabilities:
            check_name(capability, "capability")
        self._check_agent()
        self._check_hosts()
        self._check_servers()
        self._check_numbers()

    def _check_agent(self) -> None:
        if self.type is not None and not self.command and self.agent_port is None:
            raise InvalidRequest(
                f"agent {self.type!r} has neither a command nor a port: say at which port it listens, "
                f"or give the command that starts it"
            )

        _check_path("mcp path", self.mcp_path)
        _check_range("probes", len(self.probes), 0, _MAX_PROBES, "")
        for name, path in self.probes.items():
            check_name(name, "probe")
            if path:
                _check_path(f"path of probe {name}", path)
        if self.type is None and (self.consumes or self.subscribes):
            raise InvalidRequest("tasks and events are handed to agents only: give the agent's type")
        _check_range("queues and topics", len(self.consumes) + len(self.subscribes), 0, _MAX_DUTIES, "")
        if self.outside is not None and self.type is None:
            raise InvalidRequest("callers from outside are taken by gateways only: give the gateway's type")

    def _check_hosts(self) -> None:
        bind = _ip_address(self.bind_host, "bind")
        _ip_address(self.advertise_host, "advertise")
        _ip_address(self.metrics_host, "metrics")
        if bind.is_unspecified and self.advertise_host == self.bind_host:
            raise InvalidRequest(
                f"bound to every address ({self.bind_host}), the sidecar cannot know which one others reach "
                f"it at: give an advertise host as well"
            )

    def _check_servers(self) -> None:
        if not self.nats_servers or not all(self.nats_servers):
            raise InvalidRequest("give the URL of at least one NATS server")
        if not self.xds_addresses or not self.api_addresses:
            raise InvalidRequest("give the address of at least one control plane, for the API and for xDS")
        if self.trust_bundle is None or not (self.join_token or self.service_account_token):
            raise InvalidRequest(
                "the sidecar cannot prove who it is: give a trust bundle (--trust-bundle FILE, or "
                "WEFT_TRUST_BUNDLE) and a join token (WEFT_JOIN_TOKEN, or WEFT_JOIN_TOKEN_FILE); `weft run` "
                "and `weft up` do that by themselves, `weft token join` makes a token"
            )
        if self.log_level not in _LOG_LEVELS:
            raise InvalidRequest(f"log level {self.log_level!r} is none of {', '.join(_LOG_LEVELS)}")

    def _check_numbers(self) -> None:
        _check_range("weight", self.weight, 1, MAX_WEIGHT, "")
        _check_range("envoy concurrency", self.envoy_concurrency, 1, 128, "threads")
        _check_range("trace sampling", self.trace_sampling, 0, 100, "percent")
        _check_range("max connections", self.max_connections, 1, 1_000_000, "")
        ports = {"agent": self.agent_port, "inbound": self.inbound_port, "outbound": self.outbound_port}
        for name, port in ports.items():
            if port is not None:
                _check_range(f"{name} port", port, 1, _MAX_PORT, "")
        _check_range("metrics port", self.metrics_port or 0, 0, _MAX_PORT, "")
        _check_range("lease ttl", self.lease_ttl, 1, 3600.0, "seconds")
        _check_range("trust refresh", self.trust_refresh, 0.1, _MAX_SECONDS, "seconds")
        _check_range("renew interval", self.renew_interval, 0.1, self.lease_ttl / 2, "seconds")
        _check_range("drain grace", self.drain_grace, 0, _MAX_SECONDS, "seconds")
        _check_range("drain timeout", self.drain_timeout, 0, _MAX_SECONDS, "seconds")
        _check_range("stop timeout", self.stop_timeout, 0, _MAX_SECONDS, "seconds")
        _check_range("start timeout", self.start_timeout, 0.1, _MAX_SECONDS, "seconds")


def draw_id(agent_type: str | None) -> str:
    """A name for an instance, or for a sidecar without an agent, that has none yet."""
    suffix = "".join(secrets.choice(_ID_ALPHABET) for _ in range(_ID_SUFFIX_LENGTH))
    # A type may be as long as a name may be: make room for the suffix.
    prefix = (agent_type or _CALLER_ID_PREFIX)[: MAX_NAME_LENGTH - _ID_SUFFIX_LENGTH - 1]
    return f"{prefix}-{suffix}"


def _check_path(what: str, path: str) -> None:
    if not (path.startswith("/") and path.isascii() and path.isprintable()):
        raise InvalidRequest(f"{what} {path!r} must begin with / and be printable ASCII")
    if " " in path:
        raise InvalidRequest(f"{what} {path!r} must not contain a space")


def _ip_address(host: str, what: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(host)
    except ValueError as error:
        raise InvalidRequest(f"{what} host {host!r} is not an IP address") from error


def _check_range(what: str, value: float, low: float, high: float, unit: str) -> None:
    if not low <= value <= high:
        raise InvalidRequest(f"{what} {value:g} is not between {low:g} and {high:g} {unit}".rstrip())
