"""What agents on a Kubernetes cluster lack: roots, sidecars, resources that the mesh has."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any, Final

from weft.cli.cluster_findings import KEDA, SOON, Installed, has_api, listed
from weft.cli.findings import Finding, Level
from weft.errors import NotFound
from weft.kubernetes.agent_deployment import KIND as AGENT_DEPLOYMENT
from weft.kubernetes.controller.conditions import found_condition
from weft.kubernetes.controller.kinds import (
    CONFIG_MAP,
    CUSTOM_KINDS,
    NAMESPACE,
    ClusterKind,
    Document,
    Key,
    key_of,
)
from weft.kubernetes.custom_resources import READY
from weft.kubernetes.injection import INJECT, INJECTED
from weft.kubernetes.injection_settings import ROOTS_FILE
from weft.kubernetes.webhook.certificates import authorities

POD: Final = ClusterKind("", "v1", "Pod", "pods")
LABEL: Final = "weft.dev/injection=enabled"
"""Of namespaces in which pods get sidecars."""

_ENDED: Final = ("Succeeded", "Failed")


async def roots(at: Installed) -> AsyncIterator[Finding]:
    """Whether sidecars find the mesh's roots."""
    key = at.key("roots")
    own = await _roots(at, key.namespace)
    if own is None:
        advice = "the control plane's pods put them there: see the logs of their container publish-roots"
        yield Finding(Level.FAIL, "roots", f"none in ConfigMap {key}", advice)
        return
    ends = [each.not_valid_after_utc for each in authorities(own.encode())]
    if not ends:
        yield Finding(Level.FAIL, "roots", f"{ROOTS_FILE} of ConfigMap {key} holds no certificates")
        return
    if max(ends) - datetime.now(UTC) < SOON:
        advice = "`weft identity rotate --level root`"
        yield Finding(Level.WARN, "roots", f"end at {max(ends):%Y-%m-%d}", advice)
    others = [each for each in await _labelled(at) if await _roots(at, each) != own]
    if others:
        found = f"missing or old in: {listed(others)}"
        yield Finding(Level.FAIL, "roots", found, "the controller copies them: see its log")
    else:
        yield Finding(Level.OK, "roots", f"published, until {max(ends):%Y-%m-%d}")


async def _roots(at: Installed, namespace: str) -> str | None:
    found = await at.cluster.get(CONFIG_MAP, Key(namespace, at.key("roots").name))
    return ((found or {}).get("data") or {}).get(ROOTS_FILE)


async def _labelled(at: Installed) -> list[str]:
    """The namespaces in which pods get sidecars."""
    found = (await at.cluster.list(NAMESPACE, labels=LABEL)).items
    return [name for each in found if (name := str(each["metadata"]["name"])) != at.namespace]


async def pods(at: Installed) -> AsyncIterator[Finding]:
    """Whether every pod that is to have a sidecar has one, and of the same version as the rest."""
    spaces = await _labelled(at)
    found = [each for space in spaces for each in (await at.cluster.list(POD, namespace=space)).items]
    wanted = {str(key_of(each)): each for each in found if _is_to_have_one(each)}
    versions = {name: _metadata(each, "annotations").get(INJECTED) for name, each in wanted.items()}
    without = [name for name, by in versions.items() if by is None]
    others = [f"{name} ({by})" for name, by in versions.items() if by not in {None, version("weft")}]
    restart = "`kubectl rollout restart` their Deployments"
    if without:
        told = f"pods without one: {listed(without)}"
        yield Finding(Level.WARN, "sidecars", told, f"{restart}, once the webhooks run")
    if others:
        told = f"of another version than {version('weft')}: {listed(others)}"
        yield Finding(Level.WARN, "sidecars", told, f"{restart}, at leisure")
    if not (without or others):
        yield Finding(Level.OK, "sidecars", f"{len(wanted)} pods in {len(spaces)} namespaces with {LABEL}")


def _is_to_have_one(pod: Document) -> bool:
    declined = "false" in (_metadata(pod, "labels").get(INJECT), _metadata(pod, "annotations").get(INJECT))
    return not declined and (pod.get("status") or {}).get("phase") not in _ENDED


def _metadata(document: Document, field: str) -> Mapping[str, Any]:
    return document["metadata"].get(field) or {}


async def resources(at: Installed) -> AsyncIterator[Finding]:
    """Whether the mesh has the custom resources as they are declared."""
    found = [each for kind in CUSTOM_KINDS.values() for each in await _declared(at, kind)]
    ready = {_shown(each): found_condition(each, READY) or {} for each in found}
    wrong = [
        f"{name} ({each.get('reason')})" for name, each in ready.items() if each.get("status") == "False"
    ]
    waiting = [name for name, each in ready.items() if each.get("status") not in {"True", "False"}]
    if wrong:
        advice = "`kubectl describe` says why, and what to do"
        yield Finding(Level.WARN, "resources", f"not as declared: {listed(wrong)}", advice)
    if waiting:
        told = f"not looked at yet: {listed(waiting)}"
        yield Finding(Level.WARN, "resources", told, "see the log of the controller")
    if not (wrong or waiting):
        yield Finding(Level.OK, "resources", f"{len(ready)}, all as declared")
    by_queue = [_shown(each) for each in found if _scales_by_queue(each)]
    if by_queue and not await has_api(at, KEDA):
        advice = "install KEDA, or leave `scaling.queue` out"
        yield Finding(Level.FAIL, KEDA, f"not there, but needed by {listed(by_queue)}", advice)


async def _declared(at: Installed, kind: ClusterKind) -> list[Document]:
    try:
        return (await at.cluster.list(kind)).items
    except NotFound:
        return []  # told where definitions are looked at


def _shown(document: Document) -> str:
    return f"{document['kind']} {key_of(document)}"


def _scales_by_queue(document: Document) -> bool:
    scaling = document["spec"].get("scaling") or {}
    return document["kind"] == AGENT_DEPLOYMENT and bool(scaling.get("queue"))
