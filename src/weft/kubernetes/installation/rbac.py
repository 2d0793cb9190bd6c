"""Who may do what at the cluster's API: every part has its own account, and no right that it does not use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from weft.kubernetes.custom_resources import GROUP
from weft.kubernetes.installation.setup import Document, Setup

_RBAC: Final = "rbac.authorization.k8s.io"
_API: Final = f"{_RBAC}/v1"

READ: Final = ("get", "list", "watch")
MAKE: Final = (*READ, "create", "patch")
OWN: Final = (*MAKE, "delete")


def rule(
    groups: Sequence[str], resources: Sequence[str], verbs: Sequence[str], names: Sequence[str] = ()
) -> Document:
    """What may be done with what; with `names`, with those only."""
    found: Document = {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}
    return found | ({"resourceNames": list(names)} if names else {})


def namespaced(setup: Setup, part: str, rules: Sequence[Document]) -> list[Document]:
    """A Role in the installation's namespace, for the account of a part."""
    name = setup.named(part)
    return [
        setup.document(_API, "Role", part, rules=list(rules)),
        setup.document(
            _API, "RoleBinding", part, roleRef=_reference("Role", name), subjects=[_account(setup, name)]
        ),
    ]


def clusterwide(setup: Setup, part: str, rules: Sequence[Document]) -> list[Document]:
    """A ClusterRole, for the account of a part."""
    name = setup.named(part)
    reference, subjects = _reference("ClusterRole", name), [_account(setup, name)]
    return [
        setup.cluster_document(_API, "ClusterRole", part, rules=list(rules)),
        setup.cluster_document(_API, "ClusterRoleBinding", part, roleRef=reference, subjects=subjects),
    ]


def secret_readers(setup: Setup) -> list[Document]:
    """What lets the controller read Secrets of Kubernetes, in the namespaces that were named and no other."""
    named = setup.values.controller.secrets_in
    name = f"{setup.named('controller')}-secrets"
    reading = [rule([""], ["secrets"], ["get"])]
    subjects = [_account(setup, setup.named("controller"))]
    if not named:
        return []
    found = [setup.cluster_document(_API, "ClusterRole", "controller", name=name, rules=reading)]
    reference = _reference("ClusterRole", name)
    if "*" in named:
        return [
            *found,
            setup.cluster_document(
                _API, "ClusterRoleBinding", "controller", name=name, roleRef=reference, subjects=subjects
            ),
        ]
    for namespace in named:
        binding = setup.document(
            _API, "RoleBinding", "controller", name=name, roleRef=reference, subjects=subjects
        )
        binding["metadata"]["namespace"] = namespace
        found.append(binding)
    return found


def bootstrap_rules() -> list[Document]:
    """It makes Secrets, and cannot read the ones it made."""
    return [rule([""], ["secrets"], ["create"])]


def publisher_rules(setup: Setup) -> list[Document]:
    """The mesh's roots, in the one ConfigMap that is there for them."""
    return [rule([""], ["configmaps"], ["patch"], [setup.roots])]


def attestation_rules() -> list[Document]:
    """Whether a token is a pod's, is asked of the cluster."""
    return [rule(["authentication.k8s.io"], ["tokenreviews"], ["create"])]


def webhook_rules(setup: Setup) -> list[Document]:
    """Its authority in its own two configurations; and what of custom resources there is elsewhere."""
    group = "admissionregistration.k8s.io"
    return [
        rule([group], ["mutatingwebhookconfigurations"], ["get", "patch"], [setup.named("injector")]),
        rule([group], ["validatingwebhookconfigurations"], ["get", "patch"], [setup.named("validator")]),
        rule([GROUP], ["*"], ["list"]),
    ]


def controller_own_rules() -> list[Document]:
    """Which of the controllers works, and the mesh's roots, to follow them."""
    return [
        rule(["coordination.k8s.io"], ["leases"], ["get", "create", "update"]),
        rule([""], ["configmaps"], READ),
    ]


def controller_rules(setup: Setup) -> list[Document]:
    """Custom resources, what is made of AgentDeployments, and what is read of others."""
    return [
        rule([GROUP], ["*"], OWN),
        rule([""], ["namespaces"], READ),
        rule(["apiextensions.k8s.io"], ["customresourcedefinitions"], ["get"]),
        rule(["events.k8s.io"], ["events"], ["create", "patch"]),
        # What agents begin with, in their namespaces.
        rule([""], ["configmaps"], ["create"]),
        rule([""], ["configmaps"], ["get", "patch", "delete"], [setup.roots]),
        # Plain Services, and routes that have one for a parent.
        rule(["discovery.k8s.io"], ["endpointslices"], READ),
        rule(["gateway.networking.k8s.io"], ["httproutes"], READ),
        rule(["gateway.networking.k8s.io"], ["httproutes/status"], ["patch"]),
        # What is made of AgentDeployments; the cluster takes it away with them.
        rule([""], ["serviceaccounts", "services"], MAKE),
        rule(["apps"], ["deployments"], MAKE),
        rule(["policy"], ["poddisruptionbudgets"], MAKE),
        rule(["autoscaling"], ["horizontalpodautoscalers"], [*MAKE, "delete"]),
        rule(["keda.sh"], ["scaledobjects"], [*MAKE, "delete"]),
    ]


def _reference(kind: str, name: str) -> Document:
    return {"apiGroup": _RBAC, "kind": kind, "name": name}


def _account(setup: Setup, name: str) -> Document:
    return {"kind": "ServiceAccount", "name": name, "namespace": setup.namespace}
