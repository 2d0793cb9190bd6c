"""What a sidecar holds before it starts anything: its ports, its directory, its node."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from weft.aio.guard import Guard
from weft.aio.ports import SHARES_HELD_PORTS, PortUnavailable, ReservedPort, reserve_port, share_port
from weft.errors import Unavailable
from weft.model.node import Address, Inbound, Node
from weft.native import stream_guard
from weft.sidecar.settings import LOOPBACK, SidecarSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that was decided and reserved."""

    node: Node
    directory: Path
    """For Envoy's configuration and admin socket; only this user may enter it."""
    agent_port: ReservedPort | None
    """Held for a program that is yet to be started: release it just before."""
    envoy_ports: tuple[ReservedPort, ...]
    metrics_port: ReservedPort | None
    """Held for the sidecar's own server; None: metrics are not shown."""

    def make_way_for_envoy(self) -> None:
        """Release Envoy's ports where it cannot bind them while they are held."""
        if not SHARES_HELD_PORTS:
            for port in self.envoy_ports:
                port.release()


def make_plan(settings: SidecarSettings, guard: Guard, resources: ExitStack) -> Plan:
    """Reserve the ports and make the runtime directory; `resources` lets go of the ports in the end.

    The guard removes the directory. Raises Unavailable if a port is in use or no directory can be made.
    """
    try:
        outbound = resources.enter_context(reserve_port(LOOPBACK, settings.outbound_port))
        inbound, agent_port, held = _inbound(settings, resources)
        outside = _outside(settings, resources)
        metrics = _metrics(settings, resources)
    except PortUnavailable as error:
        raise Unavailable(str(error)) from error
    return Plan(
        node=Node(
            settings.id,
            Address(LOOPBACK, outbound.port),
            inbound,
            settings.locality,
            settings.outside,
            stream_guard=stream_guard() is not None,
            metrics=None if metrics is None else _metrics_address(settings, metrics.port),
            trace_sampling=settings.trace_sampling,
        ),
        directory=_runtime_directory(settings.runtime_parent, guard),
        agent_port=agent_port,
        envoy_ports=(outbound, *held, *outside),
        metrics_port=metrics,
    )


def _inbound(
    settings: SidecarSettings, resources: ExitStack
) -> tuple[Inbound | None, ReservedPort | None, tuple[ReservedPort, ...]]:
    if settings.type is None:
        return None, None, ()
    listen = resources.enter_context(reserve_port(settings.bind_host, settings.inbound_port))
    # Where somebody else starts the agent, it may listen already.
    agent_port = (
        resources.enter_context(reserve_port(LOOPBACK, settings.agent_port)) if settings.command else None
    )
    port = agent_port.port if agent_port else settings.agent_port
    assert port is not None, "the settings insist on a port or a command"  # noqa: S101
    inbound = Inbound(
        settings.type,
        Address(settings.bind_host, listen.port),
        Address(LOOPBACK, port),
        settings.protocol,
        settings.capabilities,
        settings.version,
    )
    return inbound, agent_port, (listen,)


def _outside(settings: SidecarSettings, resources: ExitStack) -> tuple[ReservedPort, ...]:
    """The port of a gateway, which its other instances on this machine share."""
    if settings.outside is None:
        return ()
    return (resources.enter_context(share_port(settings.outside.host, settings.outside.port)),)


def _metrics(settings: SidecarSettings, resources: ExitStack) -> ReservedPort | None:
    if settings.metrics_port is None:
        return None
    return resources.enter_context(reserve_port(settings.metrics_host, settings.metrics_port or None))


def _metrics_address(settings: SidecarSettings, port: int) -> Address:
    """Where Prometheus reaches them."""
    anywhere = ip_address(settings.metrics_host).is_unspecified
    return Address(settings.advertise_host if anywhere else settings.metrics_host, port)


def _runtime_directory(parent: Path | None, guard: Guard) -> Path:
    try:
        return guard.temporary_directory("weft-", parent)
    except OSError as error:
        raise Unavailable(f"no directory for temporary files can be made: {error}") from error
