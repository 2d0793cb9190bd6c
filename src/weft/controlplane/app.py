"""The control plane process: its parts, put together."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib.metadata import version

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from weft.aio.cancellation import end
from weft.aio.ports import PortUnavailable
from weft.controlplane.access_logs import AccessLogService
from weft.controlplane.api.access import Access, control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.api.metrics import metrics_app
from weft.controlplane.api.tls import ServerTls, server_config, server_tls
from weft.controlplane.contexts import TenantContexts
from weft.controlplane.dashboard_codes import DashboardCodes
from weft.controlplane.draining import Draining
from weft.controlplane.front import front
from weft.controlplane.inboxes import Inboxes
from weft.controlplane.llm.scheduling import LlmScheduling, Replica
from weft.controlplane.mcp.listing import Listing
from weft.controlplane.mcp.view import CatalogueView
from weft.controlplane.mcp.virtual_server import VirtualServer
from weft.controlplane.mesh_metrics import show_mesh
from weft.controlplane.message_custody import MessageCustody
from weft.controlplane.message_keys import MessageKeys
from weft.controlplane.messaging import open_messaging
from weft.controlplane.offers import OfferView
from weft.controlplane.replicas import Replicas, RunningReplica
from weft.controlplane.rights import admission_to_nats, deciding, regrant, revoke
from weft.controlplane.secrets import Secrets
from weft.controlplane.security import Security, nats_tls, open_sealer, open_security, write_bundle
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.side_server import serve_beside
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.telemetry.opening import open_telemetry
from weft.controlplane.translation import Translation
from weft.controlplane.xds.credentials import server_credentials
from weft.controlplane.xds.server import AdsServer
from weft.dashboard import Dashboard
from weft.dashboard.application import is_loopback, local_only
from weft.model.node import Address, parse_address
from weft.model.subjects import DRAIN_SIGNALS
from weft.registry.offers import Offers
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.nats import NatsStore
from weft.store.nats_callout import Callout

logger = logging.getLogger(__name__)

STOP_TIMEOUT = 3
"""Seconds that open API requests have to finish when the process stops."""


async def run_control_plane(settings: ControlPlaneSettings) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises Unavailable if the store cannot be reached, InvalidRequest where a setting makes no sense,
    SealBroken if the sealing key is another mesh's, PortUnavailable if a port is taken.
    """
    metrics = CollectorRegistry()
    sealer = open_sealer(settings)
    async with AsyncExitStack() as stack:
        listening = stack.enter_context(_listen(settings.host, settings.api_port, "the API", "--api-port"))
        scraped = stack.enter_context(_listen_for_scrapes(settings))
        looked_at = stack.enter_context(_listen_for_browsers(settings))
        store = await NatsStore.connect(
            settings.nats,
            name="weft-control",
            replicas=settings.nats_replicas,
            tls=nats_tls(settings),
            credentials=settings.nats_seed_file,
        )
        stack.push_async_callback(store.close)
        security = await stack.enter_async_context(open_security(settings, store, sealer))
        registry = await Registry.open(store, lease_ttl=settings.lease_ttl)
        secrets = Secrets(sealer)
        resources = await Resources.open(store, secrets)
        sidecars = await Sidecars.open(store)
        replicas = await Replicas.open(store, _running_replica(settings))
        instances = await stack.enter_async_context(View(registry))
        declared = await stack.enter_async_context(ResourceView.follow(resources))
        offers = await stack.enter_async_context(OfferView.follow(await Offers.open(store), instances))
        catalogue = CatalogueView(offers, declared)
        tools = VirtualServer(Listing(catalogue, declared, security.identities, settings.trust_domain))
        decide = deciding(declared, security)
        custody = MessageCustody(await MessageKeys.open(store, sealer), lambda: declared.resources, decide)
        inboxes = await stack.enter_async_context(Inboxes.follow(store))
        messaging = await open_messaging(
            store,
            declared,
            custody,
            sealer=sealer,
            secret_value=secrets.value,
            decide=decide,
            inboxes=inboxes,
            metrics=metrics,
        )
        show_mesh(metrics, instances, sidecars, security)
        await instances.ready()

        snapshots = Snapshots(
            [_api_address(settings)],
            trust_domain=settings.trust_domain,
            secret_value=secrets.value,
            connection_lifetime=settings.svid_lifetime / 2,
            max_hops=settings.max_hops,
        )
        translation = Translation(snapshots, instances, declared, offers, catalogue, security)
        telemetry = await stack.enter_async_context(
            open_telemetry(settings, store, declared, metrics, revoked=security.identities.is_revoked)
        )
        models = await stack.enter_async_context(
            LlmScheduling.open(store, declared, instances, _replica(settings, security), metrics)
        )
        ads = AdsServer(
            snapshots,
            observer=sidecars,
            registry=metrics,
            host=settings.host,
            port=settings.xds_port,
            credentials=server_credentials(security.server_identity),
            trust_domain=settings.trust_domain,
            revoked=security.identities.is_revoked,
            on_denied=security.note_denied_stream,
            services=[
                *models.services,
                *telemetry.services,
                AccessLogService({**models.logs, **telemetry.logs}).handler(),
            ],
        )
        await stack.enter_async_context(ads)
        codes = await DashboardCodes.open(store, sealer)
        context = ApiContext(
            instances,
            resources,
            declared,
            sidecars,
            access=_access(security),
            membership=security.membership,
            messages=custody,
            messaging=messaging,
            contexts=await TenantContexts.open(store, author=security.replica),
            standing=models.standing,
            offers=offers,
            tools=tools,
            dashboard_codes=codes,
            telemetry=telemetry,
            replicas=replicas,
            draining=Draining(store.signals(DRAIN_SIGNALS), instances),
            settled=lambda: translation.is_current and ads.settled,
        )
        callout = _callout(settings, store)
        tls = server_tls(context.access.refuse_certificate)
        work: dict[str, Awaitable[None]] = {
            "translate": translation.run(),
            "push": ads.run(),
            "schedule calls to models": models.run(snapshots),
            "telemetry": telemetry.run(lambda: models.leads),
            "record sidecars": sidecars.run(),
            "topics and queues": messaging.brokerage.run(),
            "figures of queues": messaging.figures.run(),
            "tend keys of messages": custody.keys.run(custody.encrypted),
            "own identity": security.own.run(lambda: _present(settings, security, tls)),
            "revoke": revoke(security, ads, callout),
            "lists of tools": tools.run(),
            "tell of this replica": replicas.run(),
        }
        api = create_api(context, metrics)
        dashboard = await stack.enter_async_context(Dashboard(api, seal=sealer, codes=codes))
        work |= _beside(settings, dashboard, metrics, looked_at, scraped)
        if callout is not None:
            admission = admission_to_nats(security, declared)
            work["answer NATS"] = callout.serve(admission.decide)
            work["grant topics and queues"] = regrant(security, declared, admission, callout)
        _present(settings, security, tls)
        logger.info(
            "API at https://%s:%d, xDS at %s:%d", settings.host, settings.api_port, settings.host, ads.port
        )
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(_run(each), name=name) for name, each in work.items()]
            await _serve(front(api, dashboard), tls, listening, tools.end_streams)
            await end(background)


