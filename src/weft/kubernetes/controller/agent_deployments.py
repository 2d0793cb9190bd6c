"""AgentDeployments: what each stands for is made, kept so, and told how it is."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from weft.errors import Denied, InvalidRequest, InvalidResource, NotFound
from weft.kubernetes.agent_deployment import read_agent_deployment
from weft.kubernetes.agent_manifests import agent_manifests
from weft.kubernetes.controller.cluster import MANAGER
from weft.kubernetes.controller.conditions import Condition
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, ClusterKind, Document, Key
from weft.kubernetes.controller.loop import Source
from weft.kubernetes.controller.parts import Parts
from weft.kubernetes.controller.rollout import rollout_conditions, rollout_figures
from weft.kubernetes.controller.roots import MANAGED_LABEL, ends
from weft.kubernetes.custom_resources import READY
from weft.kubernetes.injection import InjectionSettings
from weft.kubernetes.problem import Problem, Refusal

AGENT_DEPLOYMENT: Final = CUSTOM_KINDS["AgentDeployment"]
DEPLOYMENT: Final = ClusterKind("apps", "v1", "Deployment", "deployments")
SERVICE: Final = ClusterKind("", "v1", "Service", "services")
SCALED_OBJECT: Final = ClusterKind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
MADE: Final = (
    ClusterKind("", "v1", "ServiceAccount", "serviceaccounts"),
    SERVICE,
    DEPLOYMENT,
    ClusterKind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    ClusterKind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    SCALED_OBJECT,
)
"""All kinds of which an AgentDeployment may consist."""

KEPT: Final = f"{MANAGED_LABEL}=weft"
"""The label of all that is made, as a selector."""

LOOK_AGAIN: Final = 300.0
"""Seconds after which all is applied again, though nothing is known to have changed."""
LOOK_SOON: Final = 20.0
"""The same where something is in the way that may go."""

_HANDOVER: Final = "weft-handover"


@dataclass(frozen=True, slots=True)
class _Applied:
    """What was applied last."""

    mark: str
    at: float
    """In the loop's time."""


