"""The control plane process: its parts, put together."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager

import uvicorn
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from weft.aio.ports import PortUnavailable
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.xds.server import AdsServer
from weft.model.node import Address, parse_address
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.nats import NatsStore

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 3
"""Seconds that open API requests have to finish when the process stops."""


async def run_control_plane(settings: ControlPlaneSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises Unavailable if the store cannot be reached, PortUnavailable if a port is taken.
    """
    metrics = CollectorRegistry()
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(_listen(settings.host, settings.api_port))
        store = await NatsStore.connect(settings.nats, name="weft-control")
        stack.push_async_callback(store.close)
        registry = await Registry.open(store, lease_ttl=settings.lease_ttl)
        resources = await Resources.open(store)
        sidecars = await Sidecars.open(store)
        instances = await stack.enter_async_context(View(registry))
        declared = await stack.enter_async_context(ResourceView.follow(resources))
        await instances.ready()

        snapshots = Snapshots([_api_address(settings)])
        snapshots.update(instances.instances.values(), declared.resources.values())
        ads = AdsServer(
            snapshots, observer=sidecars, registry=metrics, host=settings.host, port=settings.xds_port
        )
        await stack.enter_async_context(ads)
        api = create_api(ApiContext(instances, resources, declared, sidecars), metrics)
        logger.info(
            "API at http://%s:%d, xDS at %s:%d", settings.host, settings.api_port, settings.host, ads.port
        )

        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(_translate(instances, declared, snapshots), name="translate"),
                tasks.create_task(ads.run(), name="push"),
                tasks.create_task(sidecars.run(), name="record sidecars"),
            ]
            await _serve(api, listening)
            for task in background:
                task.cancel()


async def _translate(instances: View, declared: ResourceView, snapshots: Snapshots) -> None:
    """Keep the snapshots up to date."""
    while True:
        seen = (instances.generation, declared.generation)
        snapshots.update(instances.instances.values(), declared.resources.values())
        await _either_changed(instances, declared, seen)


async def _either_changed(instances: View, declared: ResourceView, seen: tuple[int, int]) -> None:
    waiting = [
        asyncio.ensure_future(instances.changed_since(seen[0])),
        asyncio.ensure_future(declared.changed_since(seen[1])),
    ]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()


async def _serve(api: FastAPI, listening: socket.socket) -> None:
    """Serve the API until a signal says to stop."""
    config = uvicorn.Config(
        api, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=STOP_TIMEOUT
    )
    await uvicorn.Server(config).serve(sockets=[listening])


def _api_address(settings: ControlPlaneSettings) -> Address:
    if settings.advertise_api is not None:
        return parse_address(settings.advertise_api)
    return Address(settings.host, settings.api_port)


@contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    """A listening socket. Raises PortUnavailable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise PortUnavailable(
                f"the API cannot listen at {host}:{port} ({error.strerror}): stop the program that "
                "listens there, or choose another port with --api-port"
            ) from error
        yield listening