def _beside(
    settings: ControlPlaneSettings,
    dashboard: Dashboard,
    metrics: CollectorRegistry,
    looked_at: socket.socket | None,
    scraped: socket.socket | None,
) -> dict[str, Awaitable[None]]:
    """What serves the dashboard and the metrics at ports of their own, where they are wanted."""
    work: dict[str, Awaitable[None]] = {}
    if looked_at is not None:
        hosts = ["localhost"] if is_loopback(settings.dashboard_host) else []
        config = server_config(local_only(dashboard, hosts), None, stop_timeout=STOP_TIMEOUT, websockets=True)
        work["serve the dashboard"] = serve_beside(config, looked_at)
    if scraped is not None:
        work["serve metrics"] = serve_beside(server_config(metrics_app(metrics), None), scraped)
    return work


async def _run(work: Awaitable[None]) -> None:
    await work


def _present(settings: ControlPlaneSettings, security: Security, tls: ServerTls) -> None:
    """Serve with the certificate and the roots as they are now, and tell this machine of the roots."""
    svid, key = security.own.held
    tls.use(svid.chain_pem, key, security.authority.bundles)
    write_bundle(settings.bundle_file, security.authority)


def _access(security: Security) -> Access:
    return control_access(
        security.tokens,
        security.audit,
        bundles=lambda: security.authority.bundles,
        observer=security.replica,
        revoked=security.identities.is_revoked,
    )


