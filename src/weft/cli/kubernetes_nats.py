"""`weft kubernetes nats`: one of the NATS servers of an installation, in its pod."""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.errors import InvalidRequest
from weft.kubernetes.agent_deployment import quantity
from weft.kubernetes.nats_configuration import CLIENT_PORT, CLUSTER_PORT, MONITOR_PORT, NatsPlace
from weft.kubernetes.nats_server import HEALTH_PORT, run_nats
from weft.model.names import check_name
from weft.model.node import Address, parse_address
from weft.tracing.logs import start_logging

_ANYWHERE = "0.0.0.0"  # noqa: S104 -- in a pod, whose address is known when it runs


async def nats(
    *,
    name: Annotated[str, Parameter(help="This server's name, the same at every start: the pod's.")],
    keys: Annotated[Path, Parameter(help="Directory with its part of the Secret of `bootstrap`.")],
    store: Annotated[Path, Parameter(help="Directory for what it keeps.")],
    roots: Annotated[
        Path | None, Parameter(help="File with the mesh's roots (PEM); it may come into being later.")
    ] = None,
    listen: Annotated[str, Parameter(help="IP address for clients, other servers and probes.")] = _ANYWHERE,
    advertise: Annotated[
        str,
        Parameter(
            help="Host by which clients and other servers reach it. Default: --listen.", show_default=False
        ),
    ] = "",
    peer: Annotated[
        tuple[str, ...],
        Parameter(
            help="HOST:PORT, for other servers, of each server, this one included; none if it is alone.",
            negative=(),
            show_default=False,
        ),
    ] = (),
    client_port: Annotated[int, Parameter(help="For clients.")] = CLIENT_PORT,
    cluster_port: Annotated[int, Parameter(help="For other servers.")] = CLUSTER_PORT,
    monitor_port: Annotated[int, Parameter(help="For NATS's own monitoring, on loopback.")] = MONITOR_PORT,
    health_port: Annotated[int, Parameter(help="For probes: /livez, /readyz.")] = HEALTH_PORT,
    max_store: Annotated[
        str, Parameter(help="How much of --store may be used, a quantity: less than the volume has.")
    ] = "64Gi",
) -> None:
    """In a pod: run a NATS server with the keys that `weft kubernetes bootstrap` made.

    It takes members of the mesh as soon as the mesh has roots, and follows these. SIGTERM has it hand over
    what it leads, and its clients, to the other servers first: within 40 seconds.
    """
    place = NatsPlace(
        check_name(name),
        store,
        _address(listen),
        _host(advertise, listen, peer),
        _peers(peer),
        client_port,
        cluster_port,
        monitor_port,
        _bytes(max_store),
    )
    start_logging("%(asctime)s %(levelname)s %(name)s: %(message)s", os.environ, agent=f"nats.{name}")
    await run_nats(place, keys=keys, roots=roots, health_port=health_port)


def _address(listen: str) -> str:
    try:
        return str(ip_address(listen))
    except ValueError:
        raise InvalidRequest(f"--listen {listen}: is no IP address") from None


def _host(advertise: str, listen: str, peers: tuple[str, ...]) -> str:
    if not advertise and peers and ip_address(listen).is_unspecified:
        raise InvalidRequest(
            f"--advertise: say by which host others reach this server, which listens at {listen}"
        )
    return advertise or listen


def _peers(peers: tuple[str, ...]) -> tuple[Address, ...]:
    try:
        found = tuple(parse_address(each) for each in peers)
    except ValueError as error:
        raise InvalidRequest(f"--peer: {error}") from error
    if len(found) in {1, 2}:
        raise InvalidRequest("--peer: name three servers or more, this one included; none if it is alone")
    return found


def _bytes(amount: str) -> int:
    try:
        return int(quantity(amount))
    except ValueError as error:
        raise InvalidRequest(f"--max-store {amount}: {error}") from error
