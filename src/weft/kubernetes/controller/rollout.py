"""How a Deployment's pods are, in the terms of the AgentDeployment that it was made of. Pure."""

from __future__ import annotations

from typing import Any, Final

from weft.kubernetes.controller.conditions import Condition, found_condition
from weft.kubernetes.controller.kinds import Document
from weft.kubernetes.custom_resources import READY, ROLLOUT_FIGURES

PROGRESSING: Final = "Progressing"
"""The type of the condition that says whether a new version is being rolled out."""


def rollout_figures(deployment: Document) -> dict[str, int]:
    """How many pods there are, how many are ready, and how many are of the newest version."""
    return {name: _number(deployment, name) for name in ROLLOUT_FIGURES}


def rollout_conditions(deployment: Document) -> tuple[Condition, ...]:
    """`Ready`, and `Progressing`."""
    return _ready(deployment), _progressing(deployment)


def _ready(deployment: Document) -> Condition:
    wanted, ready = _wanted(deployment), _number(deployment, "readyReplicas")
    failed = found_condition(deployment, "ReplicaFailure")
    if failed is not None and failed.get("status") == "True":
        return Condition(READY, "False", str(failed.get("reason") or "ReplicaFailure"), _said(failed))
    if not _seen(deployment):
        return Condition(READY, "Unknown", "Waiting", "the cluster has not looked at the Deployment yet")
    available = found_condition(deployment, "Available")
    if available is not None and available.get("status") == "True":
        return Condition(READY, "True", "PodsReady", "enough pods are ready to take calls")
    message = (
        f"{ready} of {wanted} pods are ready: `kubectl describe pods -l "
        f"app.kubernetes.io/name={deployment['metadata']['name']}` says what the others wait for"
    )
    return Condition(READY, "False", "PodsNotReady", message)


def _progressing(deployment: Document) -> Condition:
    found = found_condition(deployment, "Progressing")
    if not _seen(deployment):
        return Condition(PROGRESSING, "True", "RollingOut", "the pods are to be made, or made anew")
    if found is not None and found.get("status") == "False":
        return Condition(PROGRESSING, "False", str(found.get("reason") or "Stuck"), _said(found))
    wanted, updated = _wanted(deployment), _number(deployment, "updatedReplicas")
    old = _number(deployment, "replicas") - updated
    if updated < wanted or old > 0 or _number(deployment, "availableReplicas") < updated:
        return Condition(PROGRESSING, "True", "RollingOut", "pods are being made, or made anew")
    return Condition(PROGRESSING, "False", "RolledOut", "all pods are as they are declared")


def _seen(deployment: Document) -> bool:
    """Whether the status is about what is declared now."""
    return _number(deployment, "observedGeneration") >= int(deployment["metadata"].get("generation") or 0)


def _wanted(deployment: Document) -> int:
    wanted = (deployment.get("spec") or {}).get("replicas")
    return 1 if wanted is None else int(wanted)


def _number(deployment: Document, name: str) -> int:
    return int((deployment.get("status") or {}).get(name) or 0)


def _said(condition: dict[str, Any]) -> str:
    return str(condition.get("message") or "the cluster does not say why")
