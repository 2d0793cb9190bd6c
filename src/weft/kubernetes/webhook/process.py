"""The process of an installation's webhooks, put together: one of several pods behind a Service."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from weft.aio.signals import stop_signals
from weft.aio.tasks import TaskOwner
from weft.errors import MeshError
from weft.identity.pod_access import PodAccess
from weft.kubernetes.agent_deployment import KIND as AGENT_DEPLOYMENT
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import CUSTOM_KINDS
from weft.kubernetes.health import serving_health
from weft.kubernetes.injection_settings import InjectionSettings
from weft.kubernetes.webhook.admission import AdmissionRequest, Operated, Verdict
from weft.kubernetes.webhook.certificates import ServingKeys
from weft.kubernetes.webhook.injection_review import review_pod
from weft.kubernetes.webhook.metrics import ReviewMetrics
from weft.kubernetes.webhook.publication import publish
from weft.kubernetes.webhook.server import serving_webhooks
from weft.kubernetes.webhook.validation_review import review_resource

logger = logging.getLogger(__name__)

INJECT_PATH: Final = "/mutate-pods"
VALIDATE_PATH: Final = "/validate"

DEFAULT_PORT: Final = 9443
DEFAULT_HEALTH_PORT: Final = 8081
DEFAULT_KEYS: Final = Path("/etc/weft/webhook")

LOOK_INTERVAL: Final = 30.0
"""Seconds between two looks at the keys, and at what API servers are told of them."""

RETRY_INTERVAL: Final = 3.0
"""Seconds until the next look where one failed."""

TOLD_WITHIN: Final = 1.0
"""Seconds in which it must be known whether another namespace has the same; else nothing is said of it."""


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """How the webhooks of an installation run."""

    name: str
    """The installation's: what its objects begin with."""
    host: str
    port: int
    health_port: int
    keys: Path
    """The directory with their part of what `weft kubernetes bootstrap` made."""
    injection: InjectionSettings


class Publication:
    """Keeps API servers believing these webhooks, whatever becomes of the keys and the configurations."""

    def __init__(self, cluster: Cluster, name: str, keys: ServingKeys) -> None:
        self._cluster = cluster
        self._name = name
        self._keys = keys
        self.problem = "API servers are not told yet whom to believe"
        """Empty while they are."""
        self._told = False

    async def ready(self) -> str:
        """Why these webhooks cannot be asked yet; empty from when API servers have been told, for good.

        A cluster's API that does not answer for a while has no reason to ask nobody.
        """
        return "" if self._told else self.problem

    async def follow(self) -> None:
        """Look again and again, for ever."""
        while True:
            await self.look()
            await asyncio.sleep(RETRY_INTERVAL if self.problem else LOOK_INTERVAL)

    async def look(self) -> None:
        """Look once, and put right what is not."""
        try:
            if self._keys.refresh():
                logger.info("the webhooks' keys were replaced")
            if await publish(self._cluster, self._name, self._keys.authority):
                logger.info("API servers are told to believe the webhooks' authority")
            problem, self._told = "", True
        except MeshError as error:
            problem = error.detail
        if problem and problem != self.problem:
            logger.warning("%s", problem)
        self.problem = problem


async def run_webhook(settings: WebhookSettings, environ: Mapping[str, str]) -> None:
    """Answer API servers until a signal stops it.

    Raises InvalidRequest where this is no pod, or has no keys; Unavailable if a port is taken.
    """
    namespace = PodAccess.of(environ).namespace
    stopped = asyncio.Event()
    with stop_signals(stopped.set):
        async with (
            Cluster.of_pod(environ) as cluster,
            webhooks(settings, cluster, namespace) as port,
        ):
            logger.info("webhooks are answered at %s:%s", settings.host, port)
            await stopped.wait()


@asynccontextmanager
async def webhooks(settings: WebhookSettings, cluster: Cluster, namespace: str) -> AsyncIterator[int]:
    """Within the context, answer the API servers of `cluster`; `namespace` is that of the installation.

    Yields the port. Raises as above.
    """
    keys = ServingKeys(settings.keys)
    publication = Publication(cluster, settings.name, keys)
    metrics = ReviewMetrics()
    checks = {"/livez": _lives, "/readyz": publication.ready}
    reviews = {
        INJECT_PATH: partial(_injected, settings.injection, namespace),
        VALIDATE_PATH: partial(_validated, settings.injection, cluster),
    }
    async with (
        serving_health(settings.host, settings.health_port, checks, {"/metrics": metrics.page}),
        serving_webhooks(settings.host, settings.port, keys.tls, reviews, metrics) as port,
        TaskOwner("webhook") as tasks,
    ):
        tasks.start(publication.follow(), name="publication", endless=True)
        yield port


async def _lives() -> str:
    return ""


async def _injected(settings: InjectionSettings, own_namespace: str, asked: AdmissionRequest) -> Verdict:
    return await asyncio.to_thread(review_pod, asked, settings, own_namespace)


async def _validated(settings: InjectionSettings, cluster: Cluster, asked: AdmissionRequest) -> Verdict:
    verdict = await asyncio.to_thread(review_resource, asked, settings)
    new = asked.operation is Operated.CREATE and bool(asked.name)
    if not verdict.allowed or not new or asked.kind.kind == AGENT_DEPLOYMENT:
        return verdict
    return Verdict(warnings=(*verdict.warnings, *await _named_alike(cluster, asked)))


async def _named_alike(cluster: Cluster, asked: AdmissionRequest) -> tuple[str, ...]:
    """What is to be said where there is a resource of the same name: a mesh knows no namespaces."""
    kind, name = CUSTOM_KINDS[asked.kind.kind], asked.name
    try:
        async with asyncio.timeout(TOLD_WITHIN):
            found = (await cluster.list(kind, fields=f"metadata.name={name}")).items
    except (MeshError, TimeoutError) as error:
        # It would be no more than a warning: the condition of the resource says the same.
        logger.info("whether there is another %s %s is not known: %s", kind.kind, name, error)
        return ()
    if all(each["metadata"]["namespace"] == asked.namespace for each in found):
        return ()
    return (
        f"another namespace has a {kind.kind} {name!r} already, and the mesh has one of each name: the older "
        f"one is in force; choose another name, or delete the older one",
    )
