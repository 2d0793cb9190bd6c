"""`weft kubernetes controller`: keeps a cluster and a mesh the same, as a pod of the cluster."""

from __future__ import annotations

import asyncio
import logging
import os
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.aio.signals import stop_signals
from weft.aio.tasks import TaskOwner
from weft.cli.injection_options import InjectionOptions
from weft.errors import InvalidRequest
from weft.identity.pod_access import PodAccess
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.mesh_access import MeshAccess
from weft.kubernetes.controller.process import HEALTH_PORT, Controller, ControllerSettings
from weft.kubernetes.first_keys import DEFAULT_NAME
from weft.model.names import check_name
from weft.tracing.logs import start_logging

_AS_USUAL = InjectionOptions()
_ANYWHERE = "0.0.0.0"  # noqa: S104 -- in a pod, whose address is known when it runs


async def controller(
    *,
    name: Annotated[str, Parameter(help="Of the installation: what its objects begin with.")] = DEFAULT_NAME,
    listen: Annotated[str, Parameter(help="IP address for health and metrics.")] = _ANYWHERE,
    health_port: Annotated[
        int, Parameter(help="For probes and metrics: /livez, /readyz, /metrics.")
    ] = HEALTH_PORT,
    token_file: Annotated[
        Path, Parameter(help="File with the operator's token, from the Secret of `bootstrap`.")
    ] = Path("/etc/weft/operator/token"),
    trust_bundle: Annotated[Path, Parameter(help="File with the mesh's roots (PEM).")] = Path(
        "/etc/weft/trust/roots.pem"
    ),
    only_in: Annotated[
        list[str] | None,
        Parameter(help="A namespace whose objects count, again for each: by default all do.", negative=()),
    ] = None,
    sidecars: InjectionOptions = _AS_USUAL,
) -> None:
    """In a pod: keep custom resources and the mesh's resources the same, and make what they stand for.

    Of several replicas one leads, by a Lease in the pod's namespace; the others wait. SIGTERM has it let go.
    """
    access = PodAccess.of(os.environ)
    settings = ControllerSettings(
        check_name(name),
        access.namespace,
        os.environ.get("POD_NAME") or os.uname().nodename,
        _address(listen),
        health_port,
        sidecars.settings(),
        frozenset(check_name(each) for each in only_in or ()),
    )
    start_logging("%(asctime)s %(levelname)s %(name)s: %(message)s", os.environ, agent=f"controller.{name}")
    # It writes down each request otherwise.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    url = settings.injection.api[0]
    mesh = MeshAccess(url, token_file=token_file, roots=trust_bundle)
    async with Cluster.of_pod(os.environ) as cluster:
        await _until_stopped(Controller(settings, cluster, mesh))


async def _until_stopped(controller: Controller) -> None:
    stop = asyncio.Event()
    async with TaskOwner("controller") as tasks:
        with stop_signals(stop.set):
            running = tasks.start(controller.run(), name="run")
            asked = tasks.start(_wait(stop), name="stop")
            await asyncio.wait({running, asked}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                await running


async def _wait(stop: asyncio.Event) -> None:
    await stop.wait()


def _address(listen: str) -> str:
    try:
        return str(ip_address(listen))
    except ValueError:
        raise InvalidRequest(f"--listen {listen}: is no IP address") from None
