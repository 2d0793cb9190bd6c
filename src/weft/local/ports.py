"""The ports of a mesh on one machine."""

from __future__ import annotations

from contextlib import ExitStack

from weft.aio.ports import PortUnavailable, reserve_port
from weft.errors import InvalidRequest, Unavailable
from weft.local.port_holder import port_holder
from weft.model.local_state import LOOPBACK, MeshPorts

DEFAULT_PORT_BASE = 7400
"""API, xDS, NATS, the door, the dashboard and the metrics listen at this port and the five after it."""

_ROLES = {
    "api": "the control plane's API",
    "xds": "xDS",
    "nats": "NATS",
    "proxy": "the mesh's door",
    "dashboard": "the dashboard",
    "metrics": "the control plane's metrics",
}
_LAST_BASE = 65_536 - len(_ROLES)


def ports_from(base: int) -> MeshPorts:
    """The ports from `base` on; 0 finds free ones.

    Raises InvalidRequest if there are no such ports, Unavailable if none is free.
    """
    if base == 0:
        return free_ports()
    if not 1 <= base <= _LAST_BASE:
        raise InvalidRequest(f"port base {base} is not between 1 and {_LAST_BASE} (or 0 for free ports)")
    return MeshPorts(**{role: base + offset for offset, role in enumerate(_ROLES)})


def free_ports() -> MeshPorts:
    """Ports at which nobody listens, outside the range from which the kernel gives ports to connections.

    Raises Unavailable if there are none.
    """
    try:
        with ExitStack() as held:
            return MeshPorts(**{role: held.enter_context(reserve_port(LOOPBACK)).port for role in _ROLES})
    except PortUnavailable as error:
        raise Unavailable(str(error)) from error


def free_port() -> int:
    """One such port. Raises Unavailable if there is none."""
    try:
        with reserve_port(LOOPBACK) as held:
            return held.port
    except PortUnavailable as error:
        raise Unavailable(str(error)) from error


def check_free(ports: MeshPorts) -> None:
    """Raise Unavailable, with the way out, if anybody uses one of `ports`."""
    problems = [problem for role in _ROLES if (problem := port_problem(role, getattr(ports, role)))]
    if problems:
        raise Unavailable(
            "\n".join(problems)
            + "\nStop what listens there, or choose other ports with --port-base N (0: any free ones)."
        )


def port_problem(role: str, port: int) -> str | None:
    """Why the mesh's `role` (a field of MeshPorts) cannot listen at `port`; None if it can."""
    try:
        reserve_port(LOOPBACK, port).release()
    except PortUnavailable as error:
        holder = port_holder(port)
        reason = f"in use by {holder}" if holder else f"not available ({_cause(error)})"
        return f"port {port}, meant for {_ROLES[role]}, is {reason}"
    return None


def _cause(error: PortUnavailable) -> str:
    cause = error.__cause__
    return (cause.strerror or str(cause)) if isinstance(cause, OSError) else str(error)