def _callout(settings: ControlPlaneSettings, store: NatsStore) -> Callout | None:
    return store.callout(settings.nats_issuer_file) if settings.nats_issuer_file is not None else None


async def _serve(
    app: ASGIApp, tls: ServerTls, listening: socket.socket, stopping: Callable[[], None]
) -> None:
    """Serve API and dashboard until a signal says to stop.

    Then `stopping` is called before open requests are waited for.
    """
    server = _ApiServer(server_config(app, tls, stop_timeout=STOP_TIMEOUT, websockets=True), stopping)
    await server.serve(sockets=[listening])


class _ApiServer(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, stopping: Callable[[], None]) -> None:
        super().__init__(config)
        self._stopping = stopping

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._stopping()
        await super().shutdown(sockets)


def _replica(settings: ControlPlaneSettings, security: Security) -> Replica:
    """This replica, as sidecars reach it when it schedules calls to models."""
    address = settings.advertise_xds or str(Address(settings.host, settings.xds_port))
    return Replica(
        settings.replica,
        address,
        settings.trust_domain,
        revoked=security.identities.is_revoked,
        labels_of=lambda identity: security.identities.labels.get(identity, {}),
        lead_ttl=settings.lead_ttl,
    )


def _api_address(settings: ControlPlaneSettings) -> Address:
    if settings.advertise_api is not None:
        return parse_address(settings.advertise_api)
    return Address(settings.host, settings.api_port)


def _running_replica(settings: ControlPlaneSettings) -> RunningReplica:
    """This replica, as the others know it."""
    own = str(Address(settings.metrics_host, settings.metrics_port)) if settings.metrics_port else ""
    return RunningReplica(settings.replica, settings.advertise_metrics or own, version("weft"))


@contextmanager
def _listen_for_scrapes(settings: ControlPlaneSettings) -> Iterator[socket.socket | None]:
    """A listening socket for Prometheus, or none where none is wanted. Raises PortUnavailable."""
    if not settings.metrics_port:
        yield None
        return
    with _listen(settings.metrics_host, settings.metrics_port, "metrics", "--metrics-port") as listening:
        yield listening


@contextmanager
def _listen_for_browsers(settings: ControlPlaneSettings) -> Iterator[socket.socket | None]:
    """A listening socket for the dashboard, or none where none is wanted. Raises PortUnavailable."""
    if not settings.dashboard_port:
        yield None
        return
    host, port = settings.dashboard_host, settings.dashboard_port
    with _listen(host, port, "the dashboard", "--dashboard-port") as listening:
        yield listening


@contextmanager
def _listen(host: str, port: int, what: str, flag: str) -> Iterator[socket.socket]:
    """A listening socket. Raises PortUnavailable, saying `what` cannot listen and which `flag` helps."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((host, port))
        except OSError as error:
            raise PortUnavailable(
                f"{what} cannot listen at {host}:{port} ({error.strerror}): stop the program that "
                f"listens there, or choose another port with {flag}"
            ) from error
        yield listening