class AgentDeployments:
    """Makes what AgentDeployments stand for."""

    name = "agent-deployments"

    def __init__(self, parts: Parts, settings: InjectionSettings) -> None:
        """Sidecars are put into the pods by `settings`."""
        self._cluster = parts.cluster
        self._reports = parts.reports
        self._declared = parts.following(AGENT_DEPLOYMENT)
        self._deployments = parts.following(DEPLOYMENT, KEPT)
        self._settings = settings
        self._applied: dict[Key, _Applied] = {}
        self.sources = Source(self._declared), Source(self._deployments)

    async def reconcile(self, key: Key) -> float | None:
        """See to one AgentDeployment."""
        document = self._declared.objects.get(key)
        if document is None or ends(document):
            # What was made of it has it for an owner, and goes with it.
            self._applied.pop(key, None)
            return None
        try:
            again = await self._made(key, document)
        except InvalidResource as error:
            problem = Problem("Invalid", "; ".join(str(each) for each in error.problems))
        except Refusal as refusal:
            problem = refusal.problem
        except (InvalidRequest, Denied) as error:
            problem = Problem("Refused", error.detail)
        except NotFound as error:
            problem = Problem("Refused", f"{error.detail}: is its namespace being deleted?")
        else:
            return again
        self._applied.pop(key, None)
        await self._reports.status(
            AGENT_DEPLOYMENT, document, [Condition(READY, "False", problem.reason, problem.message)]
        )
        return LOOK_SOON

    async def _made(self, key: Key, document: Document) -> float:
        """Make what `document` stands for; in how many seconds to look again.

        Raises InvalidResource or Refusal where it cannot be, and what the cluster says against it.
        """
        manifests = agent_manifests(read_agent_deployment(document), self._settings)
        for problem in manifests.problems:
            if problem.refused:
                raise Refusal(problem.reason, problem.message)
        owner = str(document["metadata"]["uid"])
        wanted = [_owned(each, document) for each in manifests.documents]
        digest = sha256(json.dumps(wanted).encode()).hexdigest()
        running = self._deployments.objects.get(key)
        now = asyncio.get_running_loop().time()
        if running is None or not self._settled(key, _mark(digest, running), now):
            running = await self._apply(key, wanted, owner)
            self._applied[key] = _Applied(_mark(digest, running), now)
        await self._tell(document, running, manifests.problems)
        return LOOK_AGAIN

    def _settled(self, key: Key, mark: str, now: float) -> bool:
        applied = self._applied.get(key)
        return applied is not None and applied.mark == mark and now - applied.at < LOOK_AGAIN

    async def _apply(self, key: Key, wanted: Iterable[Document], owner: str) -> Document:
        """Have everything be there that is wanted, and nothing else; the Deployment, as it stands."""
        by_kind = {each["kind"]: each for each in wanted}
        found = [(kind, await self._cluster.get(kind, key)) for kind in MADE]
        for kind, there in found:
            if there is not None and not _is_owned(there, owner):
                if kind.kind in by_kind and not _is_free(there):
                    raise _name_taken(kind, key)
            elif there is not None and kind.kind not in by_kind:
                # Two autoscalers would work against each other: the old one goes before the new one comes.
                await self._cluster.delete(kind, key, uid=there["metadata"]["uid"])
        deployment = dict(found)[DEPLOYMENT]
        if deployment is not None and "replicas" not in by_kind[DEPLOYMENT.kind]["spec"]:
            await self._hand_over(deployment)
        made = {
            kind: await self._apply_one(kind, by_kind[kind.kind]) for kind in MADE if kind.kind in by_kind
        }
        return made[DEPLOYMENT]

    async def _apply_one(self, kind: ClusterKind, document: Document) -> Document:
        try:
            return await self._cluster.apply(kind, document)
        except NotFound as error:
            if kind is not SCALED_OBJECT:
                raise
            message = (
                "the cluster has no ScaledObject, which scaling.queue needs: install KEDA, or leave it out; "
                "until then nothing scales the pods"
            )
            raise Refusal("KedaMissing", message) from error

    async def _hand_over(self, deployment: Document) -> None:
        """Have the number of pods stay what it is, though it is applied no more.

        https://kubernetes.io/docs/reference/using-api/server-side-apply/#transferring-ownership
        """
        if not any(_applied_replicas(each) for each in deployment["metadata"].get("managedFields") or ()):
            return
        metadata = {name: deployment["metadata"][name] for name in ("name", "namespace")}
        spec = {"replicas": deployment["spec"]["replicas"]}
        document = {
            "apiVersion": DEPLOYMENT.api_version,
            "kind": DEPLOYMENT.kind,
            "metadata": metadata,
            "spec": spec,
        }
        await self._cluster.apply(DEPLOYMENT, document, manager=_HANDOVER)

    async def _tell(self, document: Document, running: Document, problems: Iterable[Problem]) -> None:
        known = (document.get("status") or {}).get("observedGeneration")
        if known != document["metadata"].get("generation"):
            for each in problems:
                await self._reports.event(document, "Warning", each.reason, each.message)
        await self._reports.status(
            AGENT_DEPLOYMENT, document, rollout_conditions(running), fields=rollout_figures(running)
        )


def _owned(document: Document, owner: Document) -> Document:
    """`document`, so that it goes with `owner`."""
    metadata = owner["metadata"]
    reference = {
        "apiVersion": AGENT_DEPLOYMENT.api_version,
        "kind": AGENT_DEPLOYMENT.kind,
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    return {**document, "metadata": {**document["metadata"], "ownerReferences": [reference]}}


def _is_owned(document: Document, owner: str) -> bool:
    return any(each.get("uid") == owner for each in document["metadata"].get("ownerReferences") or ())


def _is_free(document: Document) -> bool:
    """Whether it was made of an AgentDeployment, as by `weft kubernetes expand`, and nobody keeps it."""
    metadata = document["metadata"]
    kept = any(each.get("controller") for each in metadata.get("ownerReferences") or ())
    return not kept and (metadata.get("labels") or {}).get(MANAGED_LABEL) == "weft"


def _name_taken(kind: ClusterKind, key: Key) -> Refusal:
    message = (
        f"there is a {kind.kind} {key} already, which is not this AgentDeployment's: delete it, or give this "
        f"one another name"
    )
    return Refusal("NameTaken", message)


def _applied_replicas(entry: Document) -> bool:
    """Whether a Deployment's number of pods is what this controller applied."""
    fields = (entry.get("fieldsV1") or {}).get("f:spec") or {}
    return entry.get("manager") == MANAGER and entry.get("operation") == "Apply" and "f:replicas" in fields


def _mark(digest: str, deployment: Document) -> str:
    """Changes with what is declared, and with what others do to the Deployment."""
    metadata = deployment["metadata"]
    return f"{digest} {metadata['uid']} {metadata.get('generation')}"
