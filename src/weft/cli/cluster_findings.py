"""What an installation on a Kubernetes cluster lacks: of the cluster itself, and of its own parts."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from weft.cli.findings import Finding, Level
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.definitions import DEFINITION, missing_fields, served_schema
from weft.kubernetes.controller.kinds import ClusterKind, Document, Key
from weft.kubernetes.custom_resources import GROUP, custom_kinds, custom_resource_definitions
from weft.kubernetes.webhook.certificates import read_bundle
from weft.kubernetes.webhook.publication import configurations

OLDEST_MINOR: Final = 29
"""Of Kubernetes 1: the first with native sidecars."""

SOON: Final = timedelta(days=30)
"""Before the end of an authority at which it should have been replaced."""

DEPLOYMENT: Final = ClusterKind("apps", "v1", "Deployment", "deployments")
STATEFUL_SET: Final = ClusterKind("apps", "v1", "StatefulSet", "statefulsets")
ENDPOINT_SLICE: Final = ClusterKind("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices")
KEDA: Final = "keda.sh"

_SHOWN: Final = 5
"""Names that one line has."""


@dataclass(frozen=True, slots=True)
class Installed:
    """Which installation is looked at."""

    cluster: Cluster
    name: str
    namespace: str

    def key(self, part: str) -> Key:
        """Of the object of that part."""
        return Key(self.namespace, f"{self.name}-{part}")


async def kubernetes_version(at: Installed) -> AsyncIterator[Finding]:
    """Whether the cluster has native sidecars."""
    found = await at.cluster.read("/version")
    text, minor = str(found.get("gitVersion")), str(found.get("minor", "")).rstrip("+")
    if minor.isdecimal() and int(minor) < OLDEST_MINOR:
        advice = f"sidecars need Kubernetes 1.{OLDEST_MINOR} or later"
        yield Finding(Level.FAIL, "Kubernetes", text, advice)
    else:
        yield Finding(Level.OK, "Kubernetes", text)


async def definitions(at: Installed) -> AsyncIterator[Finding]:
    """Whether the cluster has Weft's kinds, as this version has them."""
    apply = "`weft kubernetes crds | kubectl apply --server-side -f -`, of the version that is installed"
    missing, older, later = [], [], []
    for kind in custom_kinds():
        found = await at.cluster.get(DEFINITION, Key("", f"{kind.plural}.{GROUP}"))
        theirs = served_schema(found or {})
        if not theirs:
            missing.append(kind.name)
            continue
        ours = _schemas()[kind.name]
        dropped = list(missing_fields(ours, theirs))
        older += [f"{kind.name} ({listed(dropped)})"] if dropped else []
        later += [kind.name] if any(missing_fields(theirs, ours)) else []
    if missing:
        yield Finding(Level.FAIL, "custom resources", f"missing: {listed(missing)}", apply)
    if older:
        found_older = f"of an older version, which drops fields: {listed(older)}"
        yield Finding(Level.FAIL, "custom resources", found_older, apply)
    if later:
        found_later = f"of a later version than this command: {listed(later)}"
        yield Finding(Level.WARN, "custom resources", found_later, "use the `weft` of the installation")
    if not (missing or older or later):
        yield Finding(Level.OK, "custom resources", f"{len(_schemas())} kinds")


@cache
def _schemas() -> Mapping[str, Mapping[str, Any]]:
    """The schema that each kind has in this version."""
    return {each["spec"]["names"]["kind"]: served_schema(each) for each in custom_resource_definitions()}


_PARTS: Final = (
    (STATEFUL_SET, "nats", "NATS", Level.FAIL),
    (DEPLOYMENT, "control", "control plane", Level.FAIL),
    (DEPLOYMENT, "controller", "controller", Level.WARN),
    (DEPLOYMENT, "webhook", "webhooks", Level.WARN),
)
"""Each with how bad it is if it is not there at all: some can be left out of an installation."""


async def parts(at: Installed) -> AsyncIterator[Finding]:
    """Whether the parts of the installation run, and NATS with a quorum."""
    for kind, part, what, level in _PARTS:
        key = at.key(part)
        found = await at.cluster.get(kind, key)
        if found is None:
            advice = "install it, or name the installation by --name and --namespace"
            yield Finding(level, what, f"there is no {kind.kind} {key}", advice)
        else:
            yield _replicas(what, kind, key, found)


