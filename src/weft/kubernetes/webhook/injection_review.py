"""What is answered when a pod is to be created: with the sidecar that it gets, or why it cannot be. Pure.

Only pods in namespaces with the label `weft.dev/injection: enabled` are asked about. What an agent could do
without a sidecar no policy would see, so a pod that cannot have one is refused, with the way out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from weft.errors import InvalidRequest
from weft.kubernetes.injection import INJECT
from weft.kubernetes.injection_settings import InjectionSettings
from weft.kubernetes.webhook.admission import AdmissionRequest, Cause, Operated, Verdict
from weft.kubernetes.webhook.json_patch import json_patch
from weft.kubernetes.workloads import inject_document

CLUSTERS_OWN: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
"""Namespaces of the cluster itself: no pod there waits for a sidecar, whatever labels they have."""

_MIRROR: Final = "kubernetes.io/config.mirror"
"""Annotation of what only shows that a node runs a pod by a file of its own."""

_UNTOUCHED: Final = Verdict()


def review_pod(request: AdmissionRequest, settings: InjectionSettings, own_namespace: str) -> Verdict:
    """What becomes of the pod that `request` would create; `own_namespace` is where the installation is.

    Raises InvalidRequest if it would create no pod.
    """
    pod = request.object
    if request.operation is not Operated.CREATE or request.kind.kind != "Pod" or pod is None:
        raise InvalidRequest(
            f"asked about {request.operation} of {request.kind.kind}: sidecars are put into pods, when they "
            f"are created"
        )
    if request.namespace in {*CLUSTERS_OWN, own_namespace} or _left_alone(pod):
        return _UNTOUCHED
    # An API server need not write into a pod what it knows it to be.
    document = {**pod, "apiVersion": "v1", "kind": "Pod"}
    injected = inject_document(document, settings)
    if injected.refused:
        causes = (Cause(each.reason, each.message) for _, each in injected.problems if each.refused)
        return Verdict(causes=tuple(causes))
    warnings = tuple(f"{each.reason}: {each.message}" for _, each in injected.problems)
    return Verdict(patch=json_patch(document, injected.document), warnings=warnings)


def _left_alone(pod: Mapping[str, Any]) -> bool:
    """Whether the label says so, or there is nothing to put a sidecar into."""
    return _of(pod, "labels").get(INJECT) == "false" or _MIRROR in _of(pod, "annotations")


def _of(pod: Mapping[str, Any], field: str) -> Mapping[str, Any]:
    metadata = pod.get("metadata")
    found = metadata.get(field) if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}
