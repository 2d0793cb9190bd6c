"""AgentDeployments: what each stands for is made, kept so, and told how it is."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from typing import Final

from weft.errors import Denied, InvalidRequest, InvalidResource, NotFound
from weft.kubernetes.agent_deployment import AgentDeployment, read_agent_deployment
from weft.kubernetes.agent_manifests import agent_manifests
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.conditions import Condition, Reports
from weft.kubernetes.controller.following import Followed
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, ClusterKind, Document, Key, key_of
from weft.kubernetes.controller.loop import Source
from weft.kubernetes.controller.rollout import rollout_conditions, rollout_figures
from weft.kubernetes.controller.roots import MANAGED_LABEL, ends
from weft.kubernetes.custom_resources import READY
from weft.kubernetes.injection import InjectionSettings
from weft.kubernetes.problem import Problem, Refusal

logger = logging.getLogger(__name__)

AGENT_DEPLOYMENT: Final = CUSTOM_KINDS["AgentDeployment"]
DEPLOYMENT: Final = ClusterKind("apps", "v1", "Deployment", "deployments")
SERVICE: Final = ClusterKind("", "v1", "Service", "services")
SCALED_OBJECT: Final = ClusterKind("keda.sh", "v1alpha1", "ScaledObject", "scaledobjects")
_AUTOSCALER = ClusterKind("autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers")

MADE: Final = (
    ClusterKind("", "v1", "ServiceAccount", "serviceaccounts"),
    SERVICE,
    DEPLOYMENT,
    ClusterKind("policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    _AUTOSCALER,
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


class AgentDeployments:
    """Makes what AgentDeployments stand for."""

    name = "agent-deployments"

    def __init__(
        self,
        cluster: Cluster,
        reports: Reports,
        *,
        agent_deployments: Followed,
        deployments: Followed,
        settings: InjectionSettings,
    ) -> None:
        """`deployments` are those with the label `KEPT`; sidecars are put into their pods by `settings`."""
        self._cluster = cluster
        self._reports = reports
        self._declared = agent_deployments
        self._deployments = deployments
        self._settings = settings
        self._applied: dict[Key, str] = {}
        """What was applied last, and to which Deployment, for as long as that need not be done again."""
        self.sources: Sequence[Source] = (Source(agent_deployments), Source(deployments))

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
        deployment = read_agent_deployment({name: document.get(name) for name in ("metadata", "spec")})
        manifests = agent_manifests(deployment, self._settings)
        for problem in manifests.problems:
            if problem.refused:
                raise Refusal(problem.reason, problem.message)
        owner = _owner(document)
        wanted = [_owned(each, owner) for each in manifests.documents]
        digest = sha256(json.dumps(wanted).encode()).hexdigest()
        running = self._deployments.objects.get(key)
        if running is None or self._applied.get(key) != _mark(digest, running):
            running = await self._apply(key, wanted, owner)
            self._applied[key] = _mark(digest, running)
            again = LOOK_AGAIN
        else:
            # The next look applies all of it, unless something changes before that.
            self._applied.pop(key)
            again = LOOK_AGAIN
        await self._tell(document, deployment, running, manifests.problems)
        return again