def _replicas(what: str, kind: ClusterKind, key: Key, found: Document) -> Finding:
    wanted = found["spec"].get("replicas", 1)
    ready = (found.get("status") or {}).get("readyReplicas", 0)
    told = f"{ready} of {wanted} ready"
    look = f"`kubectl -n {key.namespace} describe {kind.kind.lower()} {key.name}`, and the logs of its pods"
    if what == "NATS" and ready * 2 <= wanted:
        return Finding(Level.FAIL, what, f"{told}: there is no quorum", look)
    if ready >= wanted and ready:
        return Finding(Level.OK, what, told)
    return Finding(Level.WARN if ready else Level.FAIL, what, told, look)


async def endpoints(at: Installed) -> AsyncIterator[Finding]:
    """Whether the control plane can be reached by its Service."""
    count = await ready_endpoints(at, "control")
    service = at.key("control")
    if count:
        yield Finding(Level.OK, "reached at", f"Service {service}, {count} behind it")
    else:
        yield Finding(
            Level.FAIL,
            "reached at",
            f"nothing that is ready is behind Service {service}",
            "sidecars cannot start: see the lines of NATS and the control plane",
        )


async def ready_endpoints(at: Installed, part: str) -> int:
    """How many pods behind a Service of the installation can be asked."""
    key = at.key(part)
    slices = await at.cluster.list(
        ENDPOINT_SLICE, namespace=key.namespace, labels=f"kubernetes.io/service-name={key.name}"
    )
    ready = {
        address
        for each in slices.items
        for endpoint in each.get("endpoints") or []
        # Unset means ready (discovery.k8s.io/v1, EndpointConditions).
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or []
    }
    return len(ready)


async def webhooks(at: Installed) -> AsyncIterator[Finding]:
    """Whether API servers ask the webhooks, and believe them."""
    deployed = await at.cluster.get(DEPLOYMENT, at.key("webhook")) is not None
    for kind, key in configurations(at.name):
        found = await at.cluster.get(kind, key)
        if found is None:
            if deployed:
                advice = "apply the installation's manifests again"
                yield Finding(Level.FAIL, "webhooks", f"there is no {kind.kind} {key}", advice)
            continue
        for each in found.get("webhooks") or []:
            yield _believed(str(each["name"]), each)
    if deployed and not await ready_endpoints(at, "webhook"):
        found_none = f"nothing that is ready is behind Service {at.key('webhook')}"
        yield Finding(Level.FAIL, "webhooks", found_none, "pods get no sidecars, and resources no checks")


def _believed(name: str, webhook: Document) -> Finding:
    ends = [each.not_valid_after_utc for each in read_bundle(webhook["clientConfig"].get("caBundle") or "")]
    now = datetime.now(UTC)
    if webhook.get("failurePolicy") != "Ignore":
        advice = "set it to Ignore: else nothing can be created while the webhooks are down"
        return Finding(Level.WARN, name, "failurePolicy is not Ignore", advice)
    if not ends:
        advice = "see the logs of the webhooks: they put it there, and say why they cannot"
        return Finding(Level.FAIL, name, "has no caBundle, so API servers do not believe it", advice)
    if max(ends) - now < SOON:
        advice = "delete the Secret of the webhooks, and run the Job of bootstrap again"
        level = Level.WARN if max(ends) > now else Level.FAIL
        return Finding(level, name, f"its authority ends at {max(ends):%Y-%m-%d}", advice)
    return Finding(Level.OK, name, f"believed until {max(ends):%Y-%m-%d}")


async def other_apis(at: Installed) -> AsyncIterator[Finding]:
    """What the cluster has that autoscalers and routes can build on."""
    if await has_api(at, "metrics.k8s.io"):
        yield Finding(Level.OK, "metrics.k8s.io", "there")
    else:
        advice = "install metrics-server: without it no HorizontalPodAutoscaler scales by CPU"
        yield Finding(Level.WARN, "metrics.k8s.io", "not there", advice)
    for group, purpose in (
        (KEDA, "`scaling.queue` of AgentDeployments"),
        ("gateway.networking.k8s.io", "HTTPRoutes"),
    ):
        found = "there" if await has_api(at, group) else f"not there: needed only for {purpose}"
        yield Finding(Level.OK, group, found)


async def has_api(at: Installed, group: str) -> bool:
    """Whether the cluster serves a group of its API."""
    groups = (await at.cluster.read("/apis")).get("groups") or []
    return any(each["name"] == group for each in groups)


def listed(names: list[str]) -> str:
    """Some names, and how many more there are."""
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f", and {more} more" if more > 0 else "")
